"""Packed rows without a mask: sequences are found right, and the kernel is asked for the same
values that a mask gives.

The kernel itself runs on GPUs only; here a plain implementation of what it promises stands in its
place.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import varlen

from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.network.packed_attention import has_kernel, sequence_starts
from tests.gato.models import GAME, ROBOT, small_model
from tests.gato.test_training import packed


def plain_varlen(
    q: Tensor, k: Tensor, v: Tensor, q_starts: Tensor, k_starts: Tensor, max_q: int, max_k: int,
    *, window_size: tuple[int, int],
) -> Tensor:  # fmt: skip
    """Causal attention of each sequence alone; tensors [T, H, K]."""
    assert window_size == (-1, 0)
    assert torch.equal(q_starts, k_starts)
    assert q_starts.dtype == torch.int32
    assert q_starts[-1] == len(q)
    outs: list[Tensor] = []
    for begin, end in zip(q_starts.tolist(), q_starts.tolist()[1:], strict=False):
        assert end - begin <= max_q == max_k
        parts = (part[begin:end].transpose(0, 1) for part in (q, k, v))
        outs.append(F.scaled_dot_product_attention(*parts, is_causal=True).transpose(0, 1))
    return torch.cat(outs)


@pytest.mark.parametrize("task", [ROBOT, GAME], ids=["robot", "game"])
def test_losses_and_gradients_are_those_of_a_mask(
    task: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", plain_varlen)
    model = Gato(replace(small_model(64, positions="rotary").config, stochastic_depth=0.0))
    lengths = [[2, 1], [1, 2], [3]] if task is ROBOT else [[1, 1], [2], [1]]
    batch = packed(task, model, lengths, row_tokens=40)  # pyright: ignore[reportArgumentType]
    assert not batch.one_segment
    results: list[tuple[Tensor, list[Tensor]]] = []
    for is_packed in (False, True):
        model.transformer.is_packed = is_packed
        torch.manual_seed(0)
        losses = next_token_loss(model, batch).losses
        model.zero_grad()
        losses.mean().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append((losses.detach(), gradients))
    torch.testing.assert_close(results[1][0], results[0][0])
    for packed_gradient, masked_gradient in zip(results[1][1], results[0][1], strict=True):
        torch.testing.assert_close(packed_gradient, masked_gradient, atol=1e-5, rtol=1e-4)


def test_sequences_begin_where_the_segment_changes() -> None:
    segment = np.array([[1, 1, 2, 2], [1, 0, 0, 0], [3, 3, 3, 3]])
    starts = sequence_starts(segment)
    assert starts.tolist() == [0, 2, 4, 5, 8, 12, 12, 12]
    full = sequence_starts(np.array([[1, 2, 3]]))
    assert full.tolist() == [0, 1, 2, 3]


def test_a_cpu_and_float32_have_no_kernel() -> None:
    assert not has_kernel(torch.device("cpu"), torch.bfloat16)
    assert not has_kernel(torch.device("cuda"), torch.float32)
    assert has_kernel(torch.device("cuda"), torch.bfloat16)


def test_positions_of_transformer_xl_keep_their_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Tensor:
        raise AssertionError("no kernel takes a term for each distance")

    monkeypatch.setattr(varlen, "varlen_attn", never)
    model = small_model(64)
    model.transformer.is_packed = True
    batch = packed(ROBOT, model, [[1, 2]], row_tokens=40)
    assert isinstance(batch, TensorBatch)
    assert next_token_loss(model, batch).losses.isfinite().all()
