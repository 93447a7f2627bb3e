"""Spikes of the loss: found by a robust score, once, with their task and episodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gato.metrics import Mean
from gato.sequence import Batch
from learner.spikes import AT_LEAST, QUIET, LossSpikes, Spike
from tests.gato.models import ROBOT
from tests.learner.test_learner import ListSource, make


def feed(spikes: LossSpikes, losses: list[float], task: int = 0) -> list[Spike]:
    return [spike for loss in losses for spike in spikes.add({task: Mean(4 * loss, 4)})]


def noise(count: int, seed: int = 0) -> list[float]:
    return list(1.0 + 0.1 * np.random.default_rng(seed).standard_normal(count))


def test_noise_and_a_falling_loss_have_no_spikes() -> None:
    assert feed(LossSpikes(), noise(2000)) == []
    assert feed(LossSpikes(), [5.0 * 0.999**i for i in range(2000)]) == []
    assert feed(LossSpikes(), [1.0] * 500) == []


def test_a_spike_is_found_with_its_score_and_does_not_hide_the_next() -> None:
    spikes = LossSpikes()
    feed(spikes, noise(200))
    [found] = feed(spikes, [4.0])
    assert found.loss == pytest.approx(4.0)
    assert found.median == pytest.approx(1.0, abs=0.05)
    assert 20 < found.score < 45  # 3 by a deviation of about 0.1
    assert feed(spikes, noise(QUIET, seed=1)) == []
    assert len(feed(spikes, [4.0])) == 1


def test_a_loss_that_stays_high_is_one_spike() -> None:
    spikes = LossSpikes()
    feed(spikes, noise(200))
    assert len(feed(spikes, [4.0 + value for value in noise(QUIET, seed=2)])) == 1


def test_a_task_that_spikes_all_the_time_is_told_of_seldom() -> None:
    spikes = LossSpikes()
    feed(spikes, noise(200))
    often = [4.0 if step % 20 == 0 else value for step, value in enumerate(noise(3200, seed=4))]
    told = len(feed(spikes, often))
    assert 4 <= told <= 6  # after 100, 200, 400, 800 and 1,600 updates
    feed(spikes, noise(4 * 3200, seed=5))
    assert len(feed(spikes, [4.0, *noise(QUIET, seed=6), 4.0])) == 2  # it has been calm


def test_tasks_are_compared_with_themselves_and_not_before_enough_updates() -> None:
    spikes = LossSpikes()
    feed(spikes, noise(200), task=0)
    assert feed(spikes, [9.0 + value for value in noise(AT_LEAST)], task=1) == []
    assert [spike.task_index for spike in feed(spikes, [30.0], task=1)] == [1]


def test_a_spike_names_its_task_and_the_episodes_of_its_batch(tmp_path: Path) -> None:
    """After losses of 0.5, the first loss of an untrained model is a spike."""

    class Named(ListSource):
        def next_batch(self, index: int, timeout_s: float) -> Batch | None:
            batch = super().next_batch(index, timeout_s)
            assert batch is not None
            return replace(batch, episode_keys=(f"w0.{index}", "w1.7"))

    learner = make(tmp_path, source=Named())
    feed(learner._spikes, [0.5 * value for value in noise(AT_LEAST)])
    list(learner.run())
    [(kind, text)] = learner.notes
    assert kind == "problem"
    assert text.startswith(f"the loss of {ROBOT.name} was ")
    assert "in update 1, " in text
    assert text.endswith("episodes in its batch: w0.0, w1.7")
