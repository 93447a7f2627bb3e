"""Gato: embedding, decoder, and the head tied to the embedding; its loss on the tokens that are targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from gato.embedding import Embedding, EmbeddingConfig
from gato.sequence import FIRST_PLACE, Batch, StepLayout
from gato.tokenizer import TokenLayout
from gato.transformer import Transformer, TransformerConfig


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
    positions: Literal["transformer-xl", "rotary"] = "transformer-xl"
    """See `TransformerConfig.positions`; the paper's parameter counts ask for the default."""
    return_conditioned: bool = False
    """Whether each step begins with its return-to-go (Chen et al. 2021), so that a return can be wished in acting."""

    def __post_init__(self) -> None:
        # Refuse what cannot be, before anything is built.
        _ = self.embedding, self.transformer

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
            # Behind the places of observations, so that a model without it has the same table.
            return_place=FIRST_PLACE + self.max_observation_tokens if self.return_conditioned else None,
        )


PRESETS: dict[str, ModelConfig] = {
    "79m": ModelConfig(num_layers=8, num_heads=24, width=768, feedforward=3072, context_tokens=1024, stochastic_depth=0.1),
    "364m": ModelConfig(num_layers=12, num_heads=12, width=1536, feedforward=6144, context_tokens=1024, stochastic_depth=0.1),
    "1.18b": ModelConfig(num_layers=24, num_heads=16, width=2048, feedforward=8192, context_tokens=1024, stochastic_depth=0.1),
    "small": ModelConfig(
        num_layers=3, num_heads=4, width=128, feedforward=512, context_tokens=48,
        num_text_ids=1024, max_observation_tokens=128, patch_channels=32, patch_stride=4, value_waves=32,
    ),
    "tiny": ModelConfig(
        num_layers=2, num_heads=2, width=32, feedforward=64, context_tokens=48,
        num_text_ids=1024, max_observation_tokens=128, patch_channels=32, patch_stride=8, value_waves=32,
    ),
}  # fmt: skip
"""The paper's three sizes (table 5) and two for CPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorBatch:
    """`gato.sequence.Batch` as tensors on the model's device."""

    ids: Int[Tensor, "B L"]
    place: Int[Tensor, "B L"]
    segment: Int[Tensor, "B L"]
    is_target: Tensor
    target_at: Int[Tensor, " n"]
    """Where each target stands: row * L + position. A token with no earlier one in its segment is never a target."""
    one_segment: bool
    """Whether no row is of more than one segment, and padding comes last."""
    patches: Tensor
    patch_at: Tensor
    patch_intervals: Tensor
    patch_leaders: Tensor
    task_index: Tensor
    num_tokens: int
    """Tokens that are not padding."""

    @staticmethod
    def of(batch: Batch, device: torch.device | str = "cpu", *, num_ids: int | None = None) -> TensorBatch:
        """On `device`. ValueError where an id is not below `num_ids`: a device would only say that something was wrong."""
        if num_ids is not None and not 0 <= batch.ids.min() <= batch.ids.max() < num_ids:
            raise ValueError(
                f"a batch has ids {batch.ids.min()}..{batch.ids.max()}, the model's table has {num_ids}; make replay and model "
                "with the same layout"
            )

        def tensor(name: str, dtype: torch.dtype) -> Tensor:
            array = getattr(batch, name)
            writable = array if array.flags.writeable else array.copy()
            return torch.from_numpy(writable).to(device, dtype, non_blocking=True)

        # What depends on the data is found here, on the host: the model's shapes then need no look at the device.
        before, after = batch.segment[:, :-1], batch.segment[:, 1:]
        has_past = np.zeros_like(batch.is_target)
        has_past[:, 1:] = before == after
        target_at = torch.from_numpy(np.flatnonzero(batch.is_target & has_past))
        return TensorBatch(
            ids=tensor("ids", torch.int64),
            place=tensor("place", torch.int64),
            segment=tensor("segment", torch.int32),
            is_target=tensor("is_target", torch.bool),
            target_at=target_at.to(device, torch.int64, non_blocking=True),
            one_segment=bool((batch.segment <= 1).all() and (after <= before).all()),
            patches=tensor("patches", torch.uint8),
            patch_at=tensor("patch_at", torch.int64),
            patch_intervals=tensor("patch_intervals", torch.int64),
            patch_leaders=tensor("patch_leaders", torch.int64),
            task_index=tensor("task_index", torch.int64),
            num_tokens=batch.num_tokens,
        )


