"""The training path: attention to the letter, both settings of positions, checkpointing, and one
graph for the compiler."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gato.config import PRESETS, ModelConfig, TransformerConfig
from gato.network.block_attention import BlockwiseAttention, fused_in_blocks
from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.network.relative_attention import distance_encoding
from gato.network.rotary_attention import rotate, rotations
from gato.packing import RowWriter
from gato.sequence import StepLayout, Window
from gato.task import Task
from gato.weights import snapshot
from tests.gato.models import GAME, ROBOT, random_observations, small_model

each_setting = pytest.mark.parametrize("positions", ["transformer-xl", "rotary"])


def packed(task: Task, model: Gato, lengths: list[list[int]], *, row_tokens: int) -> TensorBatch:
    """Rows of windows of so many steps each."""
    rng = np.random.default_rng(0)
    writer = RowWriter(num_rows=len(lengths), row_tokens=row_tokens)
    for row, steps in enumerate(lengths):
        windows = [
            Window(
                observations=random_observations(task, num, rng),
                actions=np.zeros((num, *task.action.shape), task.action.dtype),
            )
            for num in steps
        ]
        writer.write_row(
            row, task_index=0, steps=StepLayout(task, model.config.layout), windows=windows
        )
    return TensorBatch.of(writer.batch())


def mask_of(segments: torch.Tensor) -> torch.Tensor:
    L = segments.shape[1]
    visible = (segments[:, :, None] == segments[:, None, :]) & torch.ones(L, L).tril().bool()
    return torch.zeros(visible.shape, dtype=torch.float64).masked_fill(~visible, -torch.inf)


@pytest.mark.parametrize("num_tokens", [1, 7, 128, 300])
@pytest.mark.parametrize("num_masks", [1, 2])
def test_attention_in_blocks_is_softmax_of_content_and_distance(
    num_tokens: int, num_masks: int
) -> None:
    """Transformer-XL, section 3.3, each pair of tokens by itself; values and all gradients, however
    it is computed."""
    torch.manual_seed(0)
    H, B, L, K = 2, 2, num_tokens, 4
    parts = [torch.randn(H, B, L, K, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    r = torch.randn(H, K, L + 1, dtype=torch.float64, requires_grad=True)
    segments = (
        torch.ones(1, L)
        if num_masks == 1
        else (torch.arange(L) >= torch.tensor([[L // 3], [L // 2]])).long()
    )
    mask = mask_of(segments)
    content, far, k, v = parts
    distance = torch.arange(L)[:, None] - torch.arange(L)
    r_HKLL = r[:, :, (L - distance).clamp(max=L)]  # column c holds distance L - c
    scores = content @ k.transpose(-1, -2) + torch.einsum("hbik,hkij->hbij", far, r_HKLL) + mask
    expected = (scores.softmax(-1) @ v).permute(1, 2, 0, 3)
    like = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, [*parts, r], like)
    for out in (
        BlockwiseAttention.apply(*parts, r, mask),
        fused_in_blocks(*parts, r, mask, dropout=0.0),
    ):
        assert isinstance(out, torch.Tensor)
        torch.testing.assert_close(out, expected)
        for got, wanted in zip(torch.autograd.grad(out, [*parts, r], like), gradients, strict=True):
            torch.testing.assert_close(got, wanted)


def test_a_batch_of_one_row_keeps_its_segments_apart() -> None:
    """Also those that end before the block of queries begins."""
    torch.manual_seed(0)
    H, L, K = 2, 300, 4
    parts = [torch.randn(H, 1, L, K, dtype=torch.float64) for _ in range(4)]
    r = torch.randn(H, K, L + 1, dtype=torch.float64)
    mask = mask_of((torch.arange(L) >= 100).long()[None])
    out = BlockwiseAttention.apply(*parts, r, mask)
    torch.testing.assert_close(out, fused_in_blocks(*parts, r, mask, dropout=0.0))
    parts[3][:, :, :100] += 1.0  # the first segment's values
    assert torch.equal(BlockwiseAttention.apply(*parts, r, mask)[:, 100:], out[:, 100:])


def test_the_whole_layer_is_the_formula_of_transformer_xl() -> None:
    """(q + u) k + (q + v) r(i - j), over the root of a head's width."""
    layer = small_model(64).transformer.blocks[0].attention
    x, L, H = torch.randn(1, 9, 32), 9, 2
    with torch.no_grad():
        got = layer(x, distance_encoding(L, 32, x.device), mask_of(torch.ones(1, L)).float())
        q, k, v = layer.qkv(x)[0].view(L, 3, H, 16).permute(1, 2, 0, 3)
        r = layer.distance(distance_encoding(L, 32, x.device)).view(L, H, 16)
        out = torch.zeros(L, H, 16)
        for head in range(H):
            for i in range(L):
                seen = range(i + 1)
                u, w = layer.content_bias[head, 0], layer.distance_bias[head, 0]
                scores = [
                    (q[head, i] + u) @ k[head, j] + (q[head, i] + w) @ r[i - j, head] for j in seen
                ]
                weights = (torch.stack(scores) / 16**0.5).softmax(0)
                out[i, head] = weights @ v[head, : i + 1]
        torch.testing.assert_close(got[0], layer.out(out.view(L, 32)), atol=1e-5, rtol=1e-5)


