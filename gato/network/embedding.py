"""Tokens and patches to vectors: one table for all ids, a ResNet block for patches, learned
positions (appendix C.2-3)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from gato.config import EmbeddingConfig
from gato.sequence import FIRST_PLACE, INTERVALS, PATCH


class PatchEmbedding(nn.Module):
    """One v2 (pre-activation) residual block on each 16x16 patch, GroupNorm for LayerNorm, GELU for
    ReLU (figure 16).

    The paper does not say how the grid becomes one vector. Here it is averaged to 4x4 cells,
    flattened and projected, which keeps where in the patch something was.
    """

    def __init__(self, config: EmbeddingConfig) -> None:
        super().__init__()
        channels, stride = config.patch_channels, config.patch_stride
        kernel, padding = (3, 1) if stride == 1 else (stride, 0)
        self.stem = nn.Conv2d(3, channels, kernel, stride=stride, padding=padding)
        self.norm1 = nn.GroupNorm(32, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(32, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.cells = min(PATCH // stride, 4)
        self.project = nn.Linear(channels * self.cells**2, config.width)
        self.row = nn.Embedding(INTERVALS, config.width)
        self.column = nn.Embedding(INTERVALS, config.width)

    def forward(
        self,
        patches: UInt8[Tensor, "P 16 16 3"],
        intervals: Int[Tensor, "P 4"],
        leaders: Int[Tensor, "P 2"],
        num_drawn: int | None = None,
    ) -> Float[Tensor, "P D"]:
        """Vectors of P patches with their positions.

        Pixels are scaled to [-1, 1], then divided by sqrt(16) (section 2.1).

        Args:
            patches: RGB.
            intervals: Row and column interval of each patch; see `StepLayout.intervals_m4`.
            leaders: The patch whose random numbers each patch uses, for row and column.
            num_drawn: Patches for which random numbers are drawn, if these are a part of them.
        """
        pixels = (patches.permute(0, 3, 1, 2).float() * (2.0 / 255.0) - 1.0) / PATCH**0.5
        if pixels.device.type == "cpu":
            # With channels last the norms of small patches take several times as long.
            pixels = pixels.contiguous()
        x = self.stem(pixels)
        x = x + self.conv2(F.gelu(self.norm2(self.conv1(F.gelu(self.norm1(x))))))
        # In training a position is drawn uniformly from each interval, once for all patches of a
        # row or column; in acting it is the interval's middle (appendix C.3).
        low, high = intervals[:, 0::2], intervals[:, 1::2]
        if self.training:
            uniform = torch.rand(num_drawn or len(patches), 2, device=patches.device)
            drawn = torch.stack([uniform[leaders[:, 0], 0], uniform[leaders[:, 1], 1]], dim=1)
            index = low + (drawn * (high - low)).long().clamp_max_(INTERVALS - 1)
        else:
            index = (low + high) // 2
        x = F.adaptive_avg_pool2d(x, self.cells) if x.shape[-1] != self.cells else x
        return self.project(x.flatten(1)) + self.row(index[:, 0]) + self.column(index[:, 1])


def cosines(num_bins: int, num_waves: int) -> Float[Tensor, "bins waves"]:
    """The first cosines over the bins (those of a DCT-II), from half a wave to num_waves / 2
    waves."""
    position = (torch.arange(num_bins) + 0.5) / num_bins
    return torch.cos(torch.pi * position[:, None] * torch.arange(1, num_waves + 1))


class Embedding(nn.Module):
    """f(token): a row of the shared table, or a patch's vector, plus its place in its own
    timestep."""

    def __init__(self, config: EmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.layout.vocab_size, config.width)
        num_places = (
            FIRST_PLACE + config.max_observation_tokens + (config.layout.return_place is not None)
        )
        self.place = nn.Embedding(num_places, config.width)
        self.patch = PatchEmbedding(config)
        for table in (self.table, self.place, self.patch.row, self.patch.column):
            nn.init.normal_(table.weight, std=0.02)
        self.waves: Tensor
        if config.value_waves:
            ranges = [
                cosines(config.layout.num_bins, config.value_waves)
            ] * config.layout.num_bin_ranges
            self.register_buffer("waves", torch.block_diag(*ranges), persistent=False)
            self.wave_mix = nn.Parameter(
                torch.randn(config.value_waves * len(ranges), config.width) * 0.02
            )
        self.has_own_row: Tensor
        if not config.own_value_rows:
            ids = torch.arange(config.layout.vocab_size)
            is_value = (ids >= config.layout.first_bin) & (ids < config.layout.end_of_bins)
            self.register_buffer("has_own_row", (~is_value).float()[:, None], persistent=False)

    @property
    def weight(self) -> Float[Tensor, "V D"]:
        """The table of all ids, as looked up and as the head shares it."""
        if not self.config.value_waves:
            return self.table.weight
        layout = self.config.layout
        behind = layout.vocab_size - layout.end_of_bins
        own = (
            self.table.weight
            if self.config.own_value_rows
            else self.table.weight * self.has_own_row
        )
        return own + F.pad(self.waves @ self.wave_mix, (0, 0, layout.first_bin, behind))

    def forward(
        self,
        ids: Int[Tensor, "B L"],
        place: Int[Tensor, "B L"],
        patches: UInt8[Tensor, "P 16 16 3"],
        patch_at: Int[Tensor, " P"],
        patch_intervals: Int[Tensor, "P 4"],
        patch_leaders: Int[Tensor, "P 2"],
        num_drawn: int | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Vectors of a batch's tokens; the arguments are the arrays of `gato.sequence.Batch`.

        `num_drawn`: see `PatchEmbedding.forward`.
        """
        x = F.embedding(ids, self.weight)
        if len(patches):
            # Patches replace the rows of id 0 that were looked up in their place.
            vectors = self.patch(patches, patch_intervals, patch_leaders, num_drawn).to(x.dtype)
            x = x.flatten(0, 1).index_copy(0, patch_at, vectors).view_as(x)
        elif num_drawn:
            # Other parts of the batch have patches. What is drawn next must be alike in all parts.
            torch.rand(num_drawn, 2, device=x.device)
        return x + self.place(place)
