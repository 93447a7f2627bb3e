"""Vectors of one step's tokens while acting: a whole observation, or one action token.

Shape letters: N environments, S tokens, D width, m patches in a step.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from gato.network.embedding import Embedding
from gato.sequence import FIRST_PLACE, PLACE_ACTION, StepLayout


class StepEmbedding:
    """Calls a model's embedding with one task's places and patches."""

    def __init__(self, embedding: Embedding, steps: StepLayout) -> None:
        self._embedding = embedding
        self._steps = steps
        self._device = embedding.table.weight.device
        self._intervals = self._tensor(steps.intervals_m4)
        self._leaders = self._tensor(steps.leaders_m2)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device, torch.int64)

    def observations(
        self,
        ids: Int[Tensor, "N S"],
        place: Int[Tensor, " S"],
        observations: Mapping[str, np.ndarray],
    ) -> Float[Tensor, "N S D"]:
        """Vectors of whole observations: N rows of one step each, or one row of several steps.

        Args:
            ids: The observations' token ids, in the order of `StepLayout`.
            place: What each token is, the same in all rows.
            observations: The arrays that the ids were made of, for their images.
        """
        m = self._steps.num_patches
        if not m:
            return F.embedding(ids, self._embedding.weight) + self._embedding.place(place)
        tiles = np.ascontiguousarray(self._steps.patches(observations))
        patches = torch.from_numpy(tiles).to(self._device).flatten(0, 1)
        steps = len(patches) // m
        # Where the patches are, in all rows laid flat: [N * patches in a row].
        in_row = torch.nonzero(self._is_patch(place))[:, 0]
        rows = torch.arange(len(ids), device=self._device)
        patch_at = (rows[:, None] * ids.shape[1] + in_row).flatten()
        # Leaders are counted within a step; each further step's begin m patches later.
        leaders = (
            self._leaders.repeat(steps, 1)
            + torch.arange(steps, device=self._device).repeat_interleave(m)[:, None] * m
        )
        return self._embedding(
            ids, place.expand_as(ids), patches, patch_at, self._intervals.repeat(steps, 1), leaders
        )

    def _is_patch(self, place: Tensor) -> Tensor:
        first = FIRST_PLACE + self._steps.first_patch
        return (place >= first) & (place < first + self._steps.num_patches)

    def action(self, ids: Int[Tensor, "N 1"]) -> Float[Tensor, "N 1 D"]:
        """Vectors of one action token of each row."""
        place = self._embedding.place.weight[PLACE_ACTION]
        return F.embedding(ids, self._embedding.weight) + place
