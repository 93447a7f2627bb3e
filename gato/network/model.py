"""Gato: embedding, decoder, and the head tied to the embedding; its loss on the tokens that are
targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from gato.config import ModelConfig
from gato.network.embedding import Embedding
from gato.network.packed_attention import sequence_starts
from gato.network.share import Share
from gato.network.transformer import Transformer
from gato.sequence import PLACE_ACTION, PLACE_SEPARATOR, Batch, StepLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorBatch:
    """`gato.sequence.Batch` as tensors on the model's device."""

    ids: Int[Tensor, "B L"]
    place: Int[Tensor, "B L"]
    segment: Int[Tensor, "B L"]
    is_target: Tensor
    target_at: Int[Tensor, " n"]
    """The n targets: row * L + position. The first token of a segment is never a target."""
    one_segment: bool
    """Whether no row has more than one segment, and padding comes last."""
    starts: Int[Tensor, " S1"]
    """Where segments begin; see `gato.network.packed_attention.sequence_starts`."""
    patches: Tensor
    patch_at: Tensor
    patch_intervals: Tensor
    patch_leaders: Tensor
    task_index: Tensor
    num_tokens: int
    """Tokens that are not padding."""
    episode_keys: tuple[str, ...] = ()
    """See `Batch`."""
    share: Share | None = None
    """Of which whole batch this is a part, if it is one: random numbers are then those of the whole
    batch, and `patch_leaders` count its patches."""

    @staticmethod
    def of(
        batch: Batch, device: torch.device | str = "cpu", *, num_ids: int | None = None
    ) -> TensorBatch:
        """The batch on `device`.

        Raises:
            ValueError: If an id is not below `num_ids`. A GPU would only say that something failed.
        """
        if num_ids is not None and not 0 <= batch.ids.min() <= batch.ids.max() < num_ids:
            raise ValueError(
                f"a batch has ids {batch.ids.min()}..{batch.ids.max()}, the model's table has"
                f" {num_ids}; make replay and model with the same layout"
            )

        is_copied = torch.device(device).type == "cuda"

        def on_device(host: Tensor, dtype: torch.dtype) -> Tensor:
            # Only from pinned memory is a copy made while the host goes on.
            host = host.pin_memory() if is_copied else host
            return host.to(device, non_blocking=True).to(dtype)

        def tensor(name: str, dtype: torch.dtype) -> Tensor:
            array = getattr(batch, name)
            writable = array if array.flags.writeable else array.copy()
            return on_device(torch.from_numpy(writable), dtype)

        # Whatever depends on values is computed here, on the host: the forward pass then never
        # waits for the device to know a shape.
        before, after = batch.segment[:, :-1], batch.segment[:, 1:]
        has_past = np.zeros_like(batch.is_target)
        has_past[:, 1:] = before == after
        target_at = torch.from_numpy(np.flatnonzero(batch.is_target & has_past))
        return TensorBatch(
            ids=tensor("ids", torch.int64),
            place=tensor("place", torch.int64),
            segment=tensor("segment", torch.int32),
            is_target=tensor("is_target", torch.bool),
            target_at=on_device(target_at, torch.int64),
            one_segment=bool((batch.segment <= 1).all() and (after <= before).all()),
            starts=on_device(torch.from_numpy(sequence_starts(batch.segment)), torch.int32),
            patches=tensor("patches", torch.uint8),
            patch_at=tensor("patch_at", torch.int64),
            patch_intervals=tensor("patch_intervals", torch.int64),
            patch_leaders=tensor("patch_leaders", torch.int64),
            task_index=tensor("task_index", torch.int64),
            num_tokens=batch.num_tokens,
            episode_keys=batch.episode_keys,
        )


