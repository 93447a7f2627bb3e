"""Section 2.3: prompts and the mix."""

from pathlib import Path

import numpy as np
import pytest

from replay.sampling.config import MixConfig, TaskMix
from replay.sampling.mixture import Mixture
from replay.storage.store import EpisodeStore
from tests.paper.tasks import STATE, batch_of, model_of, window_of
from tests.replay.episodes import COUNTER, LAYOUT, TASKS, counter_episode
from tests.replay.sampling.test_mixture import windows_of

STEPS = 20
Windows = list[list[tuple[int, int]]]


def mix_of(
    folder: Path, *, sources: tuple[str, ...] = ("teacher:a",) * 5, **settings: object
) -> Mixture:
    """Episodes of 20 steps, one of each source; windows of 2 steps and prompts of 2 unless the
    settings say otherwise."""
    store = EpisodeStore(folder, capacity_bytes=1 << 26)
    for number, source in enumerate(sources):
        store.add(counter_episode(number, STEPS, source=source), tokens=1)
    chosen: dict[str, object] = {
        "rows": 50, "row_tokens": 16, "prompt_steps": 2,
        "tasks": {COUNTER.name: TaskMix(weight=1.0, window_steps=2)}
    }  # fmt: skip
    config = MixConfig(**(chosen | settings))  # type: ignore[arg-type]
    return Mixture(
        store, {COUNTER.name: TASKS[COUNTER.name]}, LAYOUT, config, seed=3, teacher_returns={}
    )


def drawn(mix: Mixture, batches: int = 20) -> Windows:
    """(episode, step) of each step of each window of some batches; a window of 4 steps begins with
    a prompt of 2."""
    out: Windows = []
    for index in range(batches):
        batch = mix.sample(index)
        assert batch is not None
        out += windows_of(batch)
    return out


def prompted(windows: Windows) -> Windows:
    return [window for window in windows if len(window) == 4]


def test_a_quarter_of_the_sequences_have_a_prompt(tmp_path: Path) -> None:
    """Section 2.3: 25 % of the sequences in a batch are prefixed with a prompt; the default."""
    mix = mix_of(tmp_path)
    rows = with_prompt = 0
    for index in range(40):
        batch = mix.sample(index)
        assert batch is not None
        rows += len(batch.ids)
        with_prompt += sum(len(window) == 4 for window in windows_of(batch))
    assert with_prompt / rows == pytest.approx(0.25, abs=0.03)


def test_a_prompt_is_of_another_episode_of_the_same_task_and_source(tmp_path: Path) -> None:
    """Section 2.3: from an episode by the same source agent on the same task."""
    mix = mix_of(
        tmp_path,
        sources=("teacher:a", "teacher:b", "teacher:a", "teacher:b", "teacher:b"),
        prompt_fraction=1.0,
    )
    windows = prompted(drawn(mix))
    assert len(windows) == 1000
    source = [0, 1, 0, 1, 1]
    for window in windows:
        assert window[0][0] != window[2][0]
        assert source[window[0][0]] == source[window[2][0]]
    assert {(window[0][0], window[2][0]) for window in windows} == {
        (0, 2),
        (2, 0),
        (1, 3),
        (3, 1),
        (1, 4),
        (4, 1),
        (3, 4),
        (4, 3),
    }


def test_half_of_the_prompts_are_from_the_end_and_half_from_anywhere(tmp_path: Path) -> None:
    """Section 2.3: half from the episode's end, as a goal; half drawn uniformly from the
    episode."""
    starts = np.array(
        [window[0][1] for window in prompted(drawn(mix_of(tmp_path, prompt_fraction=1.0), 60))]
    )
    counts = np.bincount(starts, minlength=STEPS - 1)
    assert len(counts) == STEPS - 1
    assert counts[-1] / len(starts) == pytest.approx(0.5 + 0.5 / 19, abs=0.03)
    assert counts[:-1].min() > 0.6 * counts[:-1].mean()
    assert counts[:-1].max() < 1.4 * counts[:-1].mean()


def test_a_prompt_is_whole_consecutive_steps_before_its_window(tmp_path: Path) -> None:
    """Section 2.3: the prompt precedes the sequence: two runs of consecutive steps in one
    window."""
    for window in prompted(drawn(mix_of(tmp_path, prompt_fraction=1.0), 5)):
        for (episode, step), after in ((window[0], window[1]), (window[2], window[3])):
            assert after == (episode, step + 1)


def test_a_prompt_takes_half_of_the_row_unless_told_otherwise(tmp_path: Path) -> None:
    """Section 2.3 names no length: ours is half of the steps that fit."""
    mix = mix_of(
        tmp_path,
        row_tokens=48,
        prompt_steps=None,
        prompt_fraction=1.0,
        tasks={COUNTER.name: TaskMix(weight=1.0)},
    )
    for window in drawn(mix, 5):
        assert len(window) == 12
        assert (
            len({episode for episode, _ in window[:6]})
            == len({episode for episode, _ in window[6:]})
            == 1
        )
        assert window[5][0] != window[6][0]


@pytest.mark.parametrize(
    "settings", [{"sources": ("teacher:a",)}, {"prompt_episode": "any"}], ids=["only one", "any"]
)
def test_a_prompt_never_overlaps_what_it_prompts(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    """Section 2.3 does not say; ours never shows a step twice, also where the prompt is of the
    window's own episode."""
    windows = drawn(mix_of(tmp_path, prompt_fraction=1.0, **settings))  # type: ignore[arg-type]
    of_itself = [w for w in windows if len(w) > 2 and w[0][0] == w[-1][0]]
    assert len(of_itself) > 100
    for window in of_itself:
        assert window == sorted(set(window))


def test_a_window_is_any_part_of_its_episode(tmp_path: Path) -> None:
    """Section 2.3: random subsequences: each step is about equally often in a window, the ends a
    little less."""
    steps = [
        step for window in drawn(mix_of(tmp_path, prompt_fraction=0.0), 60) for _, step in window
    ]
    counts = np.bincount(steps, minlength=STEPS)
    assert counts.min() > 0.5 * counts.mean()
    assert counts[2:-2].max() < 1.3 * counts[2:-2].mean()


def test_the_agents_and_other_sources_episodes_do_not_mix_in_a_prompt(tmp_path: Path) -> None:
    """Section 2.3: the same source agent, also where the source is the agent itself: a lone source
    prompts itself."""
    mix = mix_of(tmp_path, sources=("teacher:a", "teacher:a", "agent"), prompt_fraction=1.0)
    for window in drawn(mix):
        assert (window[0][0] == 2) == (window[-1][0] == 2)


def test_a_prompts_actions_are_targets_too_unless_told_otherwise() -> None:
    """Section 2.3 does not exclude them; `loss_on_prompt` does (tests/gato/test_sequence.py has
    both values)."""
    model = model_of()
    batch = batch_of(STATE, model, [window_of(STATE, 4, prompt_steps=2)])
    assert batch.is_target.sum() == 4 * 3
    assert MixConfig(rows=1, row_tokens=2).loss_on_prompt
