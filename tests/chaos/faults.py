"""What is broken in a lab, and how it is known that the run noticed and recovered."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.chaos.lab import Lab, stop_and_continue, wait_for_nodes
from tests.cluster.hosts import Host

DISK_FULL_S = 15.0
BACK_S = 90.0
"""How long a part may be away, on a machine where more is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to break a run."""

    id: str
    """As in docs/reliability.md."""
    how: str
    """For people."""
    strike: Callable[[Lab], None]
    """Returns when the fault has been made, and healed if it heals by itself."""
    says: str = ""
    """Kind of the event by which the run names it; empty: nobody needs to be told."""
    part: str = ""
    """Title of the process that must be there again, as another one."""
    within_s: float = 60.0
    """Longest recovery that is accepted."""
    in_storm: bool = False
    alone: bool = True
    """Whether it is measured by itself."""
    is_cut: bool = False
    """Whether a machine is kept from the others meanwhile, so that nothing comes back there."""
    head_survives: bool = True
    """Whether it is made on a cluster whose state is in a Redis."""

    def can_strike(self, lab: Lab) -> bool:
        """Whether there is something to break now."""
        return not isinstance(self.strike, Kill) or bool(self.strike.pids(lab))


@dataclass(frozen=True, slots=True)
class Kill:
    """kill -9 of a process, once there is one."""

    title: str
    """What its command line begins with."""
    place: Callable[[Lab], Host] | None = None
    """Where it is; None: anywhere."""
    beside: str = ""
    """Title of a process that must be there as well."""

    def pids(self, lab: Lab) -> list[int]:
        """Those that could be killed now."""
        place = self.place(lab) if self.place is not None else None
        return lab.pids(self.title, place) if lab.pids(self.beside, place) else []

    def __call__(self, lab: Lab) -> None:
        found: list[int] = []

        def there() -> list[int]:
            found[:] = self.pids(lab)
            return found

        lab.wait(f"a process {self.title} that can be killed", there, BACK_S)
        with suppress(ProcessLookupError):
            os.kill(found[0], signal.SIGKILL)


def cut(seconds: float, place: Callable[[Lab], Host]) -> Callable[[Lab], None]:
    """The cable of a machine is out for a while."""

    def strike(lab: Lab) -> None:
        place(lab).link("down")
        time.sleep(seconds)
        place(lab).link("up")

    return strike


def power_cut(*hosts: Callable[[Lab], Host], operator: bool = False) -> Callable[[Lab], None]:
    """All processes of machines end at once, and the machines start again.

    `operator`: whether somebody then types `gato resume`.
    """

    def strike(lab: Lab) -> None:
        places = [host(lab) for host in hosts]
        for place in places:
            place.kill()
            lab.loops.pop(place.hostname)
        if lab.head not in places:  # a machine takes longer to start than its loss to be noticed
            wait_for_nodes(lab, 3 - len(places))
        for place in places:
            lab.start_node(place)
        if operator:
            wait_for_nodes(lab, 3)
            lab.resume()

    return strike


def redis_away(lab: Lab) -> None:
    """The Redis of the journal is killed, and started again after 60 s."""
    assert lab.journal_redis is not None
    lab.journal_redis.kill()
    time.sleep(60.0)
    lab.journal_redis.start()


def redis_wiped(lab: Lab) -> None:
    """The Redis of the journal is killed, and starts again with nothing."""
    assert lab.journal_redis is not None
    lab.journal_redis.kill()
    lab.journal_redis.start(wiped=True)


def fill_disk(lab: Lab, is_full: threading.Event | None = None) -> None:
    """The disk of the run's folder is full for a while; `is_full` is set once it is."""
    ballast = lab.home.work / "runs" / "ballast"
    with ballast.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))
    if is_full is not None:
        is_full.set()
    time.sleep(DISK_FULL_S)
    ballast.unlink()


def on_a_full_disk(title: str) -> Callable[[Lab], None]:
    """A part is killed while the disk is full, so that the next one finds no room."""

    def strike(lab: Lab) -> None:
        is_full = threading.Event()
        filling = threading.Thread(target=fill_disk, args=(lab, is_full))
        filling.start()
        assert is_full.wait(timeout=BACK_S)
        Kill(title)(lab)
        filling.join()

    return strike


def hold(title: str, seconds: float) -> Callable[[Lab], None]:
    """SIGSTOP for a while."""
    return lambda lab: stop_and_continue(lab.pids(title)[:1], seconds)


def slow_learner(lab: Lab) -> None:
    """The learner gets a tenth of its time for 20 s."""
    until_s = time.monotonic() + 20.0
    while time.monotonic() < until_s:
        stop_and_continue(lab.pids("ray::LearnerActor"), 0.45)
        time.sleep(0.05)


def scale_down_and_up(lab: Lab) -> None:
    """4, 0, 1, 4 and 2 workers."""
    for count in (4, 0, 1, 4, 2):
        lab.head.gato(f"scale {count} --run debug")


FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F01",
        how="kill -9 of a worker",
        strike=Kill("ray::WorkerActor"),
        says="worker died",
        in_storm=True,
    ),
    Fault(
        id="F04",
        how="kill -9 of the learner",
        strike=Kill("ray::LearnerActor"),
        says="learner died",
        part="ray::LearnerActor",
        in_storm=True,
    ),
    Fault(
        id="F06",
        how="kill -9 of a replay shard while episodes arrive",
        strike=Kill("ray::ReplayActor"),
        says="replay restarted",
        part="ray::ReplayActor",
        in_storm=True,
    ),
    Fault(
        id="F07",
        how="kill -9 of the weights store",
        strike=Kill("ray::WeightsStore"),
        part="ray::WeightsStore",
        in_storm=True,
    ),
    Fault(
        id="F08",
        how="kill -9 of the supervisor",
        strike=Kill("ray::SupervisorActor"),
        says="supervisor back",
        part="ray::SupervisorActor",
        in_storm=True,
    ),
    Fault(
        id="F09",
        how="kill -9 of the run's own Redis, from which others watch",
        strike=Kill("valkey-server 127.0.0.1", lambda lab: lab.home),
        part="valkey-server 127.0.0.1",
        in_storm=True,
        alone=False,
    ),
    Fault(
        id="F02",
        how="a machine with workers loses its power, and starts again",
        strike=power_cut(lambda lab: lab.third),
        says="worker died",
        within_s=120.0,
    ),
    Fault(
        id="F02 home",
        how="the home loses its power, starts again, and `gato resume` is typed",
        strike=power_cut(lambda lab: lab.home, operator=True),
        part="ray::LearnerActor",
        within_s=240.0,
    ),
    Fault(
        id="F11",
        how="the head, which keeps no state elsewhere, loses its power; `gato resume` is typed",
        strike=power_cut(lambda lab: lab.head, operator=True),
        part="ray::LearnerActor",
        within_s=240.0,
        head_survives=False,
    ),
    Fault(
        id="F10",
        how="kill -9 of the head's Ray server, with `--redis`",
        strike=Kill("gcs_server", lambda lab: lab.head),
        part="gcs_server",
        in_storm=True,
    ),
    Fault(
        id="F10 head",
        how="the head, with `--redis`, loses its power and starts again",
        strike=power_cut(lambda lab: lab.head),
        part="gcs_server",
        within_s=120.0,
    ),
    Fault(
        id="F12",
        how="the Redis of the journal is away for 60 s (kill -9)",
        strike=redis_away,
        says="journal away",
        within_s=90.0,
    ),
    Fault(
        id="F12 wiped",
        how="the Redis of the journal is killed and starts again empty",
        strike=redis_wiped,
    ),
    Fault(
        id="F13",
        how="a machine with workers is cut off for 5 s",
        strike=cut(5.0, lambda lab: lab.third),
        is_cut=True,
        in_storm=True,
    ),
    Fault(
        id="F13 home",
        how="the home is cut off for 5 s",
        strike=cut(5.0, lambda lab: lab.home),
        is_cut=True,
        in_storm=True,
    ),
    Fault(
        id="F14",
        how="a machine with workers is cut off for 60 s",
        strike=cut(60.0, lambda lab: lab.third),
        is_cut=True,
        says="worker died",
        within_s=120.0,
        in_storm=True,
    ),
    Fault(
        id="F17, F18",
        how=f"the home's disk is full for {DISK_FULL_S:.0f} s",
        strike=fill_disk,
        in_storm=True,
    ),
    Fault(
        id="F04, F17",
        how=f"kill -9 of the learner while the home's disk is full for {DISK_FULL_S:.0f} s",
        strike=on_a_full_disk("ray::LearnerActor"),
        says="journal lost",  # there was no room for "learner died"
        part="ray::LearnerActor",
    ),
    Fault(
        id="F08, F17",
        how=f"kill -9 of the supervisor while the home's disk is full for {DISK_FULL_S:.0f} s",
        strike=on_a_full_disk("ray::SupervisorActor"),
        says="supervisor back",
        part="ray::SupervisorActor",
    ),
    Fault(
        id="F20",
        how="a worker stands still (SIGSTOP) for 30 s",
        strike=hold("ray::WorkerActor", 30.0),
    ),
    Fault(
        id="F21",
        how="the learner gets a tenth of its time for 20 s",
        strike=slow_learner,
    ),
    Fault(
        id="F29",
        how="4, 0, 1, 4 and 2 workers one after the other",
        strike=scale_down_and_up,
        within_s=120.0,
    ),
    Fault(
        id="raylet",
        how="kill -9 of Ray's node process on a machine with workers",
        strike=Kill("raylet/raylet", lambda lab: lab.third, beside="ray::WorkerActor"),
        says="worker died",
        within_s=120.0,
        in_storm=True,
    ),
)
