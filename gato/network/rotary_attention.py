"""Attention whose queries and keys are rotated by their positions (RoPE, Su et al. 2021).

Shape letters: B rows, L tokens, D width, H heads, K width of a head, N environments, S new tokens,
Q the last of them, C slots of a cache.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from gato.config import TransformerConfig
from gato.network.asked import at
from gato.network.kv_cache import CachedStep, LayerCache, attend
from gato.network.packed_attention import packed_attention


def rotations(position: Int[Tensor, "*S"], head_width: int) -> Float[Tensor, "*S K"]:
    """Cosines, then sines, of the angles by which a head's pairs are rotated at each position
    (RoPE, section 3.2.2).

    In double precision: an episode may be a million tokens long, where float32 has lost the
    difference of two angles.
    """
    pair = torch.arange(0, head_width, 2, device=position.device, dtype=torch.float64)
    angle = position[..., None].double() * torch.exp(pair * (-math.log(10_000.0) / head_width))
    return torch.cat([angle.cos(), angle.sin()], dim=-1).float()


def rotate(x: Float[Tensor, "*S K"], rotations: Float[Tensor, "*#S K"]) -> Float[Tensor, "*S K"]:
    """Rotate each pair (first half, second half) of `x` by its angle."""
    cos, sin = rotations.to(x.dtype).chunk(2, dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class RotaryAttention(nn.Module):
    """Multi-head attention whose queries and keys are rotated by their positions (RoPE): scores
    depend on differences alone."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.head_width = config.head_width
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.dropout = config.dropout

    def _heads(
        self, x_BLD: Tensor, rotations: Float[Tensor, "*B L K"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        B, L, _ = x_BLD.shape
        qk, v = self.qkv(x_BLD).view(B, L, 3, self.num_heads, self.head_width).split([2, 1], dim=2)
        # Queries and keys are rotated together.
        q, k = rotate(qk, rotations[..., None, None, :]).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v[:, :, 0].transpose(1, 2)

    def forward(
        self,
        x_BLD: Tensor,
        encoding_LK: Tensor,
        mask_BLL: Tensor | None,
        starts: Tensor | None = None,
        asked_n: Tensor | None = None,
    ) -> Tensor:
        """Attend within whole rows: [B, L, D], or [n, D] of the tokens `asked_n`.

        Args:
            x_BLD: Normalised inputs.
            encoding_LK: The rotations of positions 0..L-1.
            mask_BLL: 0 for what a token sees and -inf for the rest; None: causal.
            starts: Instead of a mask: see `gato.network.packed_attention`.
            asked_n: Row * L + position.
        """
        q, k, v = self._heads(x_BLD, encoding_LK)
        if starts is not None:
            return self.out(at(packed_attention(q, k, v, starts).reshape(x_BLD.shape), asked_n))
        mask = None if mask_BLL is None else mask_BLL[:, None].to(q.dtype)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None,
        )
        return self.out(at(out.transpose(1, 2).reshape(x_BLD.shape), asked_n))

    def cache(self, num_envs: int, encoding_CD: Tensor) -> LayerCache:
        """An empty cache of C slots, without distances."""
        shape = (self.num_heads, num_envs, len(encoding_CD), self.head_width)
        return LayerCache(keys=encoding_CD.new_zeros(shape), values=encoding_CD.new_zeros(shape))

    def cached(
        self, x_NSD: Tensor, step: CachedStep, cache: LayerCache, num_asking: int
    ) -> Float[Tensor, "N Q D"]:
        """Write S new tokens, rotated, to the cache; return what the last Q = `num_asking` of them
        read."""
        assert step.rotations is not None
        N, S, D = x_NSD.shape
        q, k, v = (part.transpose(0, 1) for part in self._heads(x_NSD, step.rotations))
        cache.write(step.first_slot, k, v)
        out = attend(cache, step, q[:, :, S - num_asking :] * self.head_width**-0.5)
        return self.out(out.permute(1, 2, 0, 3).reshape(N, num_asking, D))
