"""The best checkpoint: that of the version whose evaluations are the best, if it can be kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.journal.records import Event, Record
from cluster.monitor.scores import Scale
from cluster.supervision.best import BestCheckpoint, read_best
from gato.metrics import Evaluation
from gato.version import Version

SCALES = {
    "a": Scale(random_return=0.0, teacher_return=10.0),
    "b": Scale(random_return=100.0, teacher_return=200.0),
}


class ListJournal:
    def __init__(self) -> None:
        self.records: list[Record] = []

    def append(self, record: Record) -> None:
        self.records.append(record)

    @property
    def events(self) -> list[str]:
        return [record.text for record in self.records if isinstance(record, Event)]


class Disk:
    """Keeps the checkpoints of some steps."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps
        self.kept: list[int] = []

    def keep(self, step: int, note: dict[str, object]) -> bool:
        if step in self.steps:
            self.kept.append(step)
            assert note["step"] == step
        return step in self.steps


def evaluation(task: str, number: int, *returns: float) -> Evaluation:
    return Evaluation(
        task=task, version=Version(1, number), learner_step=100 * number, returns=returns
    )


def test_a_version_counts_once_all_tasks_were_evaluated_with_it() -> None:
    journal, disk = ListJournal(), Disk(100, 200, 300)
    best = BestCheckpoint(journal, ["a", "b"], SCALES, disk.keep, so_far=None)
    best.append(evaluation("a", 1, 4.0, 6.0))
    assert disk.kept == []
    best.append(evaluation("b", 1, 150.0))  # 0.5 and 0.5
    best.append(evaluation("a", 2, 9.0))
    best.append(evaluation("b", 2, 100.0))  # 0.9 and 0.0: worse
    best.append(evaluation("b", 3, 190.0))
    best.append(evaluation("a", 3, 9.0))
    assert disk.kept == [100, 300]
    assert journal.events == ["of update 100, version 1.1: 0.5", "of update 300, version 1.3: 0.9"]
    assert sum(isinstance(record, Evaluation) for record in journal.records) == 6


def test_a_part_of_a_game_is_never_the_best() -> None:
    journal, disk = ListJournal(), Disk(100, 200)
    best = BestCheckpoint(journal, ["a"], SCALES, disk.keep, so_far=None)
    best.append(replace(evaluation("a", 1, 9.0, 6.0), num_cut=1))
    best.append(evaluation("a", 2, 5.0))
    assert disk.kept == [200]
    assert sum(isinstance(record, Evaluation) for record in journal.records) == 2


def test_a_version_without_a_checkpoint_does_not_raise_the_bar() -> None:
    journal, disk = ListJournal(), Disk(200)
    best = BestCheckpoint(journal, ["a"], SCALES, disk.keep, so_far=None)
    best.append(evaluation("a", 1, 9.0))
    best.append(evaluation("a", 2, 5.0))
    assert disk.kept == [200]


def test_a_resumed_run_knows_the_score_of_the_one_that_is_kept(tmp_path: Path) -> None:
    assert read_best(tmp_path) is None
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "best.json").write_text(json.dumps({"score": 0.8}))
    disk = Disk(100, 200)
    best = BestCheckpoint(ListJournal(), ["a"], SCALES, disk.keep, so_far=read_best(tmp_path))
    best.append(evaluation("a", 1, 7.0))
    best.append(evaluation("a", 2, 8.5))
    assert disk.kept == [200]


@pytest.mark.parametrize("content", ["{}", '{"score": "x"}', "["])
def test_a_damaged_record_of_the_best_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "best.json").write_text(content)
    with pytest.raises(ValueError, match=r"best\.json is damaged"):
        read_best(tmp_path)


def test_failed_evaluations_do_not_count_and_one_task_needs_no_scale() -> None:
    disk = Disk(100, 200)
    best = BestCheckpoint(ListJournal(), ["c"], {}, disk.keep, so_far=None)
    best.append(Evaluation(task="c", version=Version(1, 1), learner_step=100, failed="it broke"))
    best.append(evaluation("c", 2, -3.0))
    assert disk.kept == [200]
