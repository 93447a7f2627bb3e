"""Acting: N environments of one task in lockstep, their contexts cached as keys and values, actions token by token.

Shape letters: N environments, S new tokens, C slots of the cache, A action tokens.

policy = Policy(model, task, ActingConfig(window_steps=1))
state = policy.start(num_envs=4)
actions = policy.act(state, observations)     # A forward passes; then step the environments
state.reset(np.array([False, True, False, False]))   # before the next act: row 1 begins a new episode
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from gato.model import Gato
from gato.sequence import FIRST_PLACE, PLACE_ACTION, StepLayout, Window
from gato.task import Kind, Task
from gato.text import TextEncoder
from gato.tokenizer import bin_centres, bins, unscale
from gato.transformer import CachedStep, LayerCache, distance_encoding
from gato.wish import RemainingReturn

NEVER = -(2**40)
"""Position of a token that nobody may see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActingConfig:
    """How actions are chosen from the logits, which are always restricted to the ids that the task may emit."""

    continuous: Literal["mean", "argmax", "sample"] = "mean"
    """mean: of the predicted distribution over the bins; each dimension sees the earlier ones encoded anew."""
    discrete: Literal["argmax", "sample"] = "argmax"
    temperature: float = 1.0
    window_steps: int | None = None
    """Whole steps a token may look back on, its own included. None: as many as the model's context holds."""
    wished_return: float | None = 1.0
    """Of a return-conditioned model: the return it is asked for, 0 being a random policy's and 1 the expert's. None:
    nothing is asked for, as in the rows that training leaves untold. Other models do not see it."""

    def __post_init__(self) -> None:
        if self.temperature <= 0.0:
            raise ValueError(f"temperature {self.temperature} must be above 0; for no randomness use argmax or mean")
        if self.window_steps is not None and self.window_steps < 1:
            raise ValueError(f"window_steps {self.window_steps} must be at least 1")


class ActingState:
    """The cached contexts of N environments. The first slots hold the prompt, the others are a ring over time.

    Positions count from the beginning of each row's present episode; the prompt's are negative.
    """

    def __init__(
        self,
        *,
        caches: list[LayerCache],
        num_envs: int,
        prompt_slots: int,
        ring_slots: int,
        remaining: RemainingReturn,
    ) -> None:
        self.caches = caches
        self.remaining = remaining
        self.num_envs = num_envs
        self.prompt_slots = prompt_slots
        self.ring_slots = ring_slots
        self.written = 0
        """Tokens written to the ring so far."""
        self.slot_token = torch.full((num_envs, prompt_slots + ring_slots), NEVER)
        self.slot_step = torch.full((num_envs, prompt_slots + ring_slots), NEVER)
        self.next_token = torch.zeros(num_envs, dtype=torch.int64)
        self.next_step = torch.zeros(num_envs, dtype=torch.int64)
        self.last_action_ids: Int[Tensor, "N 1"] | None = None

    @torch.inference_mode()
    def reset(self, rows: Bool[np.ndarray, " N"]) -> None:
        """Begin a new episode in `rows`: they forget all but the prompt. Other rows are not touched."""
        if rows.shape != (self.num_envs,):
            raise ValueError(f"rows has shape {rows.shape}, this state has {self.num_envs} environments")
        fresh = torch.from_numpy(rows)
        self.slot_token[fresh, self.prompt_slots :] = NEVER
        self.next_token[fresh] = 0
        self.next_step[fresh] = 0
        self.remaining.reset(rows)


