"""What the parts of a run have written: the files that Ray keeps on this machine for the output of
each process."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gato.part_log import MARK, mark_in

SESSIONS = "ray-sessions.txt"
"""In the folder of a run on this machine: the folders of its Rays."""
HEAD_BYTES = 4096
MAX_BYTES = 1 << 20
"""Most that is read of a file at a time."""
OLD = 3
"""Processes of a part whose logs are shown, the newest: it may have been started again."""
RAYS_OWN = re.compile(rb"^:(gato|job_id|actor_name|task_name):.*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLog:
    """The log of one process of a part."""

    part: str
    node: str
    """Where it is; empty on this machine."""
    pid: int
    """0: the run's own log.txt."""
    is_alive: bool
    changed_s: float
    """Wall-clock time of its last line."""
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one process has written since the last look."""

    log: PartLog
    text: bytes


def keep_session(folder: Path) -> None:
    """Note in a run's folder where the Ray of this process keeps its logs."""
    with (folder / SESSIONS).open("a") as out:
        out.write(f"{session_folder()}\n")


def session_folder() -> Path:
    """The folder of the Ray that this process is connected to."""
    from ray._private.worker import global_worker

    assert global_worker.node is not None, "connect to Ray first"
    return Path(global_worker.node.get_session_dir_path())


def kept_sessions(folder: Path) -> list[Path]:
    """Where the Rays of a run on this machine kept their logs, the newest last."""
    file = folder / SESSIONS
    return [Path(line) for line in file.read_text().splitlines()] if file.is_file() else []


def all_sessions() -> list[Path]:
    """The folders of all Rays of this machine that left one."""
    base = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"
    return sorted(base.glob("session_*_*"))


@dataclass(slots=True)
class LogReader:
    """Finds and reads the logs of a run's parts on one machine.

    reader = LogReader(sessions, namespace="gato-1a2b", run_log=folder.path / "log.txt")
    reader.logs()
    reader.read("w0", lines=50)     # the last 50 lines; then what is new
    """

    sessions: Sequence[Path]
    namespace: str | None
    """Ray's namespace of the run; None: all that these sessions have."""
    run_log: Path | None = None
    """What the supervisor says of the run, where it is on this machine."""
    node: str = ""
    _offsets: dict[str, int] = field(default_factory=dict[str, int])

    def logs(self) -> list[PartLog]:
        """Of all processes of the run that were here, the newest last."""
        found = [log for session in self.sessions for log in self._of(session / "logs")]
        return sorted(found, key=lambda log: log.changed_s)

    def _of(self, folder: Path) -> list[PartLog]:
        logs: list[PartLog] = []
        for file in folder.glob("worker-*.err"):
            try:
                with file.open("rb") as head:
                    mark = mark_in(head.read(HEAD_BYTES).decode(errors="replace"))
                if mark is None or self.namespace not in (None, mark[0]):
                    continue
                pid = int(file.stem.rpartition("-")[2])
                both = (file.with_suffix(".out"), file)
                there = [each for each in both if each.is_file()]
                changed_s = max(each.stat().st_mtime for each in there)
            except (OSError, ValueError):
                continue  # another user's, or it was just deleted
            logs.append(
                PartLog(
                    part=mark[1],
                    node=self.node,
                    pid=pid,
                    is_alive=_is_rays(pid),
                    changed_s=changed_s,
                    files=tuple(map(str, there)),
                )
            )
        return logs

    def read(self, part: str | None, lines: int) -> list[Piece]:
        """The last `lines` of each file of a part; later, what it has written since.

        Args:
            part: None: the run's log.txt.
            lines: Of a file that was not read before.
        """
        logs = [log for log in self.logs() if log.part == part][-OLD:] if part else []
        if self.run_log is not None and part in (None, "supervisor") and self.run_log.is_file():
            changed_s = self.run_log.stat().st_mtime
            logs.append(
                PartLog(
                    part="supervisor",
                    node=self.node,
                    pid=0,
                    is_alive=False,
                    changed_s=changed_s,
                    files=(str(self.run_log),),
                )
            )
        pieces = [Piece(log, self._new_in(log, lines)) for log in logs]
        return [piece for piece in pieces if piece.text]

    def _new_in(self, log: PartLog, lines: int) -> bytes:
        text = b""
        for name in log.files:
            begun = self._offsets.get(name)
            try:
                with open(name, "rb") as file:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(begun if begun is not None else max(0, size - MAX_BYTES))
                    new = file.read(MAX_BYTES)
            except OSError:
                continue
            whole = new if begun is None else new[: new.rfind(b"\n") + 1]
            self._offsets[name] = (begun or max(0, size - MAX_BYTES)) + len(whole)
            said = (
                RAYS_OWN.sub(b"", whole)
                if MARK.encode() in whole or b":job_id:" in whole
                else whole
            )
            if begun is None:
                said = b"".join(said.splitlines(keepends=True)[-lines:]) if lines else b""
            text += said if not said or said.endswith(b"\n") else said + b"\n"
        return text


def _is_rays(pid: int) -> bool:
    """Whether a process with this number lives and is one of Ray's."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False
