"""What a model costs: FLOPs of a batch forward and in training, bytes of its activations and of a
context's cache.

A multiply and an add are two FLOPs; only products of matrices and convolutions are counted, as is
the custom. Tests hold the formulas to PyTorch's own counter, and to the tensors that a forward pass
keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

from gato.config import ModelConfig
from gato.network.block_attention import blocks
from gato.sequence import PATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a batch holds: all that its cost depends on.

    Work(rows=512, row_tokens=1024, targets=512 * 204)
    """

    rows: int
    row_tokens: int
    targets: int
    patches: int = 0

    @property
    def tokens(self) -> int:
        return self.rows * self.row_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """FLOPs of one forward pass over a batch, by part."""

    dense: int
    """The blocks' linear layers."""
    attention: int
    """Of all L x L pairs of tokens, as PaLM's model FLOPs utilisation counts them (Chowdhery et al.
    2022, appendix B), though of these a causal kernel may leave out nearly half."""
    head: int
    """Logits, at the targets alone."""
    patches: int

    @property
    def total(self) -> int:
        return self.dense + self.attention + self.head + self.patches


def forward_flops(config: ModelConfig, work: Work) -> Flops:
    """One forward pass with its loss. For FLOPs per token divide by `work.tokens`."""
    D, L, xl = config.width, work.row_tokens, config.positions == "transformer-xl"
    # qkv and, of each distance once for all rows, its projection.
    read = 2 * D * D * (3 * work.tokens + (L if xl else 0))
    # Out; into the GEGLU and, half as wide, out of it. In the last block at the targets alone.
    asked = 2 * (D * D + config.feedforward * D + config.feedforward // 2 * D)
    asked *= (config.num_layers - 1) * work.tokens + work.targets
    # Scores, the distance term's scores, and weights times values.
    attention = 2 * work.tokens * L * D * (3 if xl else 2)
    # Values that share waves: their table is made for looking up and again for the head.
    waves = 2 * 2 * config.layout.num_bins * config.value_waves * D
    return Flops(
        dense=config.num_layers * read + asked,
        attention=config.num_layers * attention,
        head=2 * work.targets * D * config.layout.vocab_size + waves,
        patches=work.patches * patch_flops(config),
    )


def patch_flops(config: ModelConfig) -> int:
    """The residual block of one patch (`gato.network.embedding.PatchEmbedding`): stem, two 3x3
    kernels, projection."""
    channels, stride = config.patch_channels, config.patch_stride
    side, kernel = PATCH // stride, 3 if stride == 1 else stride
    products = (
        side**2 * (3 * kernel**2 * channels + 2 * 9 * channels**2)
        + channels * min(side, 4) ** 2 * config.width
    )
    return 2 * products


def training_flops(
    config: ModelConfig, work: Work, *, activation_checkpointing: bool = False
) -> int:
    """Forward and gradient: three times the forward pass, since each product has two in its
    gradient.

    Checkpointing computes the blocks a second time; that is work, but not model FLOPs, so leave it
    out of an MFU.
    """
    forward = forward_flops(config, work)
    again = forward.dense + forward.attention if activation_checkpointing else 0
    return 3 * forward.total + again


def activation_bytes(
    config: ModelConfig, work: Work, *, bf16: bool = False, activation_checkpointing: bool = False
) -> int:
    """Bytes that a forward pass keeps for the gradient: what grows with the batch, without weights
    and their copies.

    The stream between blocks is float32 also under autocast. With checkpointing one block's inner
    values are added to every block's input, since they live again while its gradient is computed.
    Good to some per cent (a test says how many).
    """
    D, H, size = config.width, config.num_heads, 2 if bf16 else 4
    # Of every block: the first norm's input; then what products keep, such as the norm's output.
    if config.positions == "transformer-xl":
        # Queries with each bias, keys, values; attention's weights, of as many keys as a block of
        # queries sees.
        seen = sum((end - begin) * end for begin, end in blocks(work.row_tokens))
        kept = 5 * D + H * seen // work.row_tokens
    else:
        # What the linear layer gave (the values are a part of it), turned queries and keys.
        kept = 6 * D
    read = 4 * D + size * kept
    # The second norm's input; its output and the attention's, the four of the GEGLU. In the last
    # block at the targets alone, but for the kernel's own copy of what the attention gave.
    asked = 4 * D + size * (2 * D + 2 * config.feedforward)
    own = 0 if config.positions == "transformer-xl" else size * D
    if activation_checkpointing:
        stack = work.tokens * (config.num_layers * 4 * D + read + asked)
    else:
        stack = work.tokens * (config.num_layers * read + (config.num_layers - 1) * asked + own)
        stack += work.targets * asked
    # Pixels; what each norm, GELU and kernel of the residual block got, and the pooling where there
    # is one; the projection's.
    side = PATCH // config.patch_stride
    grids = 7 if side > 4 else 6
    patch = size * (3 * PATCH**2 + config.patch_channels * (grids * side**2 + min(side, 4) ** 2))
    # Of the targets: the last norm's input, the logits' and their float32 log-probabilities.
    head = work.targets * (4 * D + size * D + 4 * config.layout.vocab_size)
    return stack + work.patches * patch + head


def cache_bytes_per_token(config: ModelConfig, *, bytes_per_value: int = 4) -> int:
    """Keys and values of one token of one environment's context, in all layers."""
    return 2 * config.num_layers * config.width * bytes_per_value
