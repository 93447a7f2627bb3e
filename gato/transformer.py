"""The decoder: pre-norm blocks of GEGLU and attention by relative position, so that a cache of keys can roll.

Shape letters: B rows, L tokens, D width, H heads, K width of a head, R distances, N environments, S new tokens,
Q the last of them, C slots of a cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from gato.cache import CachedStep, LayerCache, attend, in_slot_order


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Sizes of the decoder (paper table 5)."""

    num_layers: int
    num_heads: int
    width: int
    feedforward: int
    """Hidden units before the GEGLU halves them: the reading of table 5 that gives the paper's parameter counts."""
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    """Probability of leaving out a sub-layer for a row, in training (paper appendix D)."""

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.width % 2 or self.feedforward % 2:
            raise ValueError(f"width {self.width} and feedforward {self.feedforward} must be even")
        if not (0.0 <= self.dropout < 1.0 and 0.0 <= self.stochastic_depth < 1.0):
            raise ValueError(f"dropout {self.dropout} and stochastic_depth {self.stochastic_depth} must be in [0, 1)")


def distance_encoding(num_distances: int, width: int, device: torch.device) -> Float[Tensor, "R D"]:
    """Sinusoids of the distances 0..R-1 (Transformer-XL, Dai et al. 2019, section 3.3)."""
    distance = torch.arange(num_distances, device=device, dtype=torch.float32)
    frequency = torch.exp(torch.arange(0, width, 2, device=device, dtype=torch.float32) * (-math.log(10_000.0) / width))
    angle = distance[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def shift_distances(scores_BHLR: Float[Tensor, "B H L R"]) -> Float[Tensor, "B H L R"]:
    """From [i, d], where column d holds distance R-1-d, to [i, j] = distance i-j. What lies above the diagonal is junk."""
    B, H, L, R = scores_BHLR.shape
    return F.pad(scores_BHLR, (1, 0)).view(B, H, R + 1, L)[:, :, 1:].view(B, H, L, R)


class RelativeAttention(nn.Module):
    """Multi-head attention whose scores are content plus distance: (q + u) k + (q + v) r(i - j)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.head_width = config.width // config.num_heads
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
        """Whole rows. `encoding_LD` has the distances 0..L-1, `mask_BLL` is 0 where visible and -inf elsewhere."""
        q, k, v = self._heads(x_BLD)
        content = (q + self.content_bias) @ k.transpose(-1, -2)
        distance = (q + self.distance_bias) @ self._distances(encoding_LD.flip(0))
        scores = (content + shift_distances(distance)) * self.head_width**-0.5 + mask_BLL[:, None]
        weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
        return self.out((weights.to(v.dtype) @ v).transpose(1, 2).reshape(x_BLD.shape))

    def cache(self, num_envs: int, encoding_CD: Tensor) -> LayerCache:
        """An empty cache of C slots, with the distances 0..C-1 projected once for all steps."""
        shape = (self.num_heads, num_envs, len(encoding_CD), self.head_width)
        return LayerCache(
            keys=encoding_CD.new_zeros(shape),
            values=encoding_CD.new_zeros(shape),
            distances=in_slot_order(self._distances(encoding_CD)),
        )

    def cached(self, x_NSD: Tensor, step: CachedStep, cache: LayerCache, num_asking: int) -> Float[Tensor, "N Q D"]:
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


class Block(nn.Module):
    """One pre-norm block: attention, then GEGLU (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = RelativeAttention(config)
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
            update = update * torch.empty(len(x), 1, 1, device=x.device).bernoulli_(keep) / keep
        return x + update

    def forward(self, x_BLD: Tensor, encoding_LD: Tensor, mask_BLL: Tensor) -> Tensor:
        x = self._residual(x_BLD, self.attention(self.attention_norm(x_BLD), encoding_LD, mask_BLL))
        return self._residual(x, self._feedforward(x))

    def cached(self, x_NSD: Tensor, step: CachedStep, cache: LayerCache, num_asking: int) -> Float[Tensor, "N Q D"]:
        seen = self.attention.cached(self.attention_norm(x_NSD), step, cache, num_asking)
        x = x_NSD[:, -num_asking:] + seen
        return x + self._feedforward(x)


class Transformer(nn.Module):
    """A stack of blocks and the last norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm = nn.LayerNorm(config.width)
        for name, parameter in self.named_parameters():
            if name.endswith("weight") and parameter.ndim == 2:
                into_residual = name.endswith(("attention.out.weight", "feedforward_out.weight"))
                std = parameter.shape[1] ** -0.5 / (math.sqrt(2 * config.num_layers) if into_residual else 1.0)
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias") and parameter.ndim == 1:
                nn.init.zeros_(parameter)

    def forward(self, x_BLD: Float[Tensor, "B L D"], segment_BL: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """Each token sees itself and the earlier tokens of its segment."""
        L = x_BLD.shape[1]
        causal = torch.ones(L, L, dtype=torch.bool, device=x_BLD.device).tril()
        visible = (segment_BL[:, :, None] == segment_BL[:, None, :]) & causal
        mask = torch.zeros(visible.shape, device=x_BLD.device).masked_fill(~visible, -math.inf)
        encoding = distance_encoding(L, self.config.width, x_BLD.device)
        for block in self.blocks:
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

    def cached(self, x_NSD: Float[Tensor, "N S D"], step: CachedStep, caches: list[LayerCache]) -> Float[Tensor, "N D"]:
        """Write S new tokens to the caches; the hidden state after the last of them.

        The last block has nothing to compute for the others but their keys and values.
        """
        for index, (block, cache) in enumerate(zip(self.blocks, caches, strict=True), start=1):
            assert isinstance(block, Block)
            x_NSD = block.cached(x_NSD, step, cache, 1 if index == len(caches) else x_NSD.shape[1])
        return self.norm(x_NSD[:, -1])