def test_rotary_scores_know_differences_alone_also_after_a_million_tokens() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(16), torch.randn(16)

    def score(i: int, j: int) -> torch.Tensor:
        turned = rotate(torch.stack([q, k]), rotations(torch.tensor([i, j]), 16))
        return turned[0] @ turned[1]

    torch.testing.assert_close(score(7, 3), score(1_000_007, 1_000_003), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(score(5, 5), q @ k, atol=1e-5, rtol=1e-5)
    assert (score(7, 3) - score(7, 0)).abs() > 0.1
    # Su et al. 2021, equation 13: the first pair turns by one radian a position.
    first = rotate(torch.eye(16)[0][None], rotations(torch.tensor([1]), 16))[0]
    torch.testing.assert_close(first[[0, 8]], torch.tensor([np.cos(1.0), np.sin(1.0)]).float())


def test_positions_that_cannot_be_are_refused() -> None:
    sizes = {"num_layers": 1, "num_heads": 2, "width": 6, "feedforward": 8}
    with pytest.raises(ValueError, match="3 wide"):
        TransformerConfig(**sizes, positions="rotary")
    config = TransformerConfig(**sizes)
    # as from a file: here the annotation would reject it first
    object.__setattr__(config, "positions", "learned")
    with pytest.raises(ValueError, match="'transformer-xl' or 'rotary'"):
        config.__post_init__()


def test_rotary_positions_have_no_parameters() -> None:
    names = {name for name, _ in small_model(64, positions="rotary").named_parameters()}
    assert not [name for name in names if "distance" in name or "content_bias" in name]


@each_setting
@pytest.mark.parametrize("task", [ROBOT, GAME], ids=["robot", "game"])
def test_packed_windows_of_any_length_cost_what_they_cost_alone(task: Task, positions: str) -> None:
    model = small_model(64, positions=positions).train()
    config = replace(model.config, stochastic_depth=0.0)
    model = Gato(config).eval()
    together = packed(task, model, [[3, 1, 2]], row_tokens=64)
    alone = [packed(task, model, [[3]], row_tokens=40)]
    assert not together.one_segment
    assert alone[0].one_segment
    with torch.inference_mode():
        losses = next_token_loss(model, together).losses
        # The first window's random numbers are the same in both.
        torch.testing.assert_close(
            losses[: 3 * task.action.size],
            next_token_loss(model, alone[0]).losses,
            atol=1e-4,
            rtol=1e-4,
        )


@each_setting
def test_a_row_of_one_segment_needs_no_segments(positions: str) -> None:
    """The shortcut changes no hidden state but padding's."""
    model = small_model(200, positions=positions)
    batch = packed(ROBOT, model, [[20], [5]], row_tokens=190)
    assert batch.one_segment
    with torch.inference_mode():
        short, whole = model(batch), model(replace(batch, one_segment=False))
    real = batch.segment > 0
    torch.testing.assert_close(short[real], whole[real], atol=1e-5, rtol=1e-5)


def test_padding_in_the_middle_or_a_second_window_is_no_single_segment() -> None:
    model = small_model(64)
    for lengths in ([[1, 1]], [[2], [1, 1]]):
        assert not packed(ROBOT, model, lengths, row_tokens=20).one_segment


def test_targets_are_found_on_the_host_and_need_an_earlier_token_of_their_segment() -> None:
    model = small_model(64)
    steps = StepLayout(ROBOT, model.config.layout)
    writer = RowWriter(num_rows=2, row_tokens=20)
    window = Window(
        observations={"state": np.zeros((1, 5), np.float32)}, actions=np.zeros((1, 3), np.float32)
    )
    for row in range(2):
        writer.write_row(row, task_index=0, steps=steps, windows=[window, window])
    batch = writer.batch()
    assert TensorBatch.of(batch).target_at.tolist() == [6, 7, 8, 15, 16, 17, 26, 27, 28, 35, 36, 37]
    # as if all were text: the first of a window has nothing before it
    batch.is_target[:] = batch.segment > 0
    at = TensorBatch.of(batch).target_at.tolist()
    assert at == [*range(1, 9), *range(10, 18), *range(21, 29), *range(30, 38)]


@each_setting
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_checkpointing_changes_no_gradient(positions: str, dropout: float) -> None:
    """Also where sub-layers and values are left out at random: they are drawn the same again."""
    config = replace(
        small_model(64, positions=positions).config, dropout=dropout, stochastic_depth=0.2
    )
    torch.manual_seed(0)
    model = Gato(config).train()
    batch = packed(GAME, model, [[2, 1], [3]], row_tokens=32)

    def gradients(checkpointing: bool) -> tuple[list[torch.Tensor], int]:
        model.transformer.activation_checkpointing = checkpointing
        model.zero_grad()
        torch.manual_seed(1)
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (kept.append(t.nbytes), t)[1], lambda t: t
        ):
            loss = next_token_loss(model, batch).mean
        num_bytes = sum(kept)
        loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None], num_bytes

    plain, more = gradients(False)
    again, fewer = gradients(True)
    assert len(plain) == len(again) == len(list(model.parameters()))
    for one, two in zip(plain, again, strict=True):
        torch.testing.assert_close(one, two)
    assert fewer < 0.8 * more


