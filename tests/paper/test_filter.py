"""Section 3.1: only episodes of at least 80 % of the expert's return are trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gato.episode import AGENT
from replay.sampling.config import MixConfig
from replay.sampling.mixture import Mixture
from replay.sampling.return_filter import expert_return, least_return, window_of
from replay.storage.store import EpisodeStore
from tests.replay.episodes import COUNTER, LAYOUT, TASKS, config, counter_episode
from tests.replay.sampling.test_mixture import windows_of


@pytest.mark.parametrize(
    ("episodes", "window"),
    [(1, 1), (9, 1), (10, 1), (100, 10), (5_000, 500), (10_000, 1_000), (63_400, 1_000)],
)
def test_a_window_holds_a_tenth_of_the_episodes_and_at_most_1000(
    episodes: int, window: int
) -> None:
    """Section 3.1: W = min(1000, 0.1 N); at least one, for fewer than 10 episodes."""
    assert window_of(episodes) == window


@pytest.mark.parametrize("num_episodes", [1, 7, 100, 157])
def test_the_expert_return_is_the_largest_windowed_average(num_episodes: int) -> None:
    """Section 3.1: the maximum over all windows of W consecutive episodes of their mean return."""
    returns = np.random.default_rng(num_episodes).normal(0, 10, num_episodes)
    window = window_of(num_episodes)
    averages = [returns[j : j + window].mean() for j in range(num_episodes - window + 1)]
    assert expert_return(returns) == pytest.approx(max(averages))


def test_one_lucky_episode_does_not_make_an_expert() -> None:
    """Section 3.1: sustained performance: of 100 episodes one of 1,000 among tens counts a
    tenth."""
    returns = np.full(100, 10.0)
    returns[50] = 1000.0
    assert expert_return(returns) == pytest.approx((9 * 10 + 1000) / 10)


def test_what_is_kept_has_80_per_cent_of_the_expert_return() -> None:
    """Section 3.1: at least 80 %. Of a negative expert return, which the paper does not speak of,
    as much below it."""
    assert least_return(np.full(100, 50.0), 0.8) == pytest.approx(40.0)
    assert least_return(np.full(100, -50.0), 0.8) == pytest.approx(-60.0)
    assert least_return(np.array([0.1, 0.1, 0.1]), 1.0) <= 0.1
    with pytest.raises(ValueError, match="at least one episode"):
        expert_return(np.zeros(0))


def read(mix: Mixture, batches: int = 12) -> set[int]:
    """Episodes that some batches are made of."""
    out: set[int] = set()
    for index in range(batches):
        batch = mix.sample(index)
        assert batch is not None
        out |= {episode for window in windows_of(batch) for episode, _ in window}
    return out


def mix_of(store: EpisodeStore, **settings: object) -> Mixture:
    return Mixture(
        store, TASKS, LAYOUT, replace(config().mix, **settings), seed=0, teacher_returns={}
    )  # type: ignore[arg-type]


def test_the_mix_reads_the_good_demonstrations_alone(tmp_path: Path) -> None:
    """Section 3.1: the filter is on by default; the bar follows what is stored, whenever it was
    stored."""
    assert MixConfig(rows=1, row_tokens=2).min_expert_fraction == 0.8
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
    for number, reward in enumerate([1.0, 2.0, 2.4, 2.5]):
        store.add(counter_episode(number, reward=reward), tokens=1)
    mix = mix_of(store)
    assert read(mix) == {1, 2, 3}  # 80 % of 25 is 20
    assert read(mix_of(store, min_expert_fraction=None)) == {0, 1, 2, 3}
    assert read(mix_of(store, min_expert_fraction=0.95)) == {2, 3}
    store.add(counter_episode(4, reward=3.0), tokens=1)  # now it is 24
    assert read(mix) == read(mix_of(store)) == {2, 3, 4}
    store.quarantine(store.episodes[4], "for the test")
    assert read(mix) == read(mix_of(store)) == {1, 2, 3}


def test_what_the_agent_plays_neither_sets_the_bar_nor_is_held_to_it(tmp_path: Path) -> None:
    """Ours: the agent's episodes have a filter of their own, `min_agent_score`, against its
    teacher's mean return."""
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
    store.add(counter_episode(0, reward=1.0), tokens=1)
    store.add(counter_episode(1, reward=50.0, source=AGENT), tokens=1)
    store.add(counter_episode(2, reward=0.79, source=AGENT), tokens=1)
    assert read(mix_of(store)) == {0, 1}
    assert read(mix_of(store, min_agent_score=None)) == {0, 1, 2}


def test_labelled_episodes_are_read_whatever_they_returned(tmp_path: Path) -> None:
    """Ours: where the loss is on what the teacher wanted, the return of what was done does not
    matter (ADR 5)."""
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
    store.add(counter_episode(0, reward=5.0), tokens=1)
    bad = counter_episode(1, reward=0.1)
    store.add(replace(bad, labels=bad.actions), tokens=1)
    assert read(mix_of(store)) == {0, 1}


def test_each_task_has_a_bar_of_its_own(tmp_path: Path) -> None:
    """Section 3.1: the expert return is of one task."""
    other = replace(COUNTER, name="test/other")
    tasks = {COUNTER.name: COUNTER, other.name: other}
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
    store.add(counter_episode(0, reward=100.0), tokens=1)
    store.add(replace(counter_episode(1, reward=1.0), task=other.name), tokens=1)
    mix = Mixture(
        store, tasks, LAYOUT, MixConfig(rows=8, row_tokens=40), seed=0, teacher_returns={}
    )
    assert read(mix) == {0, 1}


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    """Section 3.1: a fraction of the expert return."""
    with pytest.raises(ValueError, match="must be in"):
        MixConfig(rows=1, row_tokens=2, min_expert_fraction=fraction)
