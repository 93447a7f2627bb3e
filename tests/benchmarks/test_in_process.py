"""Trainings in this process: kept, gone on with, and measured once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.context import opposites
from benchmarks.in_process import Kept, Training, gato_returns, summary
from cluster.runs.config import RunConfig
from cluster.runs.presets import RUNS
from gato.acting.config import ActingConfig
from gato.episode import Episode
from replay.sampling.config import TaskMix

TASKS = {task.name: task for task in (opposites.RIGHT, opposites.LEFT)}


def config(updates: int) -> RunConfig:
    """A tiny run on the two opposite tasks."""
    base = RUNS["debug"]
    mix = replace(
        base.replay.mix, rows=8, row_tokens=24, tasks=dict.fromkeys(TASKS, TaskMix(window_steps=4)),
        prompt_steps=4, prompt_fraction=0.5,
    )  # fmt: skip
    limiter = replace(base.replay.limiter, warmup_tokens=1, reads_per_inserted_token=None)
    return replace(
        base,
        tasks=tuple(TASKS),
        model=replace(base.model, context_tokens=24),
        learner=replace(base.learner, num_updates=updates, checkpoint_every=2, num_threads=1),
        replay=replace(base.replay, mix=mix, limiter=limiter),
        actors=replace(base.actors, demonstration_steps_of={}),
    )


def episodes() -> Iterator[Episode]:
    for task in TASKS.values():
        yield from opposites.demonstrations(task, 5)


def never() -> Iterator[Episode]:
    raise AssertionError("they are stored")


def test_a_training_that_was_ended_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    with Training(config(2), tmp_path, episodes=episodes, tasks=TASKS) as training:
        first = training.run()
    with Training(config(2), tmp_path, episodes=never, tasks=TASKS) as training:
        again = training.run()
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    with Training(config(4), tmp_path, episodes=never, tasks=TASKS) as training:
        further = training.run()
    assert any(
        not torch.equal(value, further.state_dict()[name])
        for name, value in first.state_dict().items()
    )


def test_a_model_is_played_with_and_without_a_prompt(tmp_path: Path) -> None:
    with Training(config(2), tmp_path, episodes=episodes, tasks=TASKS) as training:
        model = training.run()
        prompt = training.service.demonstration(opposites.LEFT.name, 3)
    assert prompt is not None
    assert len(prompt.actions) == 3
    for acting, begin in ((ActingConfig(), None), (ActingConfig(prompt_steps=3), prompt)):
        returns = gato_returns(
            model, opposites.LEFT, acting, 4, prompt=begin, play=opposites.returns_of
        )
        assert len(returns) == 4
        assert np.isfinite(returns).all()


def test_the_opposite_tasks_look_alike_and_pay_the_opposite() -> None:
    right, left = (next(opposites.demonstrations(task, 1)) for task in TASKS.values())
    np.testing.assert_array_equal(
        right.observations["position"][0], left.observations["position"][0]
    )
    np.testing.assert_array_equal(right.actions, -left.actions)
    assert right.episode_return == left.episode_return > 0.0
    line = opposites.Line(opposites.LEFT)
    line.reset(0)
    assert line.step(right.actions[0])[1] < 0.0


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    file, asked = tmp_path / "kept.json", []

    def measure() -> Mapping[str, Any]:
        asked.append(1)
        return summary([1.0, 2.0])

    entries = [Kept(file).get_or({"seed": 0}, measure) for _ in range(2)]
    assert asked == [1]
    assert [entry["mean"] for entry in entries] == [1.5, 1.5]
    Kept(file).get_or({"seed": 1}, measure)
    assert len(asked) == 2
    assert len(Kept(file).entries) == 2
