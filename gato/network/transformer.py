"""The decoder: pre-norm blocks of GEGLU and attention by relative position, so that a cache of keys
can roll.

Shape letters: B rows, L tokens, D width, H heads, K width of a head, R distances, N environments, S
new tokens, Q the last of them, C slots of a cache.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gato.config import TransformerConfig
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


def rotations(position: Int[Tensor, "*S"], head_width: int) -> Float[Tensor, "*S K"]:
    """Cosines, then sines, of the angles by which a head's pairs are turned at each position (RoPE,
    section 3.2.2).

    In double precision: an episode may be a million tokens long, where float32 has lost the
    difference of two angles.
    """
    pair = torch.arange(0, head_width, 2, device=position.device, dtype=torch.float64)
    angle = position[..., None].double() * torch.exp(pair * (-math.log(10_000.0) / head_width))
    return torch.cat([angle.cos(), angle.sin()], dim=-1).float()


def rotate(x: Float[Tensor, "*S K"], rotations: Float[Tensor, "*#S K"]) -> Float[Tensor, "*S K"]:
    """Each pair (first half, second half) of `x` turned by its angle."""
    cos, sin = rotations.to(x.dtype).chunk(2, dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


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

    def forward(self, x_BLD: Tensor, encoding_LD: Tensor, mask_BLL: Tensor) -> Tensor:
        """Whole rows. `encoding_LD` has the distances 0..L-1, `mask_BLL` is 0 where visible and
        -inf elsewhere, which it must be above the diagonal; one row of it may serve all."""
        B, L, D = x_BLD.shape
        # Heads before rows: one product a head gives the distance terms of all rows.
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
        return self.out(out_BLHK.reshape(B, L, D))

    def cache(self, num_envs: int, encoding_CD: Tensor) -> LayerCache:
        """An empty cache of C slots, with the distances 0..C-1 projected once for all steps."""
        shape = (self.num_heads, num_envs, len(encoding_CD), self.head_width)
        return LayerCache(
            keys=encoding_CD.new_zeros(shape),
            values=encoding_CD.new_zeros(shape),
            distances=in_slot_order(self._distances(encoding_CD)),
        )

    def cached(
        self, x_NSD: Tensor, step: CachedStep, cache: LayerCache, num_asking: int
    ) -> Float[Tensor, "N Q D"]:
        """Write new tokens to the cache; what the last Q = `num_asking` of them see in it."""
        N, S, D = x_NSD.shape
        qkv = self.qkv(x_NSD).view(N, S, 3, self.num_heads, self.head_width).permute(2, 3, 0, 1, 4)
        cache.write(step.first_slot, qkv[1], qkv[2])
        q = qkv[0][:, :, S - num_asking :]
        scale = self.head_width**-0.5
        for_content = (q + self.content_bias[:, None]) * scale
        for_distance = (q + self.distance_bias[:, None]) * scale
        out = attend(cache, step, for_content, for_distance)
        return self.out(out.permute(1, 2, 0, 3).reshape(N, num_asking, D))


class RotaryAttention(nn.Module):
    """Multi-head attention whose queries and keys are turned by their positions (RoPE): scores know
    differences alone."""

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
        # Queries and keys are turned in one go.
        q, k = rotate(qk, rotations[..., None, None, :]).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v[:, :, 0].transpose(1, 2)

    def forward(self, x_BLD: Tensor, encoding_LK: Tensor, mask_BLL: Tensor | None) -> Tensor:
        """Whole rows. `encoding_LK` has the rotations of positions 0..L-1; no mask: each token sees
        all before it."""
        q, k, v = self._heads(x_BLD, encoding_LK)
        mask = None if mask_BLL is None else mask_BLL[:, None].to(q.dtype)
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None,
        )
        return self.out(out.transpose(1, 2).reshape(x_BLD.shape))

    def cache(self, num_envs: int, encoding_CD: Tensor) -> LayerCache:
        """An empty cache of C slots, without distances."""
        shape = (self.num_heads, num_envs, len(encoding_CD), self.head_width)
        return LayerCache(keys=encoding_CD.new_zeros(shape), values=encoding_CD.new_zeros(shape))

    def cached(
        self, x_NSD: Tensor, step: CachedStep, cache: LayerCache, num_asking: int
    ) -> Float[Tensor, "N Q D"]:
        """Write new tokens, turned, to the cache; what the last Q = `num_asking` of them see in
        it."""
        assert step.rotations is not None
        N, S, D = x_NSD.shape
        q, k, v = (part.transpose(0, 1) for part in self._heads(x_NSD, step.rotations))
        cache.write(step.first_slot, k, v)
        out = attend(cache, step, q[:, :, S - num_asking :] * self.head_width**-0.5)
        return self.out(out.permute(1, 2, 0, 3).reshape(N, num_asking, D))


class Block(nn.Module):
    """One pre-norm block: attention, then GEGLU (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = (
            RotaryAttention(config) if config.positions == "rotary" else RelativeAttention(config)
        )
        self.feedforward_norm = nn.LayerNorm(config.width)
        self.gate_and_value = nn.Linear(config.width, config.feedforward)
        self.feedforward_out = nn.Linear(config.feedforward // 2, config.width)
        self.dropout = config.dropout
        self.stochastic_depth = config.stochastic_depth

    def _feedforward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_and_value(self.feedforward_norm(x)).chunk(2, dim=-1)
        return self.feedforward_out(F.gelu(gate) * value)

    def _residual(self, x: Tensor, update: Tensor) -> Tensor:
        update = F.dropout(update, self.dropout, self.training)
        if self.training and self.stochastic_depth:
            keep = 1.0 - self.stochastic_depth
            scale = (
                torch.empty(len(x), 1, 1, device=x.device, dtype=x.dtype).bernoulli_(keep) / keep
            )
            return torch.addcmul(x, update.to(x.dtype), scale)
        return x + update

    def forward(self, x_BLD: Tensor, encoding: Tensor, mask_BLL: Tensor | None) -> Tensor:
        x = self._residual(x_BLD, self.attention(self.attention_norm(x_BLD), encoding, mask_BLL))
        return self._residual(x, self._feedforward(x))

    def cached(
        self, x_NSD: Tensor, step: CachedStep, cache: LayerCache, num_asking: int
    ) -> Float[Tensor, "N Q D"]:
        seen = self.attention.cached(self.attention_norm(x_NSD), step, cache, num_asking)
        x = x_NSD[:, -num_asking:] + seen
        return x + self._feedforward(x)


class Transformer(nn.Module):
    """A stack of blocks and the last norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        """Keep only what enters each block and compute the rest again for the gradient: a third
        more time, least memory."""
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm = nn.LayerNorm(config.width)
        for name, parameter in self.named_parameters():
            if name.endswith("weight") and parameter.ndim == 2:
                into_residual = name.endswith(("attention.out.weight", "feedforward_out.weight"))
                std = parameter.shape[1] ** -0.5 / (
                    math.sqrt(2 * config.num_layers) if into_residual else 1.0
                )
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias") and parameter.ndim == 1:
                nn.init.zeros_(parameter)

    def encoding(self, num_tokens: int, device: torch.device) -> Tensor:
        """What a block's forward needs of positions: encoded distances [L, D], or rotations [L, K]
        of 0..L-1."""
        if self.config.positions == "rotary":
            return rotations(torch.arange(num_tokens, device=device), self.config.head_width)
        return distance_encoding(num_tokens, self.config.width, device)

    def _mask(self, segment_BL: Tensor, one_segment: bool, dtype: torch.dtype) -> Tensor | None:
        """0 where a token sees another and -inf elsewhere, [B, L, L] or [1, L, L], once for all
        layers."""
        if one_segment and self.config.positions == "rotary":
            return None
        L = segment_BL.shape[1]
        visible = torch.ones(1, L, L, dtype=torch.bool, device=segment_BL.device).tril()
        if not one_segment:
            visible = visible & (segment_BL[:, :, None] == segment_BL[:, None, :])
        return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
            ~visible, -math.inf
        )

    def forward(
        self,
        x_BLD: Float[Tensor, "B L D"],
        segment_BL: Int[Tensor, "B L"],
        *,
        one_segment: bool = False,
    ) -> Float[Tensor, "B L D"]:
        """Each token sees itself and the earlier tokens of its segment.

        `one_segment` promises that each row is one segment, padding after it at most: no segments
        need be compared. What padding then sees is nobody's concern, since nothing sees padding.
        """
        kind = x_BLD.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_BLD.dtype
        mask = self._mask(segment_BL, one_segment, dtype)
        encoding = self.encoding(x_BLD.shape[1], x_BLD.device).to(dtype)
        for block in self.blocks:
            if self.activation_checkpointing and self.training:
                x_BLD = checkpoint(block, x_BLD, encoding, mask, use_reentrant=False)
            else:
                x_BLD = block(x_BLD, encoding, mask)
        return self.norm(x_BLD)

    def caches(self, num_envs: int, num_slots: int) -> list[LayerCache]:
        """Empty caches of all layers, made for the weights of this moment."""
        like = self.norm.weight
        encoding = distance_encoding(num_slots, self.config.width, like.device).to(like.dtype)
        out: list[LayerCache] = []
        for block in self.blocks:
            assert isinstance(block, Block)
            out.append(block.attention.cache(num_envs, encoding))
        return out

    def cached(
        self, x_NSD: Float[Tensor, "N S D"], step: CachedStep, caches: list[LayerCache]
    ) -> Float[Tensor, "N D"]:
        """Write S new tokens to the caches; the hidden state after the last of them.

        The last block has nothing to compute for the others but their keys and values.
        """
        if self.config.positions == "rotary":
            step = replace(step, rotations=rotations(step.position, self.config.head_width))
        for index, (block, cache) in enumerate(zip(self.blocks, caches, strict=True), start=1):
            assert isinstance(block, Block)
            x_NSD = block.cached(x_NSD, step, cache, 1 if index == len(caches) else x_NSD.shape[1])
        return self.norm(x_NSD[:, -1])
