"""The cached step of small models in NumPy (docs/adr/0051): the same sums as `Transformer.cached`,
whose operations on a few rows take PyTorch longer to start than to compute.

Shape letters: N environments, S new tokens, Q the last of them, M rows = N S or N Q, D width,
H heads, K width of a head, F hidden units, C slots of the cache, W = 2 C.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gato.network.block_weights import BlockWeights
from gato.network.kv_cache import CachedStep, LayerCache
from gato.network.relative_attention import RelativeAttention

Array = np.ndarray
MOST_PARAMETERS = 4_000_000
"""Of a model whose steps are NumPy's: of larger ones the products take most of the time."""


def block_weights(
    *,
    attention_norm: nn.LayerNorm,
    attention: nn.Module,
    feedforward_norm: nn.LayerNorm,
    gate_and_value: nn.Module,
    feedforward_out: nn.Module,
) -> BlockWeights | None:
    """The weights of a block of these layers; None if they are not of float32 on a CPU, with
    Transformer-XL positions and plain linear layers."""
    if not isinstance(attention, RelativeAttention):
        return None
    layers = (attention.qkv, attention.out, gate_and_value, feedforward_out)
    plain = [layer for layer in layers if type(layer) is nn.Linear and _is_plain(layer)]
    if len(plain) < len(layers):
        return None
    of_qkv, of_out, of_gate, of_feedforward = plain
    qkv, qkv_bias = _after_norm(attention_norm, of_qkv)
    width, scale = attention.num_heads * attention.head_width, attention.head_width**-0.5
    qkv[:, :width] *= scale
    qkv_bias[:width] *= scale
    gate, gate_bias = _after_norm(feedforward_norm, of_gate)
    return BlockWeights(
        qkv=qkv,
        qkv_bias=qkv_bias,
        out=_array(of_out.weight.T),
        gate_and_value=gate,
        gate_and_value_bias=gate_bias,
        feedforward_out=_array(of_feedforward.weight.T),
        feedforward_bias=of_feedforward.bias.detach().numpy().copy(),
        epsilons=(attention_norm.eps, feedforward_norm.eps),
    )


def _is_plain(linear: nn.Linear) -> bool:
    weight = linear.weight
    # PyTorch has no public name for them.
    has_hooks = linear._forward_hooks or linear._forward_pre_hooks  # pyright: ignore[reportPrivateUsage]
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and not has_hooks


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().numpy())


def _after_norm(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[Array, Array]:
    """Weight [I, O] and bias [O] of a norm's scale and shift followed by a linear layer."""
    weight_IO = linear.weight.detach().numpy().T
    bias_O = norm.bias.detach().numpy() @ weight_IO
    own = cast("Tensor | None", linear.bias)
    if own is not None:
        bias_O = bias_O + own.detach().numpy()
    return np.ascontiguousarray(norm.weight.detach().numpy()[:, None] * weight_IO), bias_O


def _normalised(x_MD: Array, epsilon: float) -> Array:
    """Rows of mean 0 and variance 1."""
    D = x_MD.shape[1]
    centred_MD = x_MD - (x_MD.sum(1) / D)[:, None]
    variance_M = np.vecdot(centred_MD, centred_MD) / D
    centred_MD /= np.sqrt(variance_M + epsilon)[:, None]
    return centred_MD


def _distance_terms(queries_HMK: Array, distances_HKW: Array, last_slot: int, Q: int) -> Array:
    """[H, N, Q, C]; see `gato.network.kv_cache.distance_terms`."""
    (H, M, _), C = queries_HMK.shape, distances_HKW.shape[2] // 2
    begin = C - 1 - last_slot
    wide = queries_HMK @ distances_HKW[:, :, begin : begin + C + Q - 1]
    by_head, by_query, by_column = wide.strides
    strides = (by_head, by_query * Q, by_query - by_column, by_column)
    # A view without a copy: query i of Q begins Q-1-i columns later.
    return np.ndarray((H, M // Q, Q, C), wide.dtype, wide, (Q - 1) * by_column, strides)


def _attend(
    cache: LayerCache, first_slot: int, mask_NQC: Array, qkv_MD: Array, num_asking: int
) -> Array:
    """What the last Q = `num_asking` new tokens of each environment read: [N Q, D]."""
    assert cache.biases is not None
    assert cache.distances is not None
    H, N, _, K = cache.keys.shape
    S = len(qkv_MD) // N
    qkv = qkv_MD.reshape(N, S, 3, H, K).transpose(2, 3, 0, 1, 4)
    keys, values = cache.keys.numpy(), cache.values.numpy()
    slots = slice(first_slot, first_slot + S)
    keys[:, :, slots], values[:, :, slots] = qkv[1], qkv[2]
    for_both = np.add(qkv[0, :, :, S - num_asking :], cache.biases.numpy(), order="C")
    scores = for_both[0] @ keys.swapaxes(2, 3)
    scores += _distance_terms(
        for_both[1].reshape(H, -1, K), cache.distances.numpy(), first_slot + S - 1, num_asking
    )
    scores += mask_NQC
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    read = scores @ values
    read /= scores.sum(-1, keepdims=True)
    return read.transpose(1, 2, 0, 3).reshape(-1, H * K)


@np.errstate(under="ignore")
def numpy_cached(
    x_NSD: Tensor, step: CachedStep, caches: Sequence[LayerCache], norm: nn.LayerNorm
) -> Tensor:
    """As `Transformer.cached`, of layers that have `BlockWeights`, where no row sees a prompt:
    the hidden state [N, D] after the last token."""
    N, S, D = x_NSD.shape
    x, mask_NSC = x_NSD.numpy().reshape(N * S, D), step.mask.numpy()
    for index, cache in enumerate(caches, start=1):
        weights = cache.weights
        assert weights is not None
        first, second = weights.epsilons
        num_asking = 1 if index == len(caches) else S
        qkv = _normalised(x, first) @ weights.qkv
        qkv += weights.qkv_bias
        x = x if num_asking == S else x[S - 1 :: S]
        mask_NQC = mask_NSC[:, S - num_asking :]
        x = x + _attend(cache, step.first_slot, mask_NQC, qkv, num_asking) @ weights.out
        hidden = _normalised(x, second) @ weights.gate_and_value
        hidden += weights.gate_and_value_bias
        middle = hidden.shape[1] // 2
        gated = F.gelu(torch.from_numpy(hidden[:, :middle])).numpy()
        gated *= hidden[:, middle:]
        x += gated @ weights.feedforward_out
        x += weights.feedforward_bias
    x = x.reshape(N, -1, D)[:, -1]
    return norm(torch.from_numpy(x))
