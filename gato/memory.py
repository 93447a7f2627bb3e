"""How much memory this machine, or the container that this process is in, has left."""

from __future__ import annotations

import os
from pathlib import Path

MACHINE, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """What processes here can still take: files that are kept in memory can be dropped."""
    return min(_machine()[1], _container()[1])


def is_short(*, share: float, most_bytes: int) -> bool:
    """Whether less than this share of all memory is left, and less than so many bytes."""
    (total, left), (limit, left_of_limit) = _machine(), _container()
    return left < min(share * total, most_bytes) or left_of_limit < min(share * limit, most_bytes)


def _machine() -> tuple[int, int]:
    """All bytes, and those that are left."""
    try:
        lines = (line.split() for line in MACHINE.read_text().splitlines())
        known = {words[0]: int(words[1]) << 10 for words in lines if len(words) > 1}
        return known["MemTotal:"], known["MemAvailable:"]
    except (OSError, KeyError):  # not Linux
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total


def _container() -> tuple[int, int]:
    """The limit, and what it leaves: less what is used, but for files that can be dropped."""
    try:
        limit, used = (int((GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
        dropped = sum(int(stat.get(f"{kind}_file", 0)) for kind in ("active", "inactive"))
        return limit, max(0, limit - used + dropped)
    except (OSError, ValueError):  # no such group, or no limit ("max")
        return 1 << 62, 1 << 62
