"""Attention with a distance term over whole rows, one block of queries at a time.

On a GPU this is PyTorch's fused attention with the distance term as its bias. On a CPU PyTorch has
no fused kernel for a bias with a gradient, and its fallback takes twice the time; there the
gradient is written out (docs/adr/0010).

Shape letters: H heads, B rows, L tokens, L1 = L + 1, K width of a head, Q queries of one block, R
the keys that these may see.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

QUERY_BLOCK = 128
"""Queries of one block. Keys after the last of them are never multiplied, and the block's scores
fit a core's cache."""


def blocks(num_tokens: int) -> Iterator[tuple[int, int]]:
    """The half-open range of queries of each block."""
    for begin in range(0, num_tokens, QUERY_BLOCK):
        yield begin, min(begin + QUERY_BLOCK, num_tokens)


def shift_distances(flat: Float[Tensor, "H B QxR1"], num_queries: int) -> Float[Tensor, "H B Q R"]:
    """From distance terms by column to distance terms by key (Dai et al. 2019, appendix B).

    The queries are the last Q of the R keys. It is a view: dropping the first Q entries makes each
    row begin one column further left. Above the diagonal are the next row's entries, which the mask
    hides.

    Args:
        flat: [i, c] laid flat, Q rows of R + 1 columns; column c has distance R - c.
        num_queries: Q.

    Returns:
        [i, j]: the term of the distance from query i to key j.
    """
    return flat[..., num_queries:].unflatten(-1, (num_queries, -1))


class BlockwiseAttention(torch.autograd.Function):
    """softmax(c k + shifted(d r) + mask) v, with r the distances L..0 of each head."""

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
            # Products of this block's queries with the distances end..0, [H, B Q, end + 1]: one
            # product for each head, because distances are the same in all rows.
            by_distance = (
                distance_HBLK[:, :, begin:end].reshape(H, B * Q, K) @ r_HKL1[:, :, L - end :]
            )
            # Scores [H, B, Q, end]; keys after the block's last query are left out.
            scores = content_HBLK[:, :, begin:end] @ k_HBLK[:, :, :end].transpose(-1, -2)
            scores += shift_distances(by_distance.view(H, B, -1), Q)
            if len(mask_BLL) < B:  # causal alone: all keys before the block are visible
                scores[..., begin:] += mask_BLL[:, begin:end, begin:end]
            else:
                scores += mask_BLL[:, begin:end, :end]
            weights.append(scores.softmax(-1))
            out_BLHK[:, begin:end] = (weights[-1] @ v_HBLK[:, :, :end]).permute(1, 2, 0, 3)
        ctx.save_for_backward(
            content_HBLK, distance_HBLK, k_HBLK, v_HBLK, r_HKL1, out_BLHK, *weights
        )
        return out_BLHK

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        content, distance, k, v, r, out_BLHK, *weights = ctx.saved_tensors
        H, B, L, K = k.shape
        # sum(p dp) over keys is sum(do o) over the head (Dao et al. 2022, B.2): fewer numbers.
        sums_HBL1 = (gradients[0] * out_BLHK).sum(-1, keepdim=True).permute(2, 0, 1, 3)
        d_out = gradients[0].permute(2, 0, 1, 3).contiguous()
        d_content, d_distance = torch.empty_like(content), torch.empty_like(distance)
        d_k, d_v, d_r = torch.zeros_like(k), torch.zeros_like(v), torch.zeros_like(r)
        for (begin, end), p in zip(blocks(L), weights, strict=True):
            Q, here, seen = end - begin, slice(begin, end), slice(0, end)
            # The usual gradient of attention: dp = do v^T, dv = p^T do, ds = p (dp - sum(p dp)).
            d_o = d_out[:, :, here]
            d_p = d_o @ v[:, :, seen].transpose(-1, -2)
            d_v[:, :, seen] += p.transpose(-1, -2) @ d_o
            # ds is written through the view of `shift_distances`. It is then both the gradient of
            # the content term [H, B, Q, end] and, read flat, that of the distance term before its
            # shift [H, B, Q, end + 1]; entries that the view does not reach stay 0.
            flat = p.new_zeros(H, B, Q * (end + 1))
            d_scores = shift_distances(flat, Q)
            d_scores.addcmul_(p, d_p.sub_(sums_HBL1[:, :, here]))
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
    """The same result by PyTorch's fused attention, with the distance term as its bias."""
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