class Policy:
    """Plays one task with a model: batched, cached, constrained to the task's ids."""

    def __init__(
        self,
        model: Gato,
        task: Task,
        config: ActingConfig,
        *,
        generator: torch.Generator | None = None,
        text: TextEncoder | None = None,
    ) -> None:
        self.model = model
        self.task = task
        self.config = config
        self.steps = StepLayout(task, replace(model.config.layout, text=text))
        model.check(self.steps)
        self._generator = generator
        self._low, _ = model.config.layout.ids_of(task.action)
        self._centres = torch.from_numpy(bin_centres(model.config.layout.num_bins))
        self._place = torch.from_numpy(self.steps.place_S).long()
        self._intervals = torch.from_numpy(self.steps.intervals_m4).long()
        self._leaders = torch.from_numpy(self.steps.leaders_m2).long()
        most = model.config.context_tokens // self.steps.tokens_per_step
        self.window_steps = min(config.window_steps or most, most)
        self._encoding = distance_encoding(
            (self.window_steps + 1) * self.steps.tokens_per_step, model.config.width, torch.device("cpu")
        )

    @torch.inference_mode()
    def start(self, num_envs: int, prompt: Window | None = None) -> ActingState:
        """A state of N fresh episodes. The prompt, cut to its last steps that fit, is encoded once for all rows."""
        S = self.steps.tokens_per_step
        prompt_steps = min(len(prompt.actions), self.window_steps - 1) if prompt else 0
        slots, size = prompt_steps * S, self.model.config
        # One step more than the window: a pass writes a whole step before it reads.
        ring_slots = (self.window_steps + 1) * S
        like = self.model.embedding.table.weight

        def empty(rows: int) -> ActingState:
            shape = (rows, size.num_heads, slots + ring_slots, size.width // size.num_heads)
            caches = [LayerCache(*shape, like=like) for _ in range(size.num_layers)]
            remaining = RemainingReturn(rows, self.config.wished_return, self.task.references)
            return ActingState(
                caches=caches, num_envs=rows, prompt_slots=slots, ring_slots=ring_slots, remaining=remaining
            )

        state = empty(num_envs)
        if prompt and prompt_steps:
            one = empty(1)
            shown = {key: values[-prompt_steps:] for key, values in prompt.observations.items()}
            returns = None if prompt.returns is None else prompt.returns[-prompt_steps:]
            step_ids = self.steps.step_ids(shown, prompt.actions[-prompt_steps:], returns)
            ids = torch.from_numpy(step_ids).long().view(1, slots)
            x = self._embed(ids, self._place.repeat(prompt_steps), shown)
            step = (torch.arange(slots) // S - prompt_steps)[None]
            self._attend(one, x, torch.arange(slots), (torch.arange(slots) - slots)[None], step)
            for cache, encoded in zip(state.caches, one.caches, strict=True):
                cache.keys.copy_(encoded.keys.expand_as(cache.keys))
                cache.values.copy_(encoded.values.expand_as(cache.values))
            state.slot_token.copy_(one.slot_token.expand_as(state.slot_token))
            state.slot_step.copy_(one.slot_step.expand_as(state.slot_step))
        return state

    @torch.inference_mode()
    def act(
        self,
        state: ActingState,
        observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
        rewards: Float[np.ndarray, " N"] | None = None,
    ) -> Shaped[np.ndarray, "N ..."]:
        """Actions [N, *shape] for observations {key: [N, *shape]}; both are appended to the contexts.

        `rewards` are those of the last step, which a return-conditioned model needs where a return is wished.
        """
        for key, spec in self.task.observations.items():
            got = observations[key].shape if key in observations else None
            if got != (state.num_envs, *spec.shape):
                raise ValueError(f"observation {key!r} has shape {got}, expected {(state.num_envs, *spec.shape)}")
            problem = spec.problem_with(observations[key], f"observation {key!r} of {self.task.name}")
            if problem:
                raise ValueError(f"{problem}; mend the environment, or the task's spec")
        if self.steps.num_return_tokens:
            state.remaining.pay(rewards)
        ids = torch.from_numpy(self.steps.observation_ids(observations, state.remaining.left)).long()
        x = self._embed(ids, self._place[: ids.shape[1]], observations)
        token = state.next_token[:, None] + torch.arange(ids.shape[1])
        step = state.next_step[:, None].expand(token.shape)
        if state.last_action_ids is not None:
            # The last action token rides along. Where a new episode begins it belongs to the old one: nobody sees it.
            fresh = state.next_step[:, None] == 0
            x = torch.cat([self._embed_action(state.last_action_ids), x], dim=1)
            token = torch.cat([torch.where(fresh, NEVER, token[:, :1] - 1), token], dim=1)
            step = torch.cat([step[:, :1] - 1, step], dim=1)
        hidden = self._append(state, x, token, step)
        action_ids, values = self._choose(self._logits(hidden, 0))
        chosen = [values]
        for index in range(1, self.steps.num_action_tokens):
            token = state.next_token[:, None] + (ids.shape[1] + index - 1)
            hidden = self._append(state, self._embed_action(action_ids), token, state.next_step[:, None])
            action_ids, values = self._choose(self._logits(hidden, index))
            chosen.append(values)
        state.last_action_ids = action_ids
        state.next_token += self.steps.tokens_per_step
        state.next_step += 1
        return self._decode(torch.stack(chosen, dim=1).numpy())

    def _append(self, state: ActingState, x_NSD: Tensor, token_NS: Tensor, step_NS: Tensor) -> Float[Tensor, "N D"]:
        """Write new tokens to every row's ring; the hidden state after the last of them."""
        ring = (state.written + torch.arange(x_NSD.shape[1])) % state.ring_slots
        state.written += x_NSD.shape[1]
        return self._attend(state, x_NSD, ring + state.prompt_slots, token_NS, step_NS)[:, -1]

    def _attend(
        self, state: ActingState, x_NSD: Tensor, slots: Tensor, token_NS: Tensor, step_NS: Tensor
    ) -> Float[Tensor, "N S D"]:
        state.slot_token[:, slots] = token_NS
        state.slot_step[:, slots] = step_NS
        distance = token_NS[:, :, None] - state.slot_token[:, None]
        visible = (distance >= 0) & (state.slot_token > NEVER)[:, None]
        visible &= state.slot_step[:, None] > (step_NS - self.window_steps)[:, :, None]
        # Each new token sees itself, also the one that nobody else may see: a softmax needs a finite score.
        visible[:, torch.arange(len(slots)), slots] = True
        step = CachedStep(slots=slots, distance=distance.clamp(0, len(self._encoding) - 1), visible=visible)
        return self.model.transformer.cached(x_NSD, self._encoding, step, state.caches)

    def _embed(
        self, ids: Int[Tensor, "N S"], place: Int[Tensor, " S"], observations: Mapping[str, np.ndarray]
    ) -> Float[Tensor, "N S D"]:
        """Vectors of whole observations: N rows of one step each, or one row of several."""
        m = self.steps.num_patches
        if not m:
            no_patches = torch.zeros(0, 16, 16, 3, dtype=torch.uint8)
            none = torch.zeros(0, dtype=torch.int64)
            return self.model.embedding(ids, place.expand_as(ids), no_patches, none, none.view(0, 4), none.view(0, 2))
        patches = torch.from_numpy(np.ascontiguousarray(self.steps.patches(observations))).flatten(0, 1)
        steps = len(patches) // m
        in_row = torch.nonzero(self._is_patch(place))[:, 0]
        patch_at = (torch.arange(len(ids))[:, None] * ids.shape[1] + in_row).flatten()
        leaders = self._leaders.repeat(steps, 1) + torch.arange(steps).repeat_interleave(m)[:, None] * m
        return self.model.embedding(
            ids, place.expand_as(ids), patches, patch_at, self._intervals.repeat(steps, 1), leaders
        )

    def _is_patch(self, place: Tensor) -> Tensor:
        """Patches follow the text of an observation."""
        first = FIRST_PLACE + self.steps.num_text_tokens
        return (place >= first) & (place < first + self.steps.num_patches)

    def _embed_action(self, ids: Int[Tensor, "N 1"]) -> Float[Tensor, "N 1 D"]:
        return self.model.embedding.weight[ids] + self.model.embedding.place.weight[PLACE_ACTION]

    def _logits(self, hidden: Float[Tensor, "N D"], element: int) -> Float[Tensor, "N V"]:
        """Logits of the ids that this element of the action may take."""
        return self.model.logits(hidden, *self.model.config.layout.ids_of(self.task.action, element)).float()

    def _choose(self, logits: Float[Tensor, "N V"]) -> tuple[Int[Tensor, "N 1"], Tensor]:
        """One action token of each row: its id, and its value (on [-1, 1] where continuous)."""
        continuous = self.task.action.kind is Kind.CONTINUOUS
        how = self.config.continuous if continuous else self.config.discrete
        p = logits.div(self.config.temperature).softmax(-1)
        if how == "mean":
            values = p @ self._centres
            index = torch.from_numpy(bins(values.numpy(), len(self._centres))).long()
            return index[:, None] + self._low, values
        index = p.argmax(-1) if how == "argmax" else torch.multinomial(p, 1, generator=self._generator)[:, 0]
        return index[:, None] + self._low, self._centres[index] if continuous else index

    def _decode(self, values: Shaped[np.ndarray, "N A"]) -> Shaped[np.ndarray, "N ..."]:
        spec = self.task.action
        if spec.kind is Kind.CONTINUOUS:
            values = unscale(values, spec)
        return values.astype(spec.dtype).reshape(len(values), *spec.shape)
