"""The context of N environments: caches of keys and values, and what each row needs beyond them.

Shape letters: N environments, M of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from gato.acting.return_to_go import ReturnToGo
from gato.network.kv_cache import LayerCache


class ActingState:
    """The contexts of N environments: a ring buffer of blocks, one for each step, and one prompt
    that all rows share.

    A block holds the last action token of the step before, then its own step without its last
    action token. The tokens of one forward pass are then next to each other, and the passes of
    every step have the same shapes and slots.
    """

    def __init__(
        self,
        *,
        caches: list[LayerCache],
        num_envs: int,
        no_action: Int[Tensor, "N 1"],
        returns_to_go: ReturnToGo,
    ) -> None:
        self.caches = caches
        self.returns_to_go = returns_to_go
        self.num_envs = num_envs
        self.step = 0
        """Steps acted so far; all environments step together."""
        self.first_step: Int64[np.ndarray, " N"] = np.zeros(num_envs, np.int64)
        """The step with which each row's present episode began."""
        self.last_action_ids = no_action

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the shared prompt."""
        prompt = self.caches[0].prompt_keys
        return 0 if prompt is None else prompt.shape[1]

    def reset(self, rows: Bool[np.ndarray, " N"]) -> None:
        """Begin a new episode in `rows`: they forget all but the prompt. Other rows are not
        touched.

        Raises:
            ValueError: If there is not one bool for each environment.
        """
        if rows.shape != (self.num_envs,):
            raise ValueError(
                f"rows has shape {rows.shape}, this state has {self.num_envs} environments; give"
                " one bool for each"
            )
        if rows.all():
            # From the first slot, as a new state would: the same episodes give the same bits again.
            self.step = 0
        self.first_step[rows] = self.step
        self.returns_to_go.reset(rows)

    @torch.inference_mode()
    def gather(self, rows: Int64[np.ndarray, " M"]) -> ActingState:
        """A state of these rows, in this order; to have more of them, name one twice and `reset`
        it."""
        at = torch.from_numpy(rows).to(self.last_action_ids.device)
        state = ActingState(
            caches=[cache.gather(at) for cache in self.caches],
            num_envs=len(rows),
            no_action=self.last_action_ids[at],
            returns_to_go=self.returns_to_go.gather(rows),
        )
        state.step, state.first_step = self.step, self.first_step[rows]
        return state

    @torch.inference_mode()
    def joined(self, others: Sequence[ActingState], tokens_per_step: int) -> ActingState:
        """A state of the rows of all, of the same policy and prompt: this one's first.

        Args:
            others: Their ring buffers are turned to this one's step, wherever they are now.
            tokens_per_step: Of the policy's task.
        """
        ahead = [self.step - other.step for other in others]
        turned = [
            [cache.turned(steps * tokens_per_step) for cache in other.caches]
            for steps, other in zip(ahead, others, strict=True)
        ]
        state = ActingState(
            caches=[
                cache.joined(of_layer)
                for cache, *of_layer in zip(self.caches, *turned, strict=True)
            ],
            num_envs=sum(each.num_envs for each in (self, *others)),
            no_action=torch.cat([each.last_action_ids for each in (self, *others)]),
            returns_to_go=self.returns_to_go.joined([other.returns_to_go for other in others]),
        )
        state.step = self.step
        first_steps = [o.first_step + steps for steps, o in zip(ahead, others, strict=True)]
        state.first_step = np.concatenate([self.first_step, *first_steps])
        return state
