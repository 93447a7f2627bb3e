"""A history is the same whether it was followed, kept and gone on with, or read again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.written_runs import SCALE, make_run
from cluster.journal.journal import Entry
from cluster.journal.journal_file import JournalFile
from cluster.journal.records import Event, Record
from cluster.monitor.curves import read_curves
from cluster.monitor.fold import fold
from cluster.monitor.scores import read_scales
from cluster.monitor.summary import Summary
from cluster.runs.folder import RunFolder
from cluster.web.history import History
from cluster.web.kept import FILE, read_history, write_history
from gato.metrics import Evaluation, LearnerReport, WorkerReport
from gato.version import Version
from tests.cluster.journals import learner_report

TASKS = ("mujoco/hopper", "atari/pong")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path, "one", tasks=TASKS, reports=40)


def read(run: RunFolder, history: History | None = None, until: int = 10**9) -> History:
    history = history or History()
    summary = Summary(run=run.name, scales=read_scales(run.path))
    for entry in JournalFile(run.path / "journal").read(count=until):
        summary = fold(summary, *entry)
        history.add(entry, summary)
    return history


def test_every_kind_of_record_becomes_a_curve_a_line_or_an_event(run: RunFolder) -> None:
    history = read(run)
    assert set(history.curves) == set(TASKS)
    assert all(len(curve) == 40 for curve in history.curves.values())
    for name in (
        "learner/loss", "learner/loss/atari/pong", "learner/accuracy/mujoco/hopper", "learner/mfu",
        "learner/tokens per s", "learner/time/forward", "learner/gradient norm/head",
        "learner/memory bytes", "replay/fill", "replay/inserted tokens per s",
        "replay/episodes/mujoco/hopper", "workers/env steps per s", "workers/weights age p95 s",
        "tasks/iqm",
    ):  # fmt: skip
        assert len(history.lines[name]) > 0, name
    assert [event.kind for event in history.events] == ["started", "finished"]


def test_the_axes_count_updates_seconds_tokens_and_steps_that_were_played(run: RunFolder) -> None:
    row = read(run).curves["atari/pong"].rows(100, since_s=read(run).first_s or 0.0)[-1]
    # 40 reports of 54,000 tokens; 4 workers of whom one or two evaluate
    assert row[0] == 400
    assert row[1] == pytest.approx(80.0, abs=0.01)  # when its weights were made
    assert row[2] == 40 * 54_000
    assert row[3] == 39 * 2 * 800


def folded(*records: Record, every_s: float = 10.0) -> History:
    history, summary = History(), Summary(run="one", scales={"t": SCALE, "u": SCALE})
    for number, record in enumerate(records, start=1):
        entry = Entry(f"{number}-0", 1000.0 + every_s * number, record)
        summary = fold(summary, *entry)
        history.add(entry, summary)
    return History.load(json.loads(json.dumps(history.state())))


def evaluated(epoch: int, step: int, *returns: float, task: str = "t") -> Evaluation:
    version = Version(epoch, step)
    return Evaluation(task=task, version=version, learner_step=step, returns=returns)


def learned(epoch: int, step: int) -> LearnerReport:
    return replace(learner_report(step), version=Version(epoch, step))


def test_a_point_stands_where_its_weights_were_made_as_runs_are_compared() -> None:
    played = WorkerReport(
        worker="w", role="generate", task="t", version=None, episodes=1, env_steps=70, wall_s=1.0
    )
    records = [
        learned(1, 100), played, learned(1, 200), replace(played, role="evaluate"),
        evaluated(1, 100, 1.0), evaluated(1, 200, 2.0),
    ]  # fmt: skip
    history = folded(*records)
    points = [p.compared(1010.0, SCALE) for p in history.curves["t"].points(100)]
    assert [(p.hours * 3600, p.tokens, p.env_steps) for p in points] == [
        (0.0, 25_000, 0), (20.0, 50_000, 70),
    ]  # fmt: skip
    journal = [Entry(f"{n}-0", 1000.0 + 10 * n, r) for n, r in enumerate(records, start=1)]
    assert points == list(read_curves(Listed(journal), "one", {"t": SCALE}).tasks["t"])


class Listed:
    """A journal of these entries."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries

    def read(self, after_id: str = "0-0", *, block_s: float = 0.0, count: int = 1000):
        return self._entries[int(after_id.partition("-")[0]) :][:count]


