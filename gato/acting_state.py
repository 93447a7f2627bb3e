"""The context of N environments: caches of keys and values, and what each row needs beyond them.

Shape letters: N environments, M of them.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from gato.network.kv_cache import LayerCache
from gato.return_to_go import RemainingReturn


class ActingState:
    """The contexts of N environments: a ring of blocks of one step each, and a prompt that all
    share.

    A block holds the last action token of the step before, then its own step but for its last
    action token: what is computed in one step stands together, and each step's passes have the same
    shapes and slots as the last's.
    """

    def __init__(
        self,
        *,
        caches: list[LayerCache],
        num_envs: int,
        no_action: Int[Tensor, "N 1"],
        remaining: RemainingReturn,
    ) -> None:
        self.caches = caches
        self.remaining = remaining
        self.num_envs = num_envs
        self.step = 0
        """Steps acted so far, by all environments alike."""
        self.first_step: Int64[np.ndarray, " N"] = np.zeros(num_envs, np.int64)
        """The step with which each row's present episode began."""
        self.last_action_ids = no_action
        self.remaining = remaining

    @property
    def prompt_tokens(self) -> int:
        prompt = self.caches[0].prompt_keys
        return 0 if prompt is None else prompt.shape[1]

    def reset(self, rows: Bool[np.ndarray, " N"]) -> None:
        """Begin a new episode in `rows`: they forget all but the prompt. Other rows are not
        touched."""
        if rows.shape != (self.num_envs,):
            raise ValueError(
                f"rows has shape {rows.shape}, this state has {self.num_envs} environments; give"
                " one bool for each"
            )
        if rows.all():
            # From the first slot, as a new state would: the same episodes give the same bits again.
            self.step = 0
        self.first_step[rows] = self.step
        self.remaining.reset(rows)

    @torch.inference_mode()
    def gather(self, rows: Int64[np.ndarray, " M"]) -> ActingState:
        """A state of these rows, in this order; to have more of them, name one twice and `reset`
        it."""
        at = torch.from_numpy(rows).to(self.last_action_ids.device)
        state = ActingState(
            caches=[cache.gather(at) for cache in self.caches],
            num_envs=len(rows),
            no_action=self.last_action_ids[at],
            remaining=self.remaining.gather(rows),
        )
        state.step, state.first_step = self.step, self.first_step[rows]
        return state
