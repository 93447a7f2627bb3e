"""The settings of the model. They need no torch, which takes seconds to import, so
that commands which only read a run start at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gato.bounds import require_at_least
from gato.sequence import FIRST_PLACE
from gato.statistics import Statistics
from gato.tokenizer import TokenLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingConfig:
    """Sizes of the embedding function."""

    width: int
    layout: TokenLayout = TokenLayout()
    max_observation_tokens: int = 512
    """Rows of the table of local positions; a task with more tokens in a step is rejected."""
    patch_channels: int = 96
    """Channels of the patch ResNet: a multiple of its 32 groups. The paper names no number."""
    value_waves: int = 0
    """How many cosines over the bins the rows of continuous values share, in addition to each row's
    own numbers; 0: none, as in the paper. What is learned at one value then also holds near it,
    which small runs need."""
    own_value_rows: bool = True
    """Whether the rows of continuous values have numbers of their own. Without, they are the shared
    cosines alone: a smooth function of the value, which noisy labels cannot teach value by
    value."""
    patch_stride: int = 1
    """Side and stride of the stem's kernel: 1 keeps the 16x16 grid (3x3 kernel), 4 makes it 4x4 and
    small for CPUs."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "width", "max_observation_tokens", "patch_channels")
        if self.patch_channels % 32:
            raise ValueError(
                f"patch_channels {self.patch_channels} is not a multiple of 32, the groups of its"
                " norm"
            )
        if self.patch_stride not in (1, 2, 4, 8):
            raise ValueError(f"patch_stride {self.patch_stride} must be 1, 2, 4 or 8")
        if not (self.own_value_rows or self.value_waves):
            raise ValueError(
                "own_value_rows=False leaves values without rows; set value_waves, such as 64"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Sizes of the decoder (paper table 5)."""

    num_layers: int
    num_heads: int
    width: int
    feedforward: int
    """Hidden units before the GEGLU halves them: the reading of table 5 that gives the paper's
    parameter counts."""
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    """Probability of leaving out a sub-layer for a row, in training (paper appendix D)."""
    positions: Literal["transformer-xl", "rotary"] = "transformer-xl"
    """How attention knows the order of tokens, on which the paper is silent (ambiguity A4,
    docs/adr/0011). transformer-xl: a term for each distance, the reading that gives the paper's
    parameter counts. rotary: queries and keys rotated by their position (RoPE, Su et al. 2021),
    without parameters. Both depend on differences of positions alone."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "num_layers", "num_heads", "width", "feedforward")
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.positions not in ("transformer-xl", "rotary"):
            raise ValueError(f"positions {self.positions!r} must be 'transformer-xl' or 'rotary'")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(
                f"rotary positions rotate pairs, but a head is {self.head_width} wide (width"
                f" {self.width} over num_heads {self.num_heads}); make it even"
            )
        if self.width % 2 or self.feedforward % 2:
            raise ValueError(f"width {self.width} and feedforward {self.feedforward} must be even")
        if not (0.0 <= self.dropout < 1.0 and 0.0 <= self.stochastic_depth < 1.0):
            raise ValueError(
                f"dropout {self.dropout} and stochastic_depth {self.stochastic_depth} must be in"
                " [0, 1)"
            )

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A Gato's shape: what a checkpoint must agree with.

    ModelConfig(num_layers=3, num_heads=4, width=128, feedforward=512, context_tokens=48)
    """

    num_layers: int
    num_heads: int
    width: int
    feedforward: int
    context_tokens: int
    """Tokens of the longest sequence it is trained on and acts with."""
    num_text_ids: int = 32_000
    discrete_ids: Literal["text", "own"] = "text"
    action_ids: Literal["shared", "own"] = "shared"
    separator_id: int | None = None
    compand_actions: bool = False
    """Which ids mean what: see `TokenLayout`, whose fields these are."""
    max_observation_tokens: int = 512
    patch_channels: int = 96
    patch_stride: int = 1
    value_waves: int = 0
    own_value_rows: bool = True
    """See `EmbeddingConfig`."""
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    action_dropout: float = 0.0
    """Share of the sequences of several steps whose actions, also the present step's, are hidden
    from the input in training, so that the model does not just repeat them (our option, after the
    past motion dropout of Bansal et al. 2018, "ChauffeurNet")."""
    positions: Literal["transformer-xl", "rotary"] = "transformer-xl"
    """See `TransformerConfig.positions`; the paper's parameter counts ask for the default."""
    return_conditioned: bool = False
    """Whether each step begins with its return-to-go (Chen et al. 2021), so that acting can be
    conditioned on a target return."""
    normalise: Mapping[str, Mapping[str, Statistics]] = field(
        default_factory=dict[str, Mapping[str, Statistics]]
    )
    """By task and array: statistics of recorded observations, by which observations are normalised
    (`gato start --normalise`)."""

    def __post_init__(self) -> None:
        # Both check their own values: a wrong setting is found before anything is built.
        _ = self.embedding, self.transformer
        if not 0.0 <= self.action_dropout < 1.0:
            raise ValueError(f"action_dropout {self.action_dropout} must be in [0, 1)")

    @property
    def embedding(self) -> EmbeddingConfig:
        return EmbeddingConfig(
            width=self.width,
            layout=self.layout,
            max_observation_tokens=self.max_observation_tokens,
            patch_channels=self.patch_channels,
            patch_stride=self.patch_stride,
            value_waves=self.value_waves,
            own_value_rows=self.own_value_rows,
        )

    @property
    def transformer(self) -> TransformerConfig:
        return TransformerConfig(
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            width=self.width,
            feedforward=self.feedforward,
            dropout=self.dropout,
            stochastic_depth=self.stochastic_depth,
            positions=self.positions,
        )

    @property
    def layout(self) -> TokenLayout:
        return TokenLayout(
            num_text_ids=self.num_text_ids,
            discrete=self.discrete_ids,
            actions=self.action_ids,
            separator_id=self.separator_id,
            compand_actions=self.compand_actions,
            # After the places of observations, so that a model without it has the same table.
            return_place=(
                FIRST_PLACE + self.max_observation_tokens if self.return_conditioned else None
            ),
        )


PRESETS: dict[str, ModelConfig] = {
    "79m": ModelConfig(
        num_layers=8,
        num_heads=24,
        width=768,
        feedforward=3072,
        context_tokens=1024,
        stochastic_depth=0.1,
    ),
    "364m": ModelConfig(
        num_layers=12,
        num_heads=12,
        width=1536,
        feedforward=6144,
        context_tokens=1024,
        stochastic_depth=0.1,
    ),
    "1.18b": ModelConfig(
        num_layers=24,
        num_heads=16,
        width=2048,
        feedforward=8192,
        context_tokens=1024,
        stochastic_depth=0.1,
    ),
    "small": ModelConfig(
        num_layers=3,
        num_heads=4,
        width=128,
        feedforward=512,
        context_tokens=48,
        num_text_ids=1024,
        max_observation_tokens=128,
        patch_channels=32,
        patch_stride=4,
        value_waves=32,
    ),
    "tiny": ModelConfig(
        num_layers=2,
        num_heads=2,
        width=32,
        feedforward=64,
        context_tokens=48,
        num_text_ids=1024,
        max_observation_tokens=128,
        patch_channels=32,
        patch_stride=8,
        value_waves=32,
    ),
}
"""The paper's three sizes (table 5) and two for CPUs."""
