"""Section 2.2 and appendix C: the embedding function, patches and positions."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gato.config import EmbeddingConfig
from gato.network.embedding import PatchEmbedding
from gato.network.model import Gato, TensorBatch
from gato.sequence import PATCH, StepLayout
from gato.task import Task
from gato.tokenizer import TokenLayout
from tests.paper.tasks import (
    SCREEN,
    STATE,
    TORQUES,
    batch_of,
    image,
    model_of,
    task_of,
    values,
    window_of,
)

FOUR_BY_FIVE = task_of({"screen": image(64, 80)})


def embed(model: Gato, batch: TensorBatch) -> Tensor:
    """f(token) [B, L, D] of a batch."""
    with torch.no_grad():
        return model.embedding(
            batch.ids,
            batch.place,
            batch.patches,
            batch.patch_at,
            batch.patch_intervals,
            batch.patch_leaders,
        )


def patch_module(*, stride: int = 1) -> PatchEmbedding:
    torch.manual_seed(0)
    return PatchEmbedding(EmbeddingConfig(width=32, patch_channels=32, patch_stride=stride)).eval()


def drawn_positions(task: Task, num_steps: int = 1) -> Callable[[bool], Tensor]:
    """A function that gives the (row, column) index [P, 2] of each patch, read off tables that hold
    their own index."""
    module = patch_module(stride=8)
    with torch.no_grad():
        module.project.weight.zero_()
        module.project.bias.zero_()
        for number, table in enumerate((module.row, module.column)):
            table.weight.zero_()
            table.weight[:, number] = torch.arange(len(table.weight)).float()
    batch = batch_of(
        task,
        model_of(max_observation_tokens=256, context_tokens=1024),
        [window_of(task, num_steps)],
    )

    def draw(training: bool) -> Tensor:
        with torch.no_grad():
            module.train(training)
            return module(batch.patches, batch.patch_intervals, batch.patch_leaders)[:, :2].long()

    return draw


def test_every_token_has_a_row_of_one_shared_table() -> None:
    """Section 2.2: text, values and actions are looked up in one table: the same id is the same
    vector, plus its place."""
    model = model_of()
    batch = batch_of(task_of({"state": values(4)}, TORQUES), model, [window_of(STATE, 2)])
    ids = torch.full_like(batch.ids, 32_700)
    table, place = model.embedding.table.weight, model.embedding.place.weight
    torch.testing.assert_close(
        embed(model, replace(batch, ids=ids)), table[32_700] + place[batch.place]
    )


@pytest.mark.parametrize(("pixel", "expected"), [(255, 0.25), (0, -0.25), (51, -0.15)])
def test_pixels_are_scaled_to_one_and_divided_by_the_root_of_the_patch_size(
    pixel: int, expected: float
) -> None:
    """Section 2.1: pixels go to [-1, 1] and are divided by sqrt(16) = 4."""
    module, seen = patch_module(), list[Tensor]()
    module.stem.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    none = torch.zeros(1, 4, dtype=torch.int64)
    with torch.no_grad():
        module(torch.full((1, PATCH, PATCH, 3), pixel, dtype=torch.uint8), none, none[:, :2])
    torch.testing.assert_close(seen[0], torch.full_like(seen[0], expected))


def test_a_patch_goes_through_one_pre_activation_residual_block_with_group_norm_and_gelu() -> None:
    """Appendix C.2, figure 16: a v2 block; GroupNorm with 32 groups for LayerNorm, GELU for ReLU;
    alike for each patch.

    Written out here with the module's own weights. The stem, the number of channels and how 16x16
    pixels become one vector are ours: a 3x3 convolution, averages over 4x4 cells, one linear map.
    """
    module = patch_module()
    kinds = [type(part) for part in module.modules()]
    assert nn.LayerNorm not in kinds
    assert nn.ReLU not in kinds
    norms = [part for part in module.modules() if isinstance(part, nn.GroupNorm)]
    assert [norm.num_groups for norm in norms] == [32, 32]
    patches = torch.randint(0, 256, (5, PATCH, PATCH, 3), dtype=torch.uint8)
    at = torch.tensor([[0, 32, 64, 80]]).expand(5, 4)
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
        x = module.stem((patches.permute(0, 3, 1, 2) / 255 * 2 - 1) / 4)
        update = x
        for norm, convolution in zip(norms, (module.conv1, module.conv2), strict=True):
            grouped = update.view(5, 32, -1)
            grouped = (grouped - grouped.mean(-1, keepdim=True)) / (
                grouped.var(-1, correction=0, keepdim=True) + 1e-5
            ).sqrt()
            update = grouped.view_as(x) * norm.weight[:, None, None] + norm.bias[:, None, None]
            update = 0.5 * update * (1 + torch.erf(update / 2**0.5))
            update = F.conv2d(update, convolution.weight, convolution.bias, padding=1)
        cells = (x + update).view(5, 32, 4, 4, 4, 4).mean(dim=(3, 5)).flatten(1)
        expected = cells @ module.project.weight.T + module.project.bias
        expected = expected + module.row.weight[16] + module.column.weight[72]
        torch.testing.assert_close(
            module(patches, at, torch.zeros(5, 2, dtype=torch.int64)),
            expected,
            atol=1e-4,
            rtol=1e-4,
        )


def test_channels_that_32_groups_do_not_divide_are_refused() -> None:
    """Appendix C.2: 32 groups."""
    with pytest.raises(ValueError, match="multiple of 32"):
        EmbeddingConfig(width=32, patch_channels=48)


def test_a_patch_interval_is_quantised_into_128_values() -> None:
    """Appendix C.3, figure 15: the interval of pixels over the image's size, times 128; row 1 of 4
    is [32, 64)."""
    steps = StepLayout(FOUR_BY_FIVE, TokenLayout())
    rows, columns = (
        steps.intervals_m4[:, :2].reshape(4, 5, 2),
        steps.intervals_m4[:, 2:].reshape(4, 5, 2),
    )
    assert rows[:, 0].tolist() == [[0, 32], [32, 64], [64, 96], [96, 128]]
    assert columns[0].tolist() == [[0, 25], [25, 51], [51, 76], [76, 102], [102, 128]]
    assert (rows == rows[:, :1]).all()
    assert (columns == columns[:1]).all()
    assert patch_module().row.num_embeddings == patch_module().column.num_embeddings == 128


def test_in_evaluation_a_patch_stands_at_the_mean_of_its_interval() -> None:
    """Appendix C.3: row 1 of 4 is at 48, row 3 at 112; the same in every forward pass."""
    draw = drawn_positions(FOUR_BY_FIVE)
    index = draw(False).view(4, 5, 2)
    assert index[:, 0, 0].tolist() == [16, 48, 80, 112]
    assert index[0, :, 1].tolist() == [12, 38, 63, 89, 115]
    assert all(torch.equal(draw(False).view(4, 5, 2), index) for _ in range(3))


def test_in_training_a_patch_stands_anywhere_in_its_interval() -> None:
    """Appendix C.3: drawn uniformly from the interval: of row 1 exactly [32, 63], of row 3 up to
    127, all alike often."""
    torch.manual_seed(0)
    draw = drawn_positions(FOUR_BY_FIVE)
    index = torch.stack([draw(True) for _ in range(2000)]).view(2000, 4, 5, 2)
    counts = index[:, 1, 0, 0].bincount(minlength=128)
    assert counts.nonzero()[:, 0].tolist() == list(range(32, 64))
    assert counts[32:64].max() < 2.5 * counts[32:64].min()
    assert index[:, 3, 0, 0].max() == index[:, 0, 4, 1].max() == 127
    assert index.min() == 0


def test_positions_are_drawn_anew_in_every_forward_pass_once_for_a_row_or_column_of_an_image() -> (
    None
):
    """Appendix C.3 does not say how often; ours are drawn again for each image, and kept together
    in its grid."""
    torch.manual_seed(0)
    draw = drawn_positions(FOUR_BY_FIVE, num_steps=2)
    first, second = draw(True).view(2, 4, 5, 2), draw(True).view(2, 4, 5, 2)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert (first[..., 0] == first[:, :, :1, 0]).all()
    assert (first[..., 1] == first[:, :1, :, 1]).all()


def test_row_and_column_vectors_are_both_added_to_the_patch() -> None:
    """Appendix C.3: two learned tables, whose rows are added to the patch's embedding."""
    module = patch_module(stride=8)
    patch, leaders = (
        torch.zeros(1, PATCH, PATCH, 3, dtype=torch.uint8),
        torch.zeros(1, 2, dtype=torch.int64),
    )
    with torch.no_grad():
        low, high = (
            module(patch, torch.tensor([[r, r + 1, c, c + 1]]), leaders)
            for r, c in ((3, 5), (70, 9))
        )
        expected = (
            module.row.weight[70]
            - module.row.weight[3]
            + module.column.weight[9]
            - module.column.weight[5]
        )
    torch.testing.assert_close(high - low, expected[None], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("task", [STATE, SCREEN], ids=["state", "screen"])
def test_local_positions_are_shared_by_all_timesteps(task: Task) -> None:
    """Appendix C.3: an observation token has the position of its index in its own timestep, the
    same in each of them."""
    model = model_of()
    steps = StepLayout(task, model.config.layout)
    batch = batch_of(task, model, [window_of(task, 3)])
    place = batch.place.view(3, -1)[:, : steps.num_observation_tokens]
    assert (place == place[:1]).all()
    assert len(place[0].unique()) == steps.num_observation_tokens
    same = window_of(task, 3)
    for array in (*same.observations.values(), same.actions):
        array[:] = array[:1]
    vectors = embed(model, batch_of(task, model, [same]))[0].view(3, steps.tokens_per_step, -1)
    torch.testing.assert_close(vectors, vectors[:1].expand_as(vectors))


@pytest.mark.parametrize("task", [STATE, SCREEN], ids=["state", "screen"])
def test_every_observation_token_gets_its_local_position(task: Task) -> None:
    """Appendix C.3: added to each observation token, patches too."""
    model = model_of()
    batch = batch_of(task, model, [window_of(task, 2)])
    before = embed(model, batch)
    with torch.no_grad():
        model.embedding.place.weight[batch.place.unique()] += torch.arange(1.0, 33.0)
    after = embed(model, batch)
    torch.testing.assert_close(
        after - before, torch.arange(1.0, 33.0).expand_as(after), atol=1e-4, rtol=1e-4
    )


def test_all_action_tokens_share_one_position() -> None:
    """Appendix C.3 (text): one position embedding for all action tokens. Figure 18's caption says
    none: see ADR 7."""
    steps = StepLayout(STATE, TokenLayout())
    actions = steps.place_S[-3:]
    assert len(set(actions.tolist())) == 1
    assert actions[0] not in steps.place_S[:-3]


def test_a_step_with_more_tokens_than_there_are_positions_is_refused() -> None:
    """Appendix C.3 does not give the table's size: ours is a setting, 512 by default."""
    steps = StepLayout(task_of({"state": values(33)}, TORQUES), TokenLayout())
    with pytest.raises(ValueError, match=r"shows 33 tokens a step.*raise max_observation_tokens"):
        model_of().check(steps)
    model_of(max_observation_tokens=33).check(steps)


def test_a_batch_of_many_images_is_embedded_as_each_image_alone() -> None:
    """Appendix C.2: a patch's vector depends on its own pixels and place alone."""
    model = model_of()
    windows = [window_of(SCREEN, 2, seed=seed) for seed in range(3)]
    together = embed(model, batch_of(SCREEN, model, windows))
    alone = torch.cat([embed(model, batch_of(SCREEN, model, [window])) for window in windows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert np.prod(together.shape[:2]) == 3 * 2 * 6
