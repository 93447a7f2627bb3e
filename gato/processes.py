"""Whether a process that was noted earlier is still the same one, and alive."""

from __future__ import annotations

import os
from pathlib import Path

ENDED = "ended, and not collected yet"


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
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return ENDED if ticks[0] == "Z" else f"{boot}/{ticks[19]}"


def session_members(leader: int, birth: str | None) -> dict[int, str | None]:
    """The processes, with their births, of the session that process `leader`, born at `birth`,
    began and that are not this one; it may have ended itself. None if the number is another
    process's by now, or the machine was started again since."""
    found: dict[int, str | None] = {}
    boot = (birth or "").partition("/")[0]
    if born(leader) not in (None, birth) and is_alive(leader, None):
        return found
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(entry.parent.name)
        if int(fields[3]) == leader and pid != os.getpid():
            of = born(pid)
            if of is not None and of.partition("/")[0] in (boot, ENDED):
                found[pid] = of
    return found


def descendants(pid: int) -> dict[int, str | None]:
    """The processes below `pid`, with their births."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found: dict[int, str | None] = {}
    queue = list(children.get(pid, []))
    while queue:
        child = queue.pop()
        found[child] = born(child)
        queue += children.get(child, [])
    return found
