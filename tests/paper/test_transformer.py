"""Section 2.2 and table 5: the decoder."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gato.config import PRESETS
from gato.network.model import Gato, next_token_loss
from tests.paper.tasks import SMALL, STATE, batch_of, model_of, window_of

TABLE_5 = {
    "1.18b": (24, 16, 2048, 8192, 128),
    "364m": (12, 12, 1536, 6144, 128),
    "79m": (8, 24, 768, 3072, 32),
}
"""Blocks, heads, width, feed-forward hidden size, key and value size."""


@pytest.mark.parametrize("name", TABLE_5)
def test_the_presets_have_the_sizes_of_table_5(name: str) -> None:
    """Table 5: blocks, attention heads, layer width, feed-forward hidden size; heads times key size
    is the width."""
    layers, heads, width, feedforward, key_size = TABLE_5[name]
    config = PRESETS[name]
    assert (config.num_layers, config.num_heads, config.width, config.feedforward) == (
        layers,
        heads,
        width,
        feedforward,
    )
    assert config.width // config.num_heads == key_size
    assert heads * key_size == width
    assert config.context_tokens == 1024
    with torch.device("meta"):
        model = Gato(config)
    assert len(model.transformer.blocks) == layers


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    """Table 5: heads times key size is the width."""
    with pytest.raises(ValueError, match="not a multiple of num_heads"):
        model_of(num_heads=5)


def test_the_head_is_the_embedding_table() -> None:
    """Table 5: shared embedding: one storage looks ids up and makes logits, and has both
    gradients."""
    model = model_of()
    tables = [p for p in model.parameters() if SMALL.layout.vocab_size in p.shape]
    assert len(tables) == 1
    assert tables[0] is model.embedding.table.weight
    hidden = torch.randn(2, SMALL.width)
    torch.testing.assert_close(model.logits(hidden), hidden @ tables[0].T)
    assert model.embedding.weight.data_ptr() == tables[0].data_ptr()
    next_token_loss(model, batch_of(STATE, model, [window_of(STATE, 2)])).mean.backward()
    assert tables[0].grad is not None
    # as the head: all; as inputs: few
    assert tables[0].grad.abs().sum(-1).count_nonzero() == SMALL.layout.vocab_size


def run(model: Gato, num_steps: int = 3) -> tuple[Tensor, Tensor]:
    """What goes into the decoder and what comes out of it, [L, D] each, for one window."""
    seen: list[Tensor] = []
    hook = model.transformer.register_forward_pre_hook(
        lambda _, arguments: seen.append(arguments[0])
    )
    with torch.no_grad():
        out = model(batch_of(STATE, model, [window_of(STATE, num_steps)]))
    hook.remove()
    return seen[0][0], out[0]


def layer_norm(x: Tensor, norm: torch.nn.Module) -> Tensor:
    """LayerNorm, written out."""
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * norm.get_parameter("weight") + norm.get_parameter("bias")


def silence(model: Gato, *names: str) -> None:
    with torch.no_grad():
        for name, parameter in model.transformer.named_parameters():
            if any(f".{part}." in name for part in names):
                parameter.zero_()


def test_norms_stand_before_the_sub_layers() -> None:
    """Table 5: pre-norm: where the sub-layers say nothing, the residual stream passes through
    unchanged to the last norm."""
    model = model_of()
    silence(model, "attention.out", "feedforward_out")
    x, out = run(model)
    torch.testing.assert_close(out, layer_norm(x, model.transformer.norm), atol=1e-4, rtol=1e-4)


def test_the_feed_forward_layer_is_a_geglu() -> None:
    """Table 5: x + W2 (GELU(a) * b), where W1 norm(x) = (a, b) and each half has half of the hidden
    size."""
    model = model_of(num_layers=1)
    silence(model, "attention.out")
    x, out = run(model)
    parameters = dict(model.transformer.blocks[0].named_parameters())
    assert parameters["gate_and_value.weight"].shape == (SMALL.feedforward, SMALL.width)
    assert parameters["feedforward_out.weight"].shape == (SMALL.width, SMALL.feedforward // 2)
    with torch.no_grad():
        normed = layer_norm(x, model.transformer.blocks[0].get_submodule("feedforward_norm"))
        gate, value = F.linear(
            normed, parameters["gate_and_value.weight"], parameters["gate_and_value.bias"]
        ).chunk(2, -1)
        gelu = 0.5 * gate * (1 + torch.erf(gate / math.sqrt(2)))
        x = x + F.linear(
            gelu * value, parameters["feedforward_out.weight"], parameters["feedforward_out.bias"]
        )
        torch.testing.assert_close(out, layer_norm(x, model.transformer.norm), atol=1e-4, rtol=1e-4)


def test_attention_is_multi_head_and_causal_with_relative_positions() -> None:
    """Section 2.2: a decoder-only transformer. Written out, token by token and head by head;
    positions are ADR 4's."""
    model = model_of(num_layers=1)
    silence(model, "feedforward_out")
    x, out = run(model)
    block = model.transformer.blocks[0]
    p = {name: value.detach() for name, value in block.named_parameters()}
    H, K, D = SMALL.num_heads, SMALL.width // SMALL.num_heads, SMALL.width
    normed = layer_norm(x, block.get_submodule("attention_norm")).detach()
    q, k, v = (normed @ part.T for part in p["attention.qkv.weight"].split(D))
    frequency = 10_000.0 ** (-torch.arange(0, D, 2) / D)
    attended = torch.zeros_like(x)
    for head in range(H):
        mine = slice(head * K, head * K + K)
        u, w = p["attention.content_bias"][head, 0], p["attention.distance_bias"][head, 0]
        for i in range(len(x)):
            angle = torch.arange(i, -1, -1)[:, None] * frequency  # distances i - j of j = 0..i
            r = (torch.cat([angle.sin(), angle.cos()], 1) @ p["attention.distance.weight"].T)[
                :, mine
            ]
            scores = (k[: i + 1, mine] @ (q[i, mine] + u) + r @ (q[i, mine] + w)) / math.sqrt(K)
            attended[i, mine] = scores.softmax(0) @ v[: i + 1, mine]
    expected = layer_norm(
        x + attended @ p["attention.out.weight"].T, model.transformer.norm
    ).detach()
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def outcomes(model: Gato, rows: int = 600) -> list[int]:
    """How often each different last hidden state comes out, of many rows that are all the same."""
    batch = batch_of(STATE, model, [window_of(STATE, 1)] * rows)
    with torch.no_grad():
        last = model(batch)[:, -1].double()
    _, counts = (last / 1e-3).round().unique(dim=0, return_counts=True)
    return sorted(counts.tolist())