def test_points_of_weights_that_were_lost_are_taken_out() -> None:
    before = [learned(1, 100), evaluated(1, 100, 1.0), learned(1, 200), evaluated(1, 200, 2.0)]
    assert folded(*before).curves["t"].rows(9, since_s=0.0)[-1][0] == 200
    history = folded(*before, evaluated(2, 100, 3.0), evaluated(1, 150, 9.0), learned(2, 150),
                     evaluated(2, 150, 4.0))  # fmt: skip
    rows = history.curves["t"].rows(9, since_s=1000.0)
    assert [(row[0], row[4]) for row in rows] == [(100, 3.0), (150, 4.0)]
    assert [row[1] for row in rows] == [10.0, 70.0]
    assert [row[2] for row in rows] == [25_000, 75_000]


@pytest.mark.parametrize("end", [Event(kind="finished", text=""), learned(1, 300)])
def test_the_mean_over_tasks_ends_with_the_last_evaluation(end: Record) -> None:
    history = folded(
        learned(1, 200), evaluated(1, 100, 3000.0), evaluated(1, 100, 3000.0, task="u"),
        evaluated(1, 200, 10.0), evaluated(1, 200, 10.0, task="u"), end, every_s=0.9,
    )  # fmt: skip
    drawn = history.lines["tasks/iqm"].columns(100, since_s=0.0)
    assert drawn["mean"][-1] == pytest.approx(0.0)


def test_rates_of_replay_are_differences_over_time(run: RunFolder) -> None:
    shown = read(run).lines["replay/inserted tokens per s"].columns(100, since_s=0.0)
    assert shown["mean"] == [10_000.0] * 39


def test_the_mean_over_tasks_has_its_interval_at_times_that_grow_with_the_run(
    run: RunFolder,
) -> None:
    lines = read(run).lines
    low, high = (lines[f"tasks/iqm/{name}"].columns(100, since_s=0.0) for name in ("low", "high"))
    mean = lines["tasks/iqm"].columns(100, since_s=0.0)
    by_step = dict(zip(mean["step"], mean["mean"], strict=True))
    assert low["step"] == high["step"]
    assert 25 <= len(low["step"]) <= len(mean["step"])
    for step, bottom, top in zip(low["step"], low["mean"], high["mean"], strict=True):
        assert bottom <= by_step[step] <= top


@pytest.mark.parametrize("cut", [1, 57, 200])
def test_one_that_was_kept_goes_on_where_it_was(run: RunFolder, cut: int) -> None:
    write_history(run.path / "page", "id", read(run, until=cut))
    kept = read_history(run.path / "page", "id")
    assert kept is not None
    gone_on, whole = read(run, kept).state(), read(run).state()
    # The first rates after a restart need two states of replay; all else is equal.
    for name in whole["lines"]:
        if "tokens per s" not in name and not name.startswith(("workers/", "tasks/")):
            assert gone_on["lines"][name] == whole["lines"][name], name
    assert gone_on["curves"] == whole["curves"]
    assert gone_on["events"] == whole["events"]


def test_what_is_kept_of_another_run_or_damaged_is_not_read(run: RunFolder) -> None:
    folder = run.path / "page"
    assert read_history(folder, "id") is None
    write_history(folder, "id", read(run))
    assert read_history(folder, "other") is None
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[: len(content) // 2])
    assert read_history(folder, "id") is None


def test_a_state_is_valid_json(run: RunFolder) -> None:
    state = read(run).state()
    assert History.load(json.loads(json.dumps(state, allow_nan=False))).state() == state
