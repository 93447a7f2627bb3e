"""How much memory this machine, or the container that this process is in, has left."""

from __future__ import annotations

import os
from pathlib import Path

MACHINE, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """What processes here can still take: files that are kept in memory can be dropped."""
    return min(_machine()[1], _container()[1])


def available_share() -> float:
    """The same, by all that there is: 0 to 1."""
    (total, left), (limit, left_of_limit) = _machine(), _container()
    return min(left / total, left_of_limit / limit)


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
    """The limit, and what it leaves: less what is used, files that can be dropped aside."""
    try:
        limit, used = (int((GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
        return limit, max(0, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):  # no such group, or no limit ("max")
        return 1 << 62, 1 << 62
