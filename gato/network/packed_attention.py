"""Causal attention over packed rows without a mask, by PyTorch's kernel for sequences of any
length. It runs on GPUs, in 16 bits.

Shape letters: B rows, L tokens, H heads, K width of a head, S sequences.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor
from torch.nn.attention import varlen


def sequence_starts(segment_BL: Integer[np.ndarray, "B L"]) -> Int[np.ndarray, " S1"]:
    """Where each sequence of a batch begins, of all rows one after the other, and at last the end.

    A sequence is what lies between two changes of the segment: padding is one, too, seen by nobody
    else. The end is repeated up to a power of two, so that few lengths occur: each other length is
    another graph for a compiler.
    """
    changes = np.ones(segment_BL.shape, bool)
    changes[:, 1:] = segment_BL[:, 1:] != segment_BL[:, :-1]
    starts = np.flatnonzero(changes)
    length = 1 << len(starts).bit_length()
    return np.pad(starts, (0, length - len(starts)), constant_values=segment_BL.size).astype(
        np.int32
    )


def packed_attention(
    q_BHLK: Float[Tensor, "B H L K"],
    k_BHLK: Float[Tensor, "B H L K"],
    v_BHLK: Float[Tensor, "B H L K"],
    starts: Int[Tensor, " S1"],
) -> Float[Tensor, "B L H K"]:
    """Each token sees itself and the earlier ones of its sequence; `starts`: see
    `sequence_starts`."""
    B, H, L, K = q_BHLK.shape
    q, k, v = (part.transpose(1, 2).reshape(B * L, H, K) for part in (q_BHLK, k_BHLK, v_BHLK))
    out = varlen.varlen_attn(q, k, v, starts, starts, L, L, window_size=(-1, 0))
    assert isinstance(out, Tensor)
    return out.view(B, L, H, K)


def has_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel can be expected here."""
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
