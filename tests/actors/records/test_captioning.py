"""Captions of our own environments: sentences that are true of the state, the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from actors.records.captioning import caption, describe_of
from actors.tasks.resolve import resolve_task
from gato.text import text_to_bytes


def ram(**at: int) -> dict[str, np.ndarray]:
    out = np.zeros(128, np.uint8)
    for place, value in at.items():
        out[int(place[1:])] = value
    return {"ram": out}


@pytest.mark.parametrize(
    ("game", "memory", "says"),
    [
        ("pong", ram(_49=60, _54=200, _51=90),
         "the ball is left and low, the right paddle is in the middle"),
        ("pong", ram(_54=0, _51=200), "there is no ball, the right paddle is low"),
        ("freeway", ram(_14=170), "the chicken is high"),
        ("boxing", ram(_32=50, _33=20, _34=10, _35=40),
         "the white boxer is right of the black one and above"),
    ],
)  # fmt: skip
def test_a_sentence_of_a_game_says_what_its_memory_says(
    game: str, memory: dict[str, np.ndarray], says: str
) -> None:
    assert describe_of(resolve_task(f"atari/{game}"))({}, memory) == says


def test_pictures_and_sentences_belong_together_and_are_the_same_again() -> None:
    task = resolve_task("atari/freeway")
    (first,) = caption(task, episodes=1, seed=3)
    (again,) = caption(task, episodes=1, seed=3)
    assert len(first.pictures) == len(first.captions) == 64
    assert first.captions == again.captions
    assert set(first.captions) == {f"the chicken is {w}" for w in ("low", "half way", "high")}
    assert all((a == b).all() for a, b in zip(first.pictures, again.pictures, strict=True))


def test_a_level_is_described_by_what_is_in_sight_and_what_is_to_be_done() -> None:
    pytest.importorskip("minigrid")
    from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

    def cell(colour: str, thing: str) -> int:
        of = OBJECT_TO_IDX[thing] * len(COLOR_TO_IDX) + COLOR_TO_IDX[colour]
        return of * len(STATE_TO_IDX)

    view = np.full((3, 3), cell("grey", "wall"))
    view[0, 0], view[2, 1], view[1, 1] = cell("red", "ball"), cell("blue", "key"), 0
    shown = {"view": view, "mission": text_to_bytes(["go to the red ball"], 40)[0]}
    task = resolve_task("minigrid:BabyAI-GoToLocal-v0")
    says = describe_of(task)(shown, {})
    assert says == "in sight: a blue key, a red ball; go to the red ball"


def test_other_tasks_have_no_sentences() -> None:
    with pytest.raises(ValueError, match=r"no sentences for mujoco/hopper; .* atari/pong"):
        describe_of(resolve_task("mujoco/hopper"))
