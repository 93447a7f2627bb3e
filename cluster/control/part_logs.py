"""The logs of a run's parts, read on every machine of its cluster, or on this one."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.nodes.part_logs import (
    LogReader,
    PartLog,
    Piece,
    all_sessions,
    kept_sessions,
    session_folder,
)
from cluster.runs.folder import RunFolder
from cluster.runs.home import Home

if TYPE_CHECKING:  # Ray is imported for runs on a cluster alone
    from cluster.nodes.members import Member

ANSWER_S = 60.0
"""For the start of a process on each machine."""
LOOK_AGAIN_S = 10.0
"""Between two looks for machines that have joined."""


class NodeLogs:
    """A `LogReader` in a process on one machine of the cluster."""

    def __init__(self, namespace: str, run_log: str, node: str) -> None:
        sessions = sorted(session_folder().parent.glob("session_*_*"))
        self._reader = LogReader(sessions, namespace, Path(run_log) if run_log else None, node)

    def logs(self) -> list[PartLog]:
        return self._reader.logs()

    def read(self, part: str | None, lines: int) -> list[Piece]:
        return self._reader.read(part, lines)


class RunLogs:
    """The logs of a run, wherever its parts are or were.

    with logs_of(folder) as logs:
        logs.parts()
        for piece in logs.read("learner", lines=50): ...
    """

    def __init__(self, local: LogReader | None, home: Home | None) -> None:
        """Use `logs_of`."""
        self.problems: list[str] = []
        """Machines that did not answer, once each."""
        self._local = local
        self._home = home
        self._readers: dict[str, tuple[Member, Any]] = {}
        self._looked_s = 0.0
        self._draining: set[str] = set()

    def parts(self) -> list[PartLog]:
        """The newest log of each part on each machine."""
        found = self._local.logs() if self._local else self._ask("logs")
        newest = {(log.part, log.node): log for log in found}
        return sorted(newest.values(), key=lambda log: (_place(log.part), log.node))

    def read(self, part: str | None, lines: int) -> list[Piece]:
        """The last lines of a part, None: of the run's own log; later, what is new of it."""
        pieces = self._local.read(part, lines) if self._local else self._ask("read", part, lines)
        return sorted(pieces, key=lambda piece: piece.log.changed_s)

    def _ask(self, method: str, *arguments: object) -> list[Any]:
        import ray
        from ray.exceptions import RayError

        self._look()
        calls = {
            getattr(reader, method).remote(*arguments): key
            for key, (_, reader) in self._readers.items()
        }
        done, missing = ray.wait(list(calls), num_returns=len(calls), timeout=ANSWER_S)
        answers: list[Any] = []
        for call in done:
            try:
                answers += ray.get(call)
            except RayError:
                self._lose(calls[call], "has left the cluster")
        for call in missing:
            self._lose(calls[call], f"does not answer within {ANSWER_S:.0f} s")
        return answers

    def _lose(self, key: str, what: str) -> None:
        member, _ = self._readers.pop(key)
        self.problems.append(f"{member.name} ({member.host}) {what}")

    def _release(self, member: Member) -> None:
        """A node that is being drained does not end while it has a reader; the second time that it
        is seen, its parts have said their last."""
        import ray

        if member.id not in self._draining:
            self._draining.add(member.id)
            return
        ray.kill(self._readers[member.id][1])
        self._lose(member.id, "is being drained")

    def _look(self) -> None:
        """A reader on each machine that is there."""
        if self._readers and time.monotonic() - self._looked_s < LOOK_AGAIN_S:
            return
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from cluster.nodes.members import members

        self._looked_s = time.monotonic()
        assert self._home is not None
        for member in members(self._home.address):
            if member.state == "draining" and member.id in self._readers:
                self._release(member)
            if member.state != "alive" or member.id in self._readers:
                continue
            is_home = member.host == self._home.host
            reader: Any = ray.remote(NodeLogs).options(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(member.id, soft=False),
            )
            log = str(Path(self._home.path) / "log.txt") if is_home else ""
            self._readers[member.id] = (
                member,
                reader.remote(self._home.namespace, log, member.name),
            )


@contextmanager
def logs_of(folder: RunFolder) -> Generator[RunLogs]:
    """The logs of a run. Where its cluster is gone, those on this machine, if it was its home.

    Raises:
        ValueError: Its cluster does not answer.
    """
    home, own = folder.home, folder.path / "log.txt"
    if home is None:
        yield RunLogs(LogReader(kept_sessions(folder.path), None, own), None)
        return
    import ray

    from cluster.nodes.connect import connect_ray

    try:
        connect_ray(home.address, namespace="gato-logs")
    except ValueError as problem:
        if not home.is_here:
            raise
        logs = RunLogs(LogReader(all_sessions(), home.namespace, own, home.node), None)
        logs.problems.append(f"only what is on this machine: {problem}")
        yield logs
        return
    try:
        yield RunLogs(None, home)
    finally:
        ray.shutdown()


def _place(part: str) -> tuple[int, int, str]:
    """Supervisor and learner first, workers last, w2 before w10."""
    first: Sequence[str] = ("supervisor", "learner", "replay", "weights", "inference")
    kind = part.split("-")[0]
    number = int(part[1:]) if part[1:].isdecimal() else 0
    return first.index(kind) if kind in first else len(first), number, part