class Gato(nn.Module):
    """One transformer, one set of weights, every task."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config.embedding)
        self.transformer = Transformer(config.transformer)

    def check(self, steps: StepLayout) -> None:
        """Raises ValueError if the task's steps do not fit this model."""
        if steps.num_observation_tokens > self.config.max_observation_tokens:
            raise ValueError(
                f"task {steps.task.name} shows {steps.num_observation_tokens} tokens a step, the"
                f" model has positions for {self.config.max_observation_tokens}; raise"
                " max_observation_tokens"
            )
        if steps.tokens_per_step > self.config.context_tokens:
            raise ValueError(
                f"one step of {steps.task.name} takes {steps.tokens_per_step} tokens, the context"
                f" holds {self.config.context_tokens}; raise context_tokens"
            )

    def forward(
        self, batch: TensorBatch, asked_n: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "B L D"] | Float[Tensor, "n D"]:
        """Hidden states [B, L, D]; the one at a position predicts the token after it.

        `asked_n`: the tokens (row * L + position) whose states are wanted; then [n, D].
        """
        x = self.embedding(
            batch.ids,
            batch.place,
            batch.patches,
            batch.patch_at,
            batch.patch_intervals,
            batch.patch_leaders,
            num_drawn=None if batch.share is None else batch.share.num_patches,
        )
        if self.training and self.config.action_dropout:
            x = torch.where(self._hides(batch)[:, :, None], self.embedding.place(batch.place), x)
        return self.transformer(
            x,
            batch.segment,
            one_segment=batch.one_segment,
            starts=batch.starts,
            share=batch.share,
            asked_n=asked_n,
        )

    def _hides(self, batch: TensorBatch) -> Bool[Tensor, "B L"]:
        """The actions whose values the input does not show: those of some segments of several
        steps, drawn at random. A segment of one step, such as a passage of text, has no past
        action."""
        num_rows, row_tokens = batch.ids.shape
        num_drawn = num_rows if batch.share is None else batch.share.num_rows
        drawn = torch.rand(num_drawn, row_tokens, device=batch.ids.device)  # a number a segment
        drawn = drawn if batch.share is None else drawn[batch.share.rows]
        segment = batch.segment.long()
        is_hidden = drawn.gather(1, segment) < self.config.action_dropout
        ends_step = (batch.place == PLACE_SEPARATOR) & (segment > 0)
        steps = torch.zeros_like(segment).scatter_add_(1, segment, ends_step.long())
        has_past = steps.gather(1, segment) > 1
        return is_hidden & has_past & (batch.place == PLACE_ACTION)

    def logits(
        self, hidden: Float[Tensor, "... D"], low: int = 0, high: int | None = None
    ) -> Float[Tensor, "... V"]:
        """Logits of the ids [low, high): products with the embedding table, which the head shares
        (table 5)."""
        return hidden @ self.embedding.weight[low:high].to(hidden.dtype).T

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def shape(self) -> dict[str, Any]:
        """The config as plain values, for a checkpoint to store and to compare."""
        return asdict(self.config)


@dataclass(frozen=True, slots=True)
class Loss:
    """Losses of the n targets of a batch, and the row each came from."""

    losses: Float[Tensor, " n"]
    rows: Int[Tensor, " n"]
    correct: Bool[Tensor, " n"] | None = None
    """Whether the most probable id was the target, if that was asked for."""

    @property
    def mean(self) -> Float[Tensor, ""]:
        return self.losses.mean()


def next_token_loss(
    model: Gato,
    batch: TensorBatch,
    *,
    spread_bins: float = 0.0,
    is_accuracy_wanted: bool = False,
) -> Loss:
    """Cross-entropy of each target token, predicted from the position before it (paper equations 1
    and 2).

    Logits are computed for the targets alone, and so is most of the last block.

    Args:
        model: In training or evaluation mode.
        batch: On the model's device.
        spread_bins: Above 0, the target of a continuous action is a normal distribution over the
            bins near it with this standard deviation, in bins (our option; the paper has none).
        is_accuracy_wanted: Whether to say which targets are the most probable ids.
    """
    # [n, V]: the hidden state one position earlier predicts the target.
    rows = batch.target_at // batch.ids.shape[1]
    targets = batch.ids.flatten()[batch.target_at]
    logits = model.logits(model(batch, batch.target_at - 1)).float()
    correct = logits.detach().argmax(-1) == targets if is_accuracy_wanted else None
    if not spread_bins:
        return Loss(F.cross_entropy(logits, targets, reduction="none"), rows, correct)
    log_p = logits.log_softmax(-1)
    # [n, V]; the plain loss is kept for targets that are not bins of actions.
    layout = model.config.layout
    losses = -log_p.gather(1, targets[:, None])[:, 0]
    first, end = (layout.first_action_bin + index for index in layout.action_bins)
    is_bin = (targets >= first) & (targets < end)
    index = torch.arange(first, end, device=targets.device)
    offset = (index - targets[:, None]).float() / spread_bins
    spread = (-0.5 * offset.square()).softmax(-1)
    spread_losses = -(spread * log_p[:, first:end]).sum(-1)
    return Loss(torch.where(is_bin, spread_losses, losses), rows, correct)