@each_setting
def test_a_step_in_bfloat16_is_near_the_one_in_float32(positions: str) -> None:
    model = small_model(64, positions=positions)
    batch = packed(GAME, model, [[2, 1], [3]], row_tokens=32)
    with torch.inference_mode():
        full = next_token_loss(model, batch).mean
        with torch.autocast("cpu", torch.bfloat16):
            half = next_token_loss(model, batch).mean
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(full.item(), rel=0.05)


def test_no_patch_is_embedded_but_those_of_the_batch() -> None:
    """Patches are one call of the residual block over exactly those that rows hold; padding and
    other tokens have none."""
    model = small_model(64)
    calls: list[int] = []
    model.embedding.patch.register_forward_hook(lambda module, args, out: calls.append(len(out)))
    with torch.inference_mode():
        model(packed(GAME, model, [[2, 1], [3]], row_tokens=40))
        model(packed(ROBOT, model, [[2, 1], [3]], row_tokens=40))
    assert calls == [6 * StepLayout(GAME, model.config.layout).num_patches]


@each_setting
def test_what_is_asked_for_is_what_all_would_have_been(positions: str) -> None:
    """Hidden states and gradients, also where blocks are skipped at random."""
    config = replace(small_model(64, positions=positions).config, stochastic_depth=0.3)
    torch.manual_seed(0)
    model = Gato(config).train()
    batch = packed(GAME, model, [[2, 1], [3], [1, 1]], row_tokens=40)
    asked = batch.target_at - 1
    found: list[tuple[torch.Tensor, list[torch.Tensor]]] = []
    drawn: list[float] = []
    for of in (lambda: model(batch).flatten(0, 1)[asked], lambda: model(batch, asked)):
        model.zero_grad()
        torch.manual_seed(1)
        states = of()
        drawn.append(torch.rand(1).item())
        states.square().sum().backward()
        found.append(
            (states.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None])
        )
    assert drawn[0] == drawn[1]  # as many random numbers
    (states, gradients), (few, same) = found
    torch.testing.assert_close(few, states, atol=1e-5, rtol=1e-5)
    assert len(same) == len(gradients) > 0
    for one, two in zip(gradients, same, strict=True):
        torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-4)


