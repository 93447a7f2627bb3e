"""Attention whose scores depend on content and on distance (Transformer-XL).

Shape letters: B rows, L tokens, D width, H heads, K width of a head, R distances, N environments,
S new tokens, Q the last of them, C slots of a cache.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gato.config import TransformerConfig
from gato.network.asked import at
from gato.network.block_attention import BlockwiseAttention, fused_in_blocks
from gato.network.kv_cache import CachedStep, LayerCache, attend, in_slot_order


def distance_encoding(num_distances: int, width: int, device: torch.device) -> Float[Tensor, "R D"]:
    """Sinusoids of the distances 0..R-1 (Transformer-XL, Dai et al. 2019, section 3.3)."""
    distance = torch.arange(num_distances, device=device, dtype=torch.float32)
    frequency = torch.exp(
        torch.arange(0, width, 2, device=device, dtype=torch.float32)
        * (-math.log(10_000.0) / width)
    )
    angle = distance[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class RelativeAttention(nn.Module):
    """Multi-head attention whose scores are content plus distance: (q + u) k + (q + v) r(i - j)
    (Transformer-XL)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.head_width = config.head_width
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.distance = nn.Linear(config.width, config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(self.num_heads, 1, self.head_width))
        self.distance_bias = nn.Parameter(torch.zeros(self.num_heads, 1, self.head_width))
        self.dropout = config.dropout

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        B, L, _ = x.shape
        qkv = self.qkv(x).view(B, L, 3, self.num_heads, self.head_width).permute(2, 0, 3, 1, 4)
        return qkv[0], qkv[1], qkv[2]

    def _distances(self, encoding_RD: Tensor) -> Float[Tensor, "H K R"]:
        return self.distance(encoding_RD).view(-1, self.num_heads, self.head_width).permute(1, 2, 0)

    def forward(
        self,
        x_BLD: Tensor,
        encoding_LD: Tensor,
        mask_BLL: Tensor,
        starts: None = None,
        asked_n: Tensor | None = None,
    ) -> Tensor:
        """Attend within whole rows: [B, L, D], or [n, D] of the tokens `asked_n`.

        Args:
            x_BLD: Normalised inputs.
            encoding_LD: Of the distances 0..L-1.
            mask_BLL: 0 for what a token sees and -inf for the rest, always above the diagonal; or
                [1, L, L] for all rows.
            starts: No kernel without a mask takes a term for each distance.
            asked_n: Row * L + position.
        """
        B, L, D = x_BLD.shape
        # [H, B, L, K], heads before rows: one product for each head has the distance terms of all
        # rows.
        qkv = self.qkv(x_BLD).view(B, L, 3, self.num_heads, self.head_width).permute(2, 3, 0, 1, 4)
        q, k, v = qkv.unbind(0)
        scale = self.head_width**-0.5
        for_content = (q + self.content_bias[:, None].to(q.dtype)) * scale
        for_distance = (q + self.distance_bias[:, None].to(q.dtype)) * scale
        # Column c holds distance L - c; the first, of a distance that no row has, is shifted out.
        distances = F.pad(self._distances(encoding_LD.flip(0)), (1, 0))
        for_content, for_distance, k, v, distances = (
            part.contiguous() for part in (for_content, for_distance, k, v, distances)
        )
        dropout = self.dropout if self.training else 0.0
        mask = mask_BLL.to(q.dtype)
        if x_BLD.device.type == "cpu" and not dropout:
            out_BLHK = BlockwiseAttention.apply(for_content, for_distance, k, v, distances, mask)
            assert isinstance(out_BLHK, Tensor)
        else:
            out_BLHK = fused_in_blocks(
                for_content, for_distance, k, v, distances, mask, dropout=dropout
            )
        return self.out(at(out_BLHK.reshape(B, L, D), asked_n))

    def cache(self, num_envs: int, encoding_CD: Tensor) -> LayerCache:
        """An empty cache of C slots, with the distances 0..C-1 projected, and both biases scaled,
        once for all steps."""
        shape = (self.num_heads, num_envs, len(encoding_CD), self.head_width)
        biases = torch.stack([self.content_bias, self.distance_bias])[:, :, None]
        return LayerCache(
            keys=encoding_CD.new_zeros(shape),
            values=encoding_CD.new_zeros(shape),
            distances=in_slot_order(self._distances(encoding_CD)),
            biases=biases * self.head_width**-0.5,
        )

    def cached(
        self, x_NSD: Tensor, step: CachedStep, cache: LayerCache, num_asking: int
    ) -> Float[Tensor, "N Q D"]:
        """Write S new tokens to the cache; return what the last Q = `num_asking` of them read."""
        N, S, D = x_NSD.shape
        qkv = self.qkv(x_NSD).view(N, S, 3, self.num_heads, self.head_width).permute(2, 3, 0, 1, 4)
        cache.write(step.first_slot, qkv[1], qkv[2])
        q = qkv[0][:, :, S - num_asking :]
        assert cache.biases is not None
        for_content, for_distance = torch.add(cache.biases, q, alpha=self.head_width**-0.5)
        out = attend(cache, step, for_content, for_distance)
        return self.out(out.permute(1, 2, 0, 3).reshape(N, num_asking, D))
