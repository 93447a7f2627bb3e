"""Attention with a distance term over whole rows, a block of queries at a time.

On a GPU by PyTorch's fused attention, the distance term being its bias. On a CPU it has no fused
kernel for a bias that has a gradient, and its stand-in takes twice the time: there the gradient is
written out (docs/adr/0010).

Shape letters: H heads, B rows, L tokens, K width of a head, Q queries of one block, R the keys that
these may see.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

QUERY_BLOCK = 128
"""Queries that attend together: keys after the last of them are never multiplied, and their scores
stay near the core."""


def blocks(num_tokens: int) -> Iterator[tuple[int, int]]:
    """First and last + 1 query of each block."""
    for begin in range(0, num_tokens, QUERY_BLOCK):
        yield begin, min(begin + QUERY_BLOCK, num_tokens)


def shift_distances(flat: Float[Tensor, "H B QxR1"], num_queries: int) -> Float[Tensor, "H B Q R"]:
    """From [i, c], flat, where column c of R + 1 holds distance R - c, to [i, j], the distance from
    query i to key j.

    The queries are the last Q of the R keys. It is a view: each row begins one column further left.
    What lies above the diagonal is junk of the next row.
    """
    return flat[..., num_queries:].unflatten(-1, (num_queries, -1))


class BlockwiseAttention(torch.autograd.Function):
    """softmax(c k + shifted(d r) + mask) v, where r are the distances L..0 of each head."""

    @staticmethod
    def forward(
        ctx: Any,
        content_HBLK: Tensor,
        distance_HBLK: Tensor,
        k_HBLK: Tensor,
        v_HBLK: Tensor,
        r_HKL1: Tensor,
        mask_BLL: Tensor,
    ) -> Tensor:
        H, B, L, K = k_HBLK.shape
        out_BLHK = k_HBLK.new_empty(B, L, H, K)
        weights: list[Tensor] = []
        for begin, end in blocks(L):
            Q = end - begin
            by_distance = (
                distance_HBLK[:, :, begin:end].reshape(H, B * Q, K) @ r_HKL1[:, :, L - end :]
            )
            scores = content_HBLK[:, :, begin:end] @ k_HBLK[:, :, :end].transpose(-1, -2)
            scores += shift_distances(by_distance.view(H, B, -1), Q)
            if len(mask_BLL) == 1:  # the triangle alone: what is left of this block is visible
                scores[..., begin:] += mask_BLL[:, begin:end, begin:end]
            else:
                scores += mask_BLL[:, begin:end, :end]
            weights.append(scores.softmax(-1))
            out_BLHK[:, begin:end] = (weights[-1] @ v_HBLK[:, :, :end]).permute(1, 2, 0, 3)
        ctx.save_for_backward(content_HBLK, distance_HBLK, k_HBLK, v_HBLK, r_HKL1, *weights)
        return out_BLHK

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        content, distance, k, v, r, *weights = ctx.saved_tensors
        H, B, L, K = k.shape
        d_out = gradients[0].permute(2, 0, 1, 3).contiguous()
        d_content, d_distance = torch.empty_like(content), torch.empty_like(distance)
        d_k, d_v, d_r = torch.zeros_like(k), torch.zeros_like(v), torch.zeros_like(r)
        for (begin, end), p in zip(blocks(L), weights, strict=True):
            Q, here, seen = end - begin, slice(begin, end), slice(0, end)
            d_o = d_out[:, :, here]
            d_p = d_o @ v[:, :, seen].transpose(-1, -2)
            d_v[:, :, seen] += p.transpose(-1, -2) @ d_o
            # The gradient of the scores, written where `shift_distances` reads: its rows are those
            # of both terms.
            flat = p.new_zeros(H, B, Q * (end + 1))
            d_scores = shift_distances(flat, Q)
            d_scores.addcmul_(p, d_p.sub_((p * d_p).sum(-1, keepdim=True)))
            d_content[:, :, here] = d_scores @ k[:, :, seen]
            d_k[:, :, seen] += d_scores.transpose(-1, -2) @ content[:, :, here]
            d_by_distance = flat.view(H, B * Q, end + 1)
            d_distance[:, :, here] = (d_by_distance @ r[:, :, L - end :].transpose(-1, -2)).view(
                H, B, Q, K
            )
            d_r[:, :, L - end :] += (
                distance[:, :, here].reshape(H, B * Q, K).transpose(-1, -2) @ d_by_distance
            )
        return d_content, d_distance, d_k, d_v, d_r, None


def fused_in_blocks(
    content_HBLK: Tensor,
    distance_HBLK: Tensor,
    k_HBLK: Tensor,
    v_HBLK: Tensor,
    r_HKR: Tensor,
    mask_BLL: Tensor,
    *,
    dropout: float,
) -> Float[Tensor, "B L H K"]:
    """What `BlockwiseAttention` computes, by PyTorch's fused attention with the distance term as
    its bias."""
    H, B, L, K = k_HBLK.shape
    outs: list[Tensor] = []
    for begin, end in blocks(L):
        queries = distance_HBLK[:, :, begin:end].reshape(H, -1, K)
        by_distance = (queries @ r_HKR[:, :, L - end :]).view(H, B, -1)
        bias = shift_distances(by_distance, end - begin) + mask_BLL[:, begin:end, :end]
        k, v = k_HBLK[:, :, :end], v_HBLK[:, :, :end]
        outs.append(
            F.scaled_dot_product_attention(
                content_HBLK[:, :, begin:end], k, v, attn_mask=bias, dropout_p=dropout, scale=1.0
            )
        )
    return torch.cat(outs, dim=2).permute(1, 2, 0, 3)
