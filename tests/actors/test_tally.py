"""A tally: what the episodes of an assignment came to."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from actors.assignment import Assignment, Role
from actors.tally import Demonstrated, Tally
from gato.episode import SUCCESS, Episode
from gato.tokenizer import TokenLayout
from gato.version import Version
from gato.weights import Weights
from tests.actors.fakes import COUNTING

WEIGHTS = Weights(version=Version(1, 1), learner_step=5, arrays={})


def episode(seed: int, says: str | None) -> Episode:
    return Episode(
        key="k",
        task=COUNTING.name,
        source="agent",
        observations={"state": np.zeros((3, 2), np.float32)},
        actions=np.zeros((3, 1), np.float32),
        rewards=np.ones(3, np.float32),
        terminated=True,
        truncated=False,
        seed=seed,
        info={} if says is None else {SUCCESS: says},
    )


def test_a_return_that_is_not_finite_fails_the_evaluation() -> None:
    assignment = Assignment(role="evaluate", task=COUNTING.name, seeds=(7, 8))
    tally = Tally(COUNTING, assignment, WEIGHTS, begun_s=time.monotonic())
    tally.add(episode(7, "yes"))
    tally.add(replace(episode(8, "no"), rewards=np.array([1, np.inf, 1], np.float32)))
    evaluation = tally.evaluation("w0")
    assert evaluation is not None
    assert evaluation.failed == "a return is not finite"
    assert (evaluation.returns, evaluation.successes) == ((), ())


@pytest.mark.parametrize(
    ("said", "successes"),
    [
        (["yes", "no", "yes"], (True, False, True)),
        (["yes", None, None], (True, False, False)),  # said only where it is solved
        ([None, None, None], ()),
    ],
)
def test_an_environment_may_say_success_always_or_only_when_it_is_there(
    said: list[str | None], successes: tuple[bool, ...]
) -> None:
    assignment = Assignment(role="evaluate", task=COUNTING.name, seeds=(7, 8, 9))
    tally = Tally(COUNTING, assignment, WEIGHTS, begun_s=time.monotonic())
    for seed, says in zip((9, 8, 7), reversed(said), strict=True):
        tally.add(episode(seed, says))
    evaluation = tally.evaluation("w0")
    assert evaluation is not None
    assert evaluation.successes == successes
    assert evaluation.returns == (3.0, 3.0, 3.0)
    played = Tally(COUNTING, replace(assignment, role="generate"), WEIGHTS, begun_s=0.0)
    assert played.evaluation("w0") is None


def test_values_that_demonstrations_tell_apart_are_not_lost() -> None:
    """Things lie still for a novice, but for rounding; the teacher moves them."""
    demonstrated, rng = Demonstrated(TokenLayout()), np.random.default_rng(0)
    assignment = Assignment(role="evaluate", task=COUNTING.name, seeds=(1,))

    def shown(role: Role, scale: float, *, steps: int = 200) -> tuple[str, ...]:
        tally = Tally(
            COUNTING, replace(assignment, role=role), WEIGHTS, demonstrated, begun_s=0.0
        )  # fmt: skip
        state = (scale * rng.normal(size=(steps, 2))).astype(np.float32)
        tally.add(
            replace(
                episode(1, None), observations={"state": state},
                actions=np.zeros((steps, 1), np.float32), rewards=np.zeros(steps, np.float32),
            )
        )  # fmt: skip
        evaluation = tally.evaluation("w0")
        return evaluation.warnings if evaluation else ()

    (warning,) = shown("evaluate", 1e-6)
    assert "can hardly tell the values apart" in warning
    shown("generate", 1.0)
    assert len(shown("evaluate", 1e-6)) == 1
    shown("demonstrate", 1.0, steps=20_000)
    assert shown("evaluate", 1e-6) == ()
    # What is clipped is a share of what this evaluation saw.
    (warning,) = shown("evaluate", 1e4, steps=20)
    assert "of the values are clipped" in warning
    assert Demonstrated(None).of(COUNTING) is None
