"""Section 2.1, 2.2 and appendix B: the order of tokens in a sequence."""

import numpy as np
import pytest

from gato.array_spec import ArraySpec, Kind
from gato.packing import RowWriter
from gato.sequence import PATCH, StepLayout
from gato.tokenizer import TokenLayout, decode
from tests.paper.tasks import BUTTON, STATE, TORQUES, image, task_of, values, window_of

LAYOUT = TokenLayout()
MIXED = task_of(
    {
        "z-screen": image(16, 32),
        "b-lives": ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=9),
        "a-state": ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=9),
        "c-screen": image(16, 16),
    },
    BUTTON,
)


def test_a_step_is_images_then_tensors_then_the_separator_then_actions() -> None:
    """Section 2.2: text, image patches, tensors; then the separator; then the action."""
    steps = StepLayout(MIXED, LAYOUT)
    shown = {
        "a-state": np.array([[1, 2]]), "b-lives": np.array([[3, 4]]),
        "c-screen": np.full((1, 16, 16, 3), 7, np.uint8), "z-screen": np.full((1, 16, 32, 3), 9,
        np.uint8),
    }  # fmt: skip
    ids = steps.step_ids(shown, np.array([5]))[0]
    assert ids[steps.num_patches :].tolist() == [1, 2, 3, 4, LAYOUT.separator, 5]
    assert steps.patches(shown)[0, :, 0, 0, 0].tolist() == [7, 9, 9]


def test_keys_are_in_lexicographic_order_whatever_order_they_come_in() -> None:
    """Section 2.2 and appendix B: within a kind, observations are ordered by their keys."""
    turned = task_of(dict(reversed(list(MIXED.observations.items()))), BUTTON)
    window = window_of(MIXED, 3)
    shown = dict(reversed(list(window.observations.items())))
    first, second = StepLayout(MIXED, LAYOUT), StepLayout(turned, LAYOUT)
    np.testing.assert_array_equal(
        first.step_ids(window.observations, window.actions), second.step_ids(shown, window.actions)
    )
    np.testing.assert_array_equal(first.patches(window.observations), second.patches(shown))


@pytest.mark.parametrize(
    ("height", "width", "state", "actions", "tokens"),
    [
        (64, 80, 0, 1, 22),
        (80, 80, 0, 1, 27),
        (84, 84, 0, 1, 38),
        (208, 160, 0, 1, 132),
        (0, 0, 11, 3, 15),
        (0, 0, 17, 6, 24),
        (0, 0, 27, 8, 36),
        (0, 0, 105, 8, 114),
        (0, 0, 10, 2, 13),
        (0, 0, 4, 1, 6),
    ],
)
def test_a_sequence_of_t_steps_has_t_times_k_m_n_1_and_a_tokens(
    height: int, width: int, state: int, actions: int, tokens: int
) -> None:
    """Section 2.2, appendix B: L = T (k + m + n + 1 + A) for m patches, n values and A action
    tokens (k: text)."""
    seen = {"state": values(state)} if state else {"screen": image(height, width)}
    steps = StepLayout(task_of(seen, values_action(actions)), LAYOUT)
    assert steps.tokens_per_step == tokens
    window = window_of(steps.task, 7)
    assert steps.step_ids(window.observations, window.actions).size == 7 * tokens


def values_action(size: int) -> ArraySpec:
    return ArraySpec(kind=Kind.CONTINUOUS, shape=(size,), low=-1.0, high=1.0)


def test_steps_are_in_the_order_of_time() -> None:
    """Section 2.2: the sequence is (observation, separator, action) of step 1, then of step 2, and
    so on."""
    counter = task_of({"t": ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=1000)}, BUTTON)
    window = window_of(counter, 6)
    window.observations["t"][:] = np.arange(100, 106)
    steps = StepLayout(counter, LAYOUT)
    writer = RowWriter(num_rows=1, row_tokens=18)
    writer.write_row(0, task_index=0, steps=steps, windows=[window])
    row = writer.batch().ids[0].reshape(6, 3)
    assert row[:, 0].tolist() == list(range(100, 106))
    assert (row[:, 1] == LAYOUT.separator).all()
    np.testing.assert_array_equal(row[:, 2], window.actions)


def test_the_separator_stands_between_observation_and_action() -> None:
    """Section 2.2: one separator a step, right before the action tokens."""
    steps = StepLayout(STATE, LAYOUT)
    window = window_of(STATE, 5)
    ids = steps.step_ids(window.observations, window.actions)
    assert (ids == LAYOUT.separator).sum(axis=1).tolist() == [1] * 5
    assert (ids[:, -steps.num_action_tokens - 1] == LAYOUT.separator).all()


def test_tokens_give_back_observations_and_actions() -> None:
    """Section 2.2: the order loses nothing: discrete values come back exactly, continuous actions
    within half a bin."""
    seen = {name: MIXED.observations[name] for name in ("a-state", "b-lives")}
    task = task_of(seen, TORQUES)
    steps, window = StepLayout(task, LAYOUT), window_of(task, 20)
    ids = steps.step_ids(window.observations, window.actions)
    for index, name in enumerate(sorted(seen)):
        back = decode(ids[:, 2 * index : 2 * index + 2], seen[name], LAYOUT)
        np.testing.assert_array_equal(back, window.observations[name])
    actions = decode(ids[:, 5:], TORQUES, LAYOUT, is_action=True)
    assert np.abs(actions - window.actions).max() <= 1 / 1024 + 1e-6


def test_patches_are_16_by_16_in_raster_order() -> None:
    """Section 2.1: non-overlapping 16x16 patches, row after row: patch k of W' columns is (k // W',
    k % W')."""
    steps = StepLayout(task_of({"screen": image(64, 80)}), LAYOUT)
    screen = np.zeros((1, 64, 80, 3), np.uint8)
    screen[0, ..., 0] = np.arange(64)[:, None]
    screen[0, ..., 1] = np.arange(80)
    patches = steps.patches({"screen": screen})
    assert patches.shape == (1, 20, PATCH, PATCH, 3)
    for k in range(20):
        assert patches[0, k, 0, 0, :2].tolist() == [k // 5 * 16, k % 5 * 16]
        assert patches[0, k, 15, 15, :2].tolist() == [k // 5 * 16 + 15, k % 5 * 16 + 15]