def test_stochastic_depth_leaves_out_both_sub_layers_in_training_alone() -> None:
    """Appendix D: each of the two sub-layers of a block is left out by itself, for each sequence;
    never in evaluation."""
    torch.manual_seed(0)
    model = model_of(num_layers=1, stochastic_depth=0.5)
    assert outcomes(model) == [600]
    counts = outcomes(model.train())
    assert len(counts) == 4  # attention or not, feed-forward or not
    assert counts[0] > 100


def test_stochastic_depth_is_a_tenth_in_the_papers_presets() -> None:
    """Appendix D: 0.1 in pre-training."""
    torch.manual_seed(0)
    assert {PRESETS[name].stochastic_depth for name in TABLE_5} == {0.1}
    counts = outcomes(model_of(num_layers=1, stochastic_depth=0.1).train())
    assert counts[-1] / 600 == pytest.approx(0.81, abs=0.06)


def test_what_stochastic_depth_keeps_is_scaled_so_that_the_mean_stays() -> None:
    """Huang et al. 2016: a kept sub-layer counts 1 / (1 - p) in training, so that evaluation sees
    the expected sum."""
    torch.manual_seed(0)
    model = model_of(num_layers=1, stochastic_depth=0.5)
    silence(model, "attention.out")
    seen: list[Tensor] = []
    model.transformer.norm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    batch = batch_of(STATE, model, [window_of(STATE, 1)] * 600)
    with torch.no_grad():
        model(batch)
        model.train()
        model(batch)
    whole, sampled = seen[0][0], seen[1]
    torch.testing.assert_close(sampled.mean(0), whole, atol=0.15 * float(whole.abs().max()), rtol=0)


def test_dropout_is_off_in_pre_training_and_in_evaluation() -> None:
    """Appendices D and E: dropout 0.1 is for fine-tuning; it is a setting of the model, 0 in the
    presets."""
    torch.manual_seed(0)
    assert {PRESETS[name].dropout for name in TABLE_5} == {0.0}
    model = model_of(dropout=0.1)
    assert outcomes(model, rows=8) == [8]
    assert outcomes(model.train(), rows=8) == [1] * 8
    assert outcomes(model_of().train(), rows=8) == [8]
