"""Examinations: exact answers by kind of question, beside what one constant answer would get."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from actors.assignment import Assignment
from actors.players.player import TimeStep
from actors.records.examine import ROWS, examine
from actors.records.marks import Marks
from actors.tasks.resolve import resolve_task
from actors.worker import Worker
from gato.sequence import Window
from gato.task import Task
from gato.text import bytes_to_text, plain_text, text_to_bytes
from gato.version import Version
from gato.weights import Weights
from tests.actors.fakes import ListSink, ListSource

TASK = resolve_task("vqa/test?image=16")
ASKED = [("is it red?", "yes"), ("is it big?", "no"), ("is it blue?", "yes"), ("colour?", "red")]


def records(pairs: list[tuple[str, str]] = ASKED, task: Task = TASK) -> Window:
    questions, answers = zip(*pairs, strict=True)
    return Window(
        observations={
            "image": np.zeros((len(pairs), 16, 16, 3), np.uint8),
            "question": text_to_bytes(questions, task.observations["question"].shape[0]),
        },
        actions=text_to_bytes(answers, task.action.shape[0]),
    )


class Parrot:
    """Always answers the same, at eight bits a byte."""

    def __init__(self, answer: str = "YES ", task: Task = TASK) -> None:
        self.answer, self.task, self.version = answer, task, None

    def load(self, weights: Weights) -> None:
        self.version = weights.version

    def act(self, step: TimeStep) -> np.ndarray:
        return text_to_bytes([self.answer] * step.num_rows, self.task.action.shape[0])

    def text_bits(self, observations: Mapping[str, np.ndarray], texts: np.ndarray) -> np.ndarray:
        return 8.0 * self.measured_bytes(texts)

    def measured_bytes(self, texts: np.ndarray) -> np.ndarray:
        return np.array([len(bytes_to_text(row)) for row in texts])


def test_answers_count_by_kind_beside_the_best_constant_one() -> None:
    marks, seeds = Marks(), [100, 101, 102, 103]
    episodes = list(examine(TASK, records(), Parrot(), seeds, version=Version(1, 2)))
    assert [e.episode_return for e in episodes] == [1.0, 0.0, 1.0, 0.0]
    assert [e.success for e in episodes] == [True, False, True, False]
    assert [e.seed for e in episodes] == seeds
    for episode in episodes:
        marks.add(episode)
    said = {name: (mean.total, mean.count) for name, mean in marks.measures().items()}
    assert said == {
        "yes/no": (2.0, 3),
        "yes/no by one constant answer": (2.0, 3),
        "open": (0.0, 1),
        "open by one constant answer": (1.0, 1),
        "bits per byte": (8.0 * 11, 11),
    }


def test_answers_are_compared_in_one_form_of_unicode() -> None:
    """SentencePiece models write NFKC."""
    for said, wanted in (("cafe\u0301", "Café"), ("1\u20442", "½"), ("ﬁne  day ", "fine day")):
        assert plain_text(said) == plain_text(wanted)
    assert plain_text("yes") != plain_text("no")


@pytest.mark.parametrize("number", [1, ROWS, ROWS + 3])
def test_each_seed_is_asked_once_and_the_same_seed_asks_the_same(number: int) -> None:
    pairs = [(f"number {i}?", str(i)) for i in range(number)]
    asked = list(examine(TASK, records(pairs), Parrot(), range(number, 2 * number)))
    assert sorted(e.info["wanted"] for e in asked) == sorted(answer for _, answer in pairs)
    again = list(examine(TASK, records(pairs), Parrot(), range(number, 2 * number)))
    assert [e.info["wanted"] for e in again] == [e.info["wanted"] for e in asked]


def test_a_passage_is_scored_by_its_bits_and_a_caption_by_being_exact() -> None:
    text = resolve_task("text/test?text_tokens=16")
    passage = Window(observations={}, actions=text_to_bytes(["to be or not"], 16))
    (episode,) = examine(text, passage, Parrot(task=text), [0])
    assert episode.episode_return == -8.0
    assert episode.success is None
    captions = resolve_task("captions/test?image=16")
    caption = Window(
        observations={"image": np.zeros((1, 16, 16, 3), np.uint8)},
        actions=text_to_bytes(["A  cat"], captions.action.shape[0]),
    )
    (episode,) = examine(captions, caption, Parrot("a cat", captions), [0])
    assert (episode.success, episode.info["kind"]) == (True, "exact")


class Shelf:
    """A source with the records above."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def held_out(self, task_name: str, most: int) -> Window | None:
        self.asked.append(most)
        return records() if task_name == TASK.name else None


def worker(source: Shelf | None) -> Worker:
    weights = ListSource([Version(1, 1)])
    return Worker(
        "w0", {TASK.name: TASK}, lambda *_: Parrot(), ListSink([]), weights, records=source
    )


def test_a_worker_evaluates_on_held_out_records() -> None:
    assignment = Assignment(role="evaluate", task=TASK.name, seeds=(0, 1, 2, 3))
    examined = worker(Shelf())
    report, evaluation = examined.perform(assignment)
    assert report.failed is None
    assert examined.progress().env_steps == report.env_steps == 4
    assert evaluation is not None
    assert evaluation.returns == (1.0, 0.0, 1.0, 0.0)
    assert evaluation.measures["yes/no"].value == pytest.approx(2 / 3)


def test_a_player_of_records_rests_after_an_evaluation() -> None:
    """It answers in rows of its own number, whatever the assignment's environments."""
    rested: list[int] = []

    class Resting(Parrot):
        def rest(self) -> None:
            rested.append(1)

    weights = ListSource([Version(1, 1)])
    examined = Worker(
        "w0", {TASK.name: TASK}, lambda *_: Resting(), ListSink([]), weights, records=Shelf()
    )
    examined.perform(Assignment(role="evaluate", task=TASK.name, seeds=(0, 1), num_envs=4))
    assert rested == [1]


def test_as_many_records_are_asked_for_as_an_evaluation_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.records.examine.MOST_RECORDS", 2)
    shelf = Shelf()
    examined = worker(shelf)
    for number in (1, 2, 4, 3):
        examined.perform(Assignment(role="evaluate", task=TASK.name, seeds=tuple(range(number))))
    assert shelf.asked == [2, 4]


def test_without_held_out_records_an_evaluation_fails_and_says_why() -> None:
    assignment = Assignment(role="evaluate", task=TASK.name, seeds=(0,))
    _, evaluation = worker(None).perform(assignment)
    assert evaluation is not None
    assert "no record of vqa/test?image=16 is held out" in str(evaluation.failed)


def test_records_are_never_played() -> None:
    report, _ = worker(Shelf()).perform(Assignment(role="generate", task=TASK.name, seeds=(0,)))
    assert "has no environment to generate in" in str(report.failed)
