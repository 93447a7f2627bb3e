"""One sentence says who waits for whom."""

import pytest

from cluster.journal.records import Event
from cluster.monitor.fold import fold
from cluster.monitor.summary import Summary
from cluster.monitor.terminal.waits import waits_text
from gato.metrics import LearnerReport, Mean, ReplayStats, WorkerReport
from gato.version import Version


def learner(wait_s: float = 0.0, blocked_s: float = 0.0) -> LearnerReport:
    return LearnerReport(
        step=10, num_updates=100, version=Version(1, 1), loss=Mean(1.0, 1), learning_rate=1e-3,
        gradient_norm=1.0, tokens=100, wall_s=10.0, wait_s=wait_s, blocked_s=blocked_s,
    )  # fmt: skip


def replay(who_waits: str) -> ReplayStats:
    return ReplayStats(
        episodes={}, steps=0, inserted_tokens=0, read_tokens=0, stored_bytes=0, capacity_bytes=1,
        who_waits=who_waits,
    )  # fmt: skip


def worker(wait_s: float) -> WorkerReport:
    return WorkerReport(
        worker="w0", role="generate", task="t", version=None, episodes=1, env_steps=10, wall_s=10.0,
        wait_s=wait_s,
    )  # fmt: skip


ROOM = "2 of 5 play, 3 wait: the cluster has 3 cores, one of them is the learner's"
SCALED = "2 of 3 play, 1 waits: the cluster has 3 cores, one of them is the learner's"


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], ""),
        ([learner()], "nobody waits"),
        ([learner(wait_s=1.2)], "learner waits 12% for replay"),
        ([learner(wait_s=0.1)], "nobody waits"),
        ([learner(blocked_s=0.5)], "publishing and saving take 5.0% of the learner's time"),
        (
            [learner(wait_s=5.0), replay("readers wait for 1,000 more inserted tokens")],
            "learner waits 50% for replay;"
            " replay waits for workers (readers wait for 1,000 more inserted tokens)",
        ),
        (
            [learner(), replay("writers are held back until 10 tokens were read"), worker(2.5)],
            "writers are held back until 10 tokens were read; workers wait 25% for replay",
        ),
        ([learner(), replay("nobody waits")], "nobody waits"),
        ([learner(), Event(kind="workers wait", text=ROOM)], "3 workers wait for a core"),
        ([learner(), Event(kind="scaled", text=SCALED)], "1 worker waits for a core"),
        (
            [
                learner(),
                Event(kind="workers wait", text=ROOM),
                Event(kind="workers play", text="all 5"),
            ],
            "nobody waits",
        ),
    ],
)  # fmt: skip
def test_who_waits_is_one_sentence(records: list, said: str) -> None:
    summary = Summary(run="one")
    for number, record in enumerate(records, start=1):
        summary = fold(summary, f"{number}-0", 1000.0, record)
    assert waits_text(summary, 1001.0) == said
