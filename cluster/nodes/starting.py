"""The start of a node of Ray: whether the cluster has heard of it, and what it said if not."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gato.processes import ENDED, descendants

START_S = 150.0
"""How long a node may take until the cluster knows it; on a busy machine it is a minute or two."""
TIMED_OUT = "timed out during startup"
"""Said by a node that was not up within the 30 s that Ray gives it."""
LAST_WORDS_S = 5.0
"""How long `ray start` may take to say why it ended its server."""
SERVER = "gcs_server"
SERVER_ENDED = "its server (gcs_server) ended"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def await_node(process: subprocess.Popen[bytes], is_there: Callable[[], bool]) -> str | None:
    """Why the cluster does not know the node, empty if its log says so; None: it does."""
    until_s = time.monotonic() + START_S
    had_server = False
    while time.monotonic() < until_s:
        if process.poll() is not None:
            return ""
        has_server = _has_server(process.pid)
        if had_server and not has_server:  # `ray start` is ending it, or never notices
            with suppress(subprocess.TimeoutExpired):
                process.wait(LAST_WORDS_S)
                return ""
            return SERVER_ENDED
        had_server = has_server
        with suppress(ValueError):  # a head that is not up yet, or is being ended
            if is_there():
                return None
        time.sleep(0.2)
    return f"nothing heard of it for {START_S:.0f} s"


def _has_server(pid: int) -> bool:
    for child, birth in descendants(pid).items():
        with suppress(OSError):
            name = Path(f"/proc/{child}/comm").read_text().strip()
            if name == SERVER and birth != ENDED:
                return True
    return False


def reason_in(log: str) -> str:
    """The line of a log that says best why a start failed."""
    lines = [ANSI.sub("", line).strip() for line in log.splitlines()]
    said = [line for line in lines if TIMED_OUT in line] or [
        line for line in lines if re.search(r"error|exception|mismatch|failed", line, re.I)
    ]
    return (said or [line for line in lines if line] or ["it said nothing"])[-1][:300]