class Gato(nn.Module):
    """One transformer, one set of weights, every task."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config.embedding)
        self.transformer = Transformer(config.transformer)

    def check(self, steps: StepLayout) -> None:
        """ValueError where the task's steps do not fit this model."""
        if steps.num_observation_tokens > self.config.max_observation_tokens:
            raise ValueError(
                f"task {steps.task.name} shows {steps.num_observation_tokens} tokens a step, the model has positions for "
                f"{self.config.max_observation_tokens}; raise max_observation_tokens"
            )
        if steps.tokens_per_step > self.config.context_tokens:
            raise ValueError(
                f"one step of {steps.task.name} takes {steps.tokens_per_step} tokens, the context holds "
                f"{self.config.context_tokens}; raise context_tokens"
            )

    def forward(self, batch: TensorBatch) -> Float[Tensor, "B L D"]:
        """Hidden states; `logits` of the one at a position are about the token after it."""
        x = self.embedding(
            batch.ids, batch.place, batch.patches, batch.patch_at, batch.patch_intervals, batch.patch_leaders
        )
        return self.transformer(x, batch.segment, one_segment=batch.one_segment)

    def logits(self, hidden: Float[Tensor, "... D"], low: int = 0, high: int | None = None) -> Float[Tensor, "... V"]:
        """Logits of the ids [low, high): products with the embedding table, which is shared (table 5)."""
        return hidden @ self.embedding.weight[low:high].to(hidden.dtype).T

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def shape(self) -> dict[str, int | float | str | None]:
        """The config as plain values, for a checkpoint to keep and to compare."""
        return asdict(self.config)


@dataclass(frozen=True, slots=True)
class Loss:
    """Losses of the n targets of a batch, and the row each came from."""

    losses: Float[Tensor, " n"]
    rows: Int[Tensor, " n"]

    @property
    def mean(self) -> Float[Tensor, ""]:
        return self.losses.mean()


def next_token_loss(model: Gato, batch: TensorBatch, *, spread_bins: float = 0.0) -> Loss:
    """Cross-entropy of each target token, predicted from the position before it (paper equations 1 and 2).

    Logits are made for the targets alone. `spread_bins` > 0 spreads the target of a continuous value over the bins
    near it, as a normal distribution with that standard deviation (our option; the paper has none).
    """
    hidden_BLD = model(batch)
    rows = batch.target_at // batch.ids.shape[1]
    targets = batch.ids.flatten()[batch.target_at]
    logits = model.logits(hidden_BLD.flatten(0, 1).index_select(0, batch.target_at - 1)).float()
    if not spread_bins:
        return Loss(F.cross_entropy(logits, targets, reduction="none"), rows)
    log_p = logits.log_softmax(-1)
    layout = model.config.layout
    losses = -log_p.gather(1, targets[:, None])[:, 0]
    first, end = (layout.first_action_bin + index for index in layout.action_bins)
    is_bin = (targets >= first) & (targets < end)
    index = torch.arange(first, end, device=targets.device)
    offset = (index - targets[:, None]).float() / spread_bins
    spread = (-0.5 * offset.square()).softmax(-1)
    spread_losses = -(spread * log_p[:, first:end]).sum(-1)
    return Loss(torch.where(is_bin, spread_losses, losses), rows)
