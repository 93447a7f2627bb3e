"""Whether a process that was noted earlier is still the same one, and alive; and its relatives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ENDED = "ended, and not collected yet"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """A process and what it has used."""

    title: str
    """The first word of its command line, or what it put there."""
    birth: str
    """See `born`."""
    cpu_s: float
    """Time on a core so far, of all its threads."""


def is_alive(pid: int | None, birth: str | None) -> bool:
    """Whether process `pid` is alive and, unless `birth` is None, was born then; see `born`."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # alive, and another user's
    return birth is None or born(pid) in (None, birth)


def born(pid: int) -> str | None:
    """When process `pid` started, so that a later process with its number is not taken for it.
    Linux only."""
    fields = _stat(pid)
    if not fields:
        return None
    return ENDED if fields[0] == "Z" else _birth(fields)


def session_members(leader: int, birth: str | None) -> dict[int, str | None]:
    """The processes, with their births, of the session that process `leader`, born at `birth`,
    began, that run and are not this one; it may have ended itself. None if the number is
    another process's by now, or the machine was started again since."""
    found: dict[int, str | None] = {}
    boot = (birth or "").partition("/")[0]
    now = _stat(leader)
    if now and _birth(now) != birth:
        return found
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        fields = _stat(pid)
        if fields and int(fields[3]) == leader and fields[0] != "Z" and pid != os.getpid():
            of = _birth(fields)
            if of.partition("/")[0] == boot:
                found[pid] = of
    return found


def siblings() -> dict[int, Usage]:
    """The other processes that the parent of this one has, without those that have ended.
    Linux only."""
    found: dict[int, Usage] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        fields = _stat(pid)
        if not fields or int(fields[1]) != os.getppid() or fields[0] == "Z" or pid == os.getpid():
            continue
        try:
            title = (entry / "cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
        except OSError:
            continue
        ticks = int(fields[11]) + int(fields[12])
        found[pid] = Usage(title.strip(), _birth(fields), ticks / _TICKS_PER_S)
    return found


def descendants(pid: int) -> dict[int, str | None]:
    """The processes below `pid`, with their births."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: dict[int, str | None] = {}
    queue = list(children.get(pid, []))
    while queue:
        child = queue.pop()
        found[child] = born(child)
        queue += children.get(child, [])
    return found


def _stat(pid: int) -> list[str]:
    """What /proc says of a process from its state on: state, parent, group, session …; none
    without such a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _birth(fields: list[str]) -> str:
    """The boot of this machine and the clock tick after it at which a process began."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{fields[19]}"
