"""The order of tokens in a step and of windows in a row."""

import numpy as np
import pytest
import torch

from gato.model import TensorBatch, next_token_loss
from gato.sequence import FIRST_PLACE, PLACE_ACTION, PLACE_SEPARATOR, RowWriter, StepLayout, Window
from gato.task import ArraySpec, Kind, References, Task
from gato.tokenizer import TokenLayout
from tests.gato.models import GAME, ROBOT, random_observations, small_model

LAYOUT = TokenLayout()


def window(task: Task, num_steps: int, rng: np.random.Generator, prompt_steps: int = 0) -> Window:
    actions = np.zeros((num_steps, *task.action.shape), task.action.dtype)
    return Window(observations=random_observations(task, num_steps, rng), actions=actions, prompt_steps=prompt_steps)


@pytest.mark.parametrize(
    ("height", "width", "state", "actions", "tokens"), [(64, 80, 0, 1, 22), (80, 80, 0, 1, 27), (84, 84, 0, 1, 38), (0, 0, 11, 3, 15), (0, 0, 17, 6, 24)]
)  # fmt: skip
def test_a_step_has_patches_tensors_separator_and_action(
    height: int, width: int, state: int, actions: int, tokens: int
) -> None:
    observations = {"state": ArraySpec(kind=Kind.CONTINUOUS, shape=(state,))} if state else {}
    if height:
        observations["image"] = ArraySpec(kind=Kind.IMAGE, shape=(height, width, 3))
    action = ArraySpec(kind=Kind.CONTINUOUS, shape=(actions,), low=-1.0, high=1.0)
    references = References(random=0.0, expert=1.0, source="made")
    task = Task(
        name="t", env_id="t", family="t", observations=observations, action=action, references=references, max_steps=9
    )
    assert StepLayout(task, LAYOUT).tokens_per_step == tokens


def test_the_order_of_keys_does_not_matter() -> None:
    observations = random_observations(GAME, 3, np.random.default_rng(0))
    steps = StepLayout(GAME, LAYOUT)
    turned = dict(reversed(observations.items()))
    np.testing.assert_array_equal(steps.observation_ids(observations), steps.observation_ids(turned))
    np.testing.assert_array_equal(steps.patches(observations), steps.patches(turned))


def test_patches_are_in_raster_order_and_pixels_stay_where_they_were() -> None:
    image = np.arange(32 * 48 * 3, dtype=np.int64).reshape(1, 32, 48, 3).astype(np.uint8)
    patches = StepLayout(GAME, LAYOUT).patches({"image": image})
    for k in range(6):
        row, column = divmod(k, 3)
        np.testing.assert_array_equal(patches[0, k], image[0, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16])


def test_an_image_of_any_size_is_padded_to_patches() -> None:
    spec = ArraySpec(kind=Kind.IMAGE, shape=(20, 17, 3))
    task = Task(
        name="t",
        env_id="t",
        family="t",
        observations={"image": spec},
        action=GAME.action,
        references=GAME.references,
        max_steps=9,
    )
    steps = StepLayout(task, LAYOUT)
    patches = steps.patches({"image": np.full((2, 20, 17, 3), 7, np.uint8)})
    assert patches.shape == (2, 4, 16, 16, 3)
    assert patches[0, 3, :4, :1].min() == 7
    assert patches[0, 3].sum() == 7 * 4 * 1 * 3


def test_the_patch_intervals_are_those_of_figure_15() -> None:
    spec = ArraySpec(kind=Kind.IMAGE, shape=(64, 80, 3))
    task = Task(
        name="t",
        env_id="t",
        family="t",
        observations={"image": spec},
        action=GAME.action,
        references=GAME.references,
        max_steps=9,
    )
    intervals = StepLayout(task, LAYOUT).intervals_m4
    assert intervals[5, :2].tolist() == [32, 64]
    assert intervals[19, :2].tolist() == [96, 128]
    assert intervals[0].tolist() == [0, 32, 0, 25]


def test_places_count_inside_a_step_and_actions_share_one() -> None:
    place = StepLayout(ROBOT, LAYOUT).place_S
    assert place.tolist() == [FIRST_PLACE + i for i in range(5)] + [PLACE_SEPARATOR] + [PLACE_ACTION] * 3


def test_windows_are_packed_and_marked() -> None:
    rng = np.random.default_rng(0)
    steps = StepLayout(ROBOT, LAYOUT)
    writer = RowWriter(num_rows=2, row_tokens=40)
    writer.write_row(
        1, task_index=3, steps=steps, windows=[window(ROBOT, 2, rng), window(ROBOT, 1, rng), window(ROBOT, 1, rng)]
    )
    batch = writer.batch()
    assert batch.segment[0].max() == 0
    assert batch.segment[1].tolist() == [1] * 18 + [2] * 9 + [3] * 9 + [0] * 4
    assert batch.is_target[1].sum() == 4 * 3
    assert batch.num_tokens == 36
    assert batch.task_index.tolist() == [0, 3]
    with pytest.raises(ValueError, match="40"):
        writer.write_row(0, task_index=0, steps=steps, windows=[window(ROBOT, 5, rng)])


def test_the_loss_on_a_prompt_is_a_setting() -> None:
    steps = StepLayout(ROBOT, LAYOUT)
    for loss_on_prompt, targets in [(True, 9), (False, 3)]:
        writer = RowWriter(num_rows=1, row_tokens=30, loss_on_prompt=loss_on_prompt)
        writer.write_row(
            0, task_index=0, steps=steps, windows=[window(ROBOT, 3, np.random.default_rng(0), prompt_steps=2)]
        )
        assert writer.batch().is_target.sum() == targets


def test_patches_of_packed_rows_stand_where_they_belong() -> None:
    rng = np.random.default_rng(0)
    steps = StepLayout(GAME, LAYOUT)
    windows = [window(GAME, 2, rng), window(GAME, 1, rng)]
    writer = RowWriter(num_rows=2, row_tokens=40)
    writer.write_row(1, task_index=0, steps=steps, windows=windows)
    batch = writer.batch()
    assert batch.patch_at.tolist() == [40 + step * 9 + k for step in range(3) for k in range(6)]
    np.testing.assert_array_equal(batch.patches[6], steps.patches(windows[0].observations)[1, 0])
    assert batch.patch_leaders[6 + 4].tolist() == [6 + 3, 6 + 1]


def test_a_window_does_not_see_its_neighbours_in_the_row() -> None:
    """The loss of a window is the same alone and packed."""
    rng = np.random.default_rng(0)
    model = small_model(64)
    steps = StepLayout(GAME, model.config.layout)
    windows = [window(GAME, 2, rng), window(GAME, 1, rng)]

    def losses(windows: list[Window]) -> torch.Tensor:
        writer = RowWriter(num_rows=1, row_tokens=40)
        writer.write_row(0, task_index=0, steps=steps, windows=windows)
        with torch.inference_mode():
            return next_token_loss(model, TensorBatch.of(writer.batch())).losses

    packed = losses(windows)
    alone = torch.cat([losses(windows[:1]), losses(windows[1:])])
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=0)
