"""The order of tokens in a step and of windows in a row."""

import numpy as np
import pytest
import torch

from gato.array_spec import ArraySpec, Kind
from gato.network.model import TensorBatch, next_token_loss
from gato.packing import RowWriter
from gato.sequence import StepLayout, Window
from gato.task import Task
from gato.tokenizer import TokenLayout
from tests.gato.models import GAME, ROBOT, random_observations, small_model

LAYOUT = TokenLayout()


def window(task: Task, num_steps: int, rng: np.random.Generator, prompt_steps: int = 0) -> Window:
    actions = np.zeros((num_steps, *task.action.shape), task.action.dtype)
    return Window(
        observations=random_observations(task, num_steps, rng),
        actions=actions,
        prompt_steps=prompt_steps,
    )


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


def test_windows_are_packed_and_marked() -> None:
    rng = np.random.default_rng(0)
    steps = StepLayout(ROBOT, LAYOUT)
    writer = RowWriter(num_rows=2, row_tokens=40)
    writer.write_row(
        1,
        task_index=3,
        steps=steps,
        windows=[window(ROBOT, 2, rng), window(ROBOT, 1, rng), window(ROBOT, 1, rng)],
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
            0,
            task_index=0,
            steps=steps,
            windows=[window(ROBOT, 3, np.random.default_rng(0), prompt_steps=2)],
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