def test_the_last_feedforward_passes_the_targets_alone() -> None:
    model = small_model(64)
    batch = packed(ROBOT, model, [[2, 1], [3]], row_tokens=40)
    shapes: list[tuple[int, ...]] = []
    for block in model.transformer.blocks:
        block.feedforward_out.register_forward_hook(
            lambda module, args, out: shapes.append(tuple(out.shape))
        )
    next_token_loss(model, batch)
    assert shapes == [*[(2, 40, 32)] * (len(shapes) - 1), (6 * 3, 32)]


def test_logits_are_made_for_targets_alone() -> None:
    model = small_model(64)
    batch = packed(ROBOT, model, [[2, 1], [3]], row_tokens=40)
    shapes: list[tuple[int, ...]] = []
    original = model.logits

    def logits(hidden: torch.Tensor, low: int = 0, high: int | None = None) -> torch.Tensor:
        shapes.append(tuple(hidden.shape))
        return original(hidden, low, high)

    model.logits = logits  # type: ignore[method-assign]
    next_token_loss(model, batch)
    assert shapes == [(6 * 3, 32)]


COMPILED = """
import torch
from dataclasses import replace
from tests.gato.models import GAME, ROBOT, small_model
from tests.gato.test_training import packed
from gato.network.model import Gato, next_token_loss

counters = torch._dynamo.utils.counters
for positions in ("transformer-xl", "rotary"):
    torch._dynamo.reset()
    config = small_model(64, positions=positions).config
    model = Gato(replace(config, stochastic_depth=0.1, num_layers=1)).train()
    compiled = torch.compile(next_token_loss, backend="eager")
    for task in (ROBOT, GAME):
        for lengths in ([[2], [3]], [[1], [2]], [[3], [1]]):
            batch = packed(task, model, lengths, row_tokens=40)
            torch.manual_seed(0)
            loss = compiled(model, batch)
            loss.mean.backward()
            torch.manual_seed(0)
            torch.testing.assert_close(loss.losses, next_token_loss(model, batch).losses)
print(dict(counters["graph_break"]), counters["stats"]["unique_graphs"])
"""


def test_forward_and_loss_are_one_graph_for_the_compiler() -> None:
    """No graph breaks, and no new graph for another number of targets or patches, but for the first
    other one.

    In a process of its own: here jaxtyping's checks stand in each function's way.
    """
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False, cwd=root
    )
    assert done.returncode == 0, done.stderr[-2000:]
    breaks, graphs = done.stdout.strip().rsplit(" ", 1)
    assert breaks == "{}"
    # For each setting of positions: with patches and without, each first of fixed and then of any
    # number.
    assert int(graphs) <= 2 * 2 * 2


@pytest.mark.parametrize(("name", "millions"), [("79m", 79), ("364m", 364), ("1.18b", 1180)])
def test_presets_have_the_papers_size_and_need_their_positions_for_it(
    name: str, millions: int
) -> None:
    """Table 5, on the meta device: within 2 % with the default positions, which rotary ones
    miss."""

    def num_parameters(config: ModelConfig) -> float:
        with torch.device("meta"):
            return Gato(config).num_parameters() / 1e6

    assert num_parameters(PRESETS[name]) == pytest.approx(millions, rel=0.02)
    assert num_parameters(replace(PRESETS[name], positions="rotary")) < 0.98 * millions


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -math.nan, 3.4e38])
def test_weights_that_are_not_finite_are_not_published(value: float) -> None:
    """The last is finite as float32, but not as bfloat16."""
    model = small_model(64)
    snapshot(model)
    with torch.no_grad():
        model.transformer.norm.weight[3] = 3.3e38
        snapshot(model)
        model.transformer.norm.weight[3] = value
    with pytest.raises(ValueError, match=r"transformer\.norm\.weight is not finite"):
        snapshot(model)
