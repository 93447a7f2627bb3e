"""The decoder: pre-norm blocks of attention and GEGLU, and the last norm.

Shape letters: B rows, L tokens, D width, K width of a head, n tokens that are asked for, N
environments, S new tokens, Q the last of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gato.config import TransformerConfig
from gato.network.asked import at
from gato.network.block_weights import BlockWeights
from gato.network.kv_cache import CachedStep, LayerCache
from gato.network.numpy_step import MOST_PARAMETERS, block_weights, numpy_cached
from gato.network.packed_attention import has_kernel
from gato.network.relative_attention import RelativeAttention, distance_encoding
from gato.network.rotary_attention import RotaryAttention, rotations
from gato.network.share import Share

MOST_VARIANTS = 256
"""Of a compiled block."""


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

    def _keeps(self, x_BLD: Tensor, share: Share | None) -> Tensor:
        """[B, 1, 1]: 0 for the rows that skip a sub-layer; the others make up for it."""
        keep = 1.0 - self.stochastic_depth
        num_rows = len(x_BLD) if share is None else share.num_rows
        drawn = x_BLD.new_empty(num_rows, 1, 1).bernoulli_(keep) / keep
        return drawn if share is None else drawn[share.rows]

    def _residual(self, x: Tensor, update: Tensor, scale: Tensor | None) -> Tensor:
        update = F.dropout(update, self.dropout, self.training)
        return x + update if scale is None else torch.addcmul(x, update.to(x.dtype), scale)

    def forward(
        self,
        x_BLD: Tensor,
        encoding: Tensor,
        mask_BLL: Tensor | None,
        starts: Tensor | None = None,
        share: Share | None = None,
        asked_n: Tensor | None = None,
    ) -> Tensor:
        """[B, L, D], or [n, D] of the tokens `asked_n` alone (row * L + position), which read all
        the same."""
        is_thinned = self.training and self.stochastic_depth > 0.0
        scales = [self._keeps(x_BLD, share) if is_thinned else None for _ in range(2)]
        if asked_n is not None:
            row_n = asked_n // x_BLD.shape[1]
            scales = [scale if scale is None else scale[row_n, 0] for scale in scales]
        seen = self.attention(self.attention_norm(x_BLD), encoding, mask_BLL, starts, asked_n)
        x = self._residual(at(x_BLD, asked_n), seen, scales[0])
        return self._residual(x, self._feedforward(x), scales[1])

    def cached(
        self, x_NSD: Tensor, step: CachedStep, cache: LayerCache, num_asking: int
    ) -> Float[Tensor, "N Q D"]:
        seen = self.attention.cached(self.attention_norm(x_NSD), step, cache, num_asking)
        x = x_NSD[:, -num_asking:] + seen
        return x + self._feedforward(x)

    def numpy_weights(self) -> BlockWeights | None:
        """A copy for steps in NumPy, if this block can have them."""
        return block_weights(
            attention_norm=self.attention_norm,
            attention=self.attention,
            feedforward_norm=self.feedforward_norm,
            gate_and_value=self.gate_and_value,
            feedforward_out=self.feedforward_out,
        )


def _is_same(one: Tensor, other: Tensor) -> bool:
    alike = one.device == other.device and one.dtype == other.dtype
    return alike and torch.equal(one, other)


class Transformer(nn.Module):
    """A stack of blocks and the last norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        """Keep only the inputs of each block and compute the rest again for the gradient: a third
        more time, least memory."""
        self.is_packed: bool | None = None
        """Whether packed rows are attended to without a mask (`gato.network.packed_attention`).
        None: with rotary positions, on a GPU, in 16 bits, without dropout."""
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm = nn.LayerNorm(config.width)
        self._kept: Sequence[BlockWeights | None] = ()
        self._kept_of: Sequence[Tensor] = ()
        """The parameters that `_kept` was made of, copied."""
        for name, parameter in self.named_parameters():
            if name.endswith("weight") and parameter.ndim == 2:
                into_residual = name.endswith(("attention.out.weight", "feedforward_out.weight"))
                std = parameter.shape[1] ** -0.5 / (
                    math.sqrt(2 * config.num_layers) if into_residual else 1.0
                )
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias") and parameter.ndim == 1:
                nn.init.zeros_(parameter)

    def compile_blocks(self, is_wanted: bool = True, *, backend: str = "inductor") -> None:
        """Compile each block with static shapes (`torch.compile`) when it is first passed, or no
        more. Blocks are alike, so that one compilation serves all."""
        if is_wanted:
            # Numbers of rows, masks, numbers of sequences and frozen parts each make a variant;
            # beyond this limit (8) a block is not computed at all.
            dynamo = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
            dynamo.recompile_limit = max(dynamo.recompile_limit, MOST_VARIANTS)
            dynamo.accumulated_recompile_limit = max(
                dynamo.accumulated_recompile_limit, MOST_VARIANTS
            )
        for block in self.blocks:
            if is_wanted:
                block.compile(fullgraph=True, dynamic=False, backend=backend)
            else:
                block._compiled_call_impl = None

    def encoding(self, num_tokens: int, device: torch.device) -> Tensor:
        """Positions for a block's forward: encoded distances [L, D], or rotations [L, K] of
        0..L-1."""
        if self.config.positions == "rotary":
            return rotations(torch.arange(num_tokens, device=device), self.config.head_width)
        return distance_encoding(num_tokens, self.config.width, device)

    def _mask(self, segment_BL: Tensor, one_segment: bool, dtype: torch.dtype) -> Tensor | None:
        """0 if a token sees another, else -inf: [B, L, L] or [1, L, L], for all layers. None: plain
        causal attention."""
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
        starts: Int[Tensor, " S1"] | None = None,
        share: Share | None = None,
        asked_n: Int[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "B L D"] | Float[Tensor, "n D"]:
        """Each token sees itself and the earlier tokens of its segment.

        `starts` says where segments begin, for a kernel that needs no mask; see
        `gato.network.packed_attention.sequence_starts`.

        `one_segment` promises that each row is one segment, then only padding, so that segments
        need no comparison. Padding then sees the row, which does no harm because nothing sees
        padding. `share`: of which batch these rows are a part, if they are. `asked_n`: the tokens
        (row * L + position) whose hidden states are wanted, if not all are: for the others the
        last block computes only keys and values.
        """
        kind = x_BLD.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_BLD.dtype
        if starts is None or one_segment or not self._packs(x_BLD.device, dtype):
            starts = None
        mask = None if starts is not None else self._mask(segment_BL, one_segment, dtype)
        encoding = self.encoding(x_BLD.shape[1], x_BLD.device).to(dtype)
        for index, block in enumerate(self.blocks, start=1):
            is_last = index == len(self.blocks) and not self._is_compiled
            of_block = (x_BLD, encoding, mask, starts, share, asked_n if is_last else None)
            if self.activation_checkpointing and self.training:
                x_BLD = checkpoint(block, *of_block, use_reentrant=False)
            else:
                x_BLD = block(*of_block)
        return self.norm(at(x_BLD, asked_n) if x_BLD.ndim == 3 else x_BLD)

    @property
    def _is_compiled(self) -> bool:
        """Then every block has the same static shapes, which tokens that are asked for would
        change from batch to batch."""
        return self.blocks[-1]._compiled_call_impl is not None or torch.compiler.is_compiling()

    def _packs(self, device: torch.device, dtype: torch.dtype) -> bool:
        if self.config.positions != "rotary" or (self.training and self.config.dropout):
            return False
        return has_kernel(device, dtype) if self.is_packed is None else self.is_packed

    def caches(self, num_envs: int, num_slots: int) -> list[LayerCache]:
        """Empty caches of all layers, valid for the present weights."""
        like = self.norm.weight
        encoding = distance_encoding(num_slots, self.config.width, like.device).to(like.dtype)
        out: list[LayerCache] = []
        for block in self.blocks:
            assert isinstance(block, Block)
            out.append(block.attention.cache(num_envs, encoding))
        for cache, weights in zip(out, self._numpy_weights(), strict=True):
            cache.weights = weights
        return out

    def _numpy_weights(self) -> Sequence[BlockWeights | None]:
        """Of each block, for steps in NumPy: of a small model, made once for the same weights."""
        parameters = [parameter.detach() for parameter in self.parameters()]
        if sum(parameter.numel() for parameter in parameters) > MOST_PARAMETERS:
            return [None] * len(self.blocks)
        # By what they hold: PyTorch does not count all that is written into a tensor, such as by an
        # optimiser's fused step or through `.data`.
        if len(self._kept_of) != len(parameters) or not all(
            map(_is_same, parameters, self._kept_of)
        ):
            self._kept = [b.numpy_weights() for b in self.blocks if isinstance(b, Block)]
            self._kept_of = [parameter.clone() for parameter in parameters]
        return self._kept

    def cached(
        self, x_NSD: Float[Tensor, "N S D"], step: CachedStep, caches: list[LayerCache]
    ) -> Float[Tensor, "N D"]:
        """Write S new tokens to the caches; return the hidden state after the last.

        For the other tokens the last block computes only keys and values.
        """
        if step.prompt_mask is None and all(cache.weights is not None for cache in caches):
            return numpy_cached(x_NSD, step, caches, self.norm)
        if self.config.positions == "rotary":
            step = replace(step, rotations=rotations(step.position, self.config.head_width))
        for index, (block, cache) in enumerate(zip(self.blocks, caches, strict=True), start=1):
            assert isinstance(block, Block)
            x_NSD = block.cached(x_NSD, step, cache, 1 if index == len(caches) else x_NSD.shape[1])
        return self.norm(x_NSD[:, -1])
