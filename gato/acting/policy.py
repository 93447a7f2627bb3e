"""Acting: N environments of one task step together; their contexts are cached as keys and values,
and an action is chosen token by token.

Shape letters: N environments, S new tokens, C slots of the cache, D width, V ids, A action tokens.

policy = Policy(model, task, ActingConfig(window_steps=1))
state = policy.start(num_envs=4)
actions = policy.act(state, observations)            # A forward passes
state.reset(np.array([False, True, False, False]))   # before the next act: row 1 begins an episode
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor

from gato.acting.config import ActingConfig
from gato.acting.decoding import probabilities
from gato.acting.return_to_go import ReturnToGo
from gato.acting.state import ActingState
from gato.acting.step_embedding import StepEmbedding
from gato.array_spec import Kind
from gato.network.kv_cache import CachedStep, distances_from, hidden_from, slot_distances
from gato.network.model import Gato
from gato.network.quantise import quantised
from gato.scaling import unscale
from gato.sequence import StepLayout, Window
from gato.task import Task
from gato.text import TextEncoder, written
from gato.tokenizer import action_centres, bin_actions


class Policy:
    """Plays one task with a model: batched, cached, restricted to the task's ids.

    With `config.int8` it plays a quantised copy of the weights that the model has when the policy
    is built.
    """

    def __init__(
        self,
        model: Gato,
        task: Task,
        config: ActingConfig,
        *,
        generator: torch.Generator | None = None,
        text: TextEncoder | None = None,
    ) -> None:
        """Prepare to act.

        Args:
            model: The weights to act with.
            task: The task to play.
            config: How many steps are seen, and how tokens are chosen.
            generator: Draws the tokens that are sampled; None: torch's own.
            text: Encodes the task's texts, if it shows any.

        Raises:
            ValueError: If the task's steps do not fit the model.
        """
        self.model = quantised(model, config.int8) if config.int8 else model
        self.task = task
        self.config = config
        self.steps = StepLayout(task, replace(model.config.layout, text=text))
        model.check(self.steps)
        self._generator = generator
        self._low, _ = model.config.layout.ids_of(task.action, is_action=True)
        self._device = model.embedding.table.weight.device
        self._centres = torch.from_numpy(action_centres(model.config.layout)).to(self._device)
        self._place = self._tensor(self.steps.place_S)
        self._embedding = StepEmbedding(self.model.embedding, self.steps)
        most = model.config.context_tokens // self.steps.tokens_per_step
        most = 1 if task.writes_text else most  # each record stands alone, and may end early
        self.window_steps = min(config.window_steps or most, most)
        # One block more than the window: the last action token still looks back as far as its own
        # step did.
        self._num_slots = (self.window_steps + 1) * self.steps.tokens_per_step
        self._distances = slot_distances(self._num_slots, self._device)

    @torch.inference_mode()
    def start(self, num_envs: int, prompt: Window | None = None) -> ActingState:
        """A state of N fresh episodes, valid for the present weights.

        Args:
            num_envs: Rows.
            prompt: Steps of another episode of this task. Its last steps that fit are encoded once
                and shared by all rows.

        Raises:
            ValueError: If the prompt does not fit the task.
        """
        state = self._empty(num_envs)
        prompt_steps = min(len(prompt.actions), self.window_steps - 1) if prompt else 0
        if prompt and prompt_steps:
            shown = {key: values[-prompt_steps:] for key, values in prompt.observations.items()}
            done = prompt.actions[-prompt_steps:]
            self._check(shown, prompt_steps, "the prompt's observation")
            if problem := self.task.action.problem_with(done, "the prompt's action"):
                raise ValueError(
                    f"{problem}; prompt {self.task.name} with steps of its own episodes"
                )
            # In training, rows hide the returns of prompt and episode together.
            shown_returns = None if self.config.target_return is None else prompt.returns
            returns = None if shown_returns is None else shown_returns[-prompt_steps:]
            ids = self._tensor(self.steps.step_ids(shown, done, returns)).view(1, -1)
            # A state of one row encodes it. Its positions are negative: the episode begins at 0.
            one, at = self._empty(1), np.arange(ids.shape[1])
            x = self._embedding.observations(ids, self._place.repeat(prompt_steps), shown)
            step = self._cached_step(one, 1, position=at[None] - len(at), reach=at[None])
            self.model.transformer.cached(x, step, one.caches)
            # Slot 0 is for a last action token, which a prompt does not have.
            for cache, encoded in zip(state.caches, one.caches, strict=True):
                cache.prompt_keys = encoded.keys[:, 0, 1 : len(at) + 1].clone()
                cache.prompt_values = encoded.values[:, 0, 1 : len(at) + 1].clone()
        return state

    def _empty(self, num_envs: int) -> ActingState:
        no_action = torch.full((num_envs, 1), self._low, device=self._device)
        caches = self.model.transformer.caches(num_envs, self._num_slots)
        returns_to_go = ReturnToGo(num_envs, self.config.target_return, self.task.references)
        return ActingState(
            caches=caches, num_envs=num_envs, no_action=no_action, returns_to_go=returns_to_go
        )

    @torch.inference_mode()
    def act(
        self,
        state: ActingState,
        observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
        rewards: Float[np.ndarray, " N"] | None = None,
    ) -> Shaped[np.ndarray, "N ..."]:
        """Choose one action for each row; observations and actions are appended to the contexts.

        Args:
            state: The contexts, from `start` with these N rows.
            observations: By name, each [N, *shape].
            rewards: Those of the last step. A return-conditioned model needs them if
                `config.target_return` is set.

        Returns:
            Actions [N, *shape] in the task's own dtype and units.

        Raises:
            ValueError: If the observations are not of N rows or outside the task's spec, or if
                needed rewards are missing.
        """
        self._check(observations, state.num_envs, "observation")
        returns_to_go = state.returns_to_go
        if self.steps.num_return_tokens:
            # A copy: what fails below may be tried again.
            returns_to_go = returns_to_go.gather(np.arange(state.num_envs))
            returns_to_go.subtract(rewards)
        ids = self._tensor(
            self.steps.observation_ids(observations, returns_to_go.values, num_steps=state.num_envs)
        )
        x = self._embedding.observations(ids, self._place[: ids.shape[1]], observations)
        # The last action token was chosen but never encoded: it goes first, [N, 1 + S, D]. In a row
        # that begins an episode it belongs to the old one, and its reach hides it from all others.
        x = torch.cat([self._embedding.action(state.last_action_ids), x], dim=1)
        action_ids, values = self._choose(self._logits(self._append(state, x, -1), 0))
        chosen = [values]
        # Each further element of the action is conditioned on those before it.
        for index in range(1, self.steps.num_action_tokens):
            if self._has_ended(chosen):
                break
            x = self._embedding.action(action_ids)
            action_ids, values = self._choose(
                self._logits(self._append(state, x, ids.shape[1] + index - 1), index)
            )
            chosen.append(values)
        state.last_action_ids, state.returns_to_go = action_ids, returns_to_go
        state.step += 1
        return self._decode(torch.stack(chosen, dim=1).cpu().numpy())

    def _check(
        self, observations: Mapping[str, Shaped[np.ndarray, "N ..."]], num_rows: int, what: str
    ) -> None:
        """Raises ValueError if observations are not of this task or not of `num_rows` rows."""
        for key, spec in self.task.observations.items():
            if key not in observations:
                raise ValueError(
                    f"{what} {key!r} is missing, got {', '.join(sorted(observations)) or 'none'};"
                    f" {self.task.name} shows {', '.join(sorted(self.task.observations))}"
                )
            if len(observations[key]) != num_rows:
                raise ValueError(
                    f"{what} {key!r} has {len(observations[key])} rows, expected {num_rows}; a"
                    " state serves the number of environments it was started for; start another"
                    " state for another number"
                )
            if problem := spec.problem_with(observations[key], f"{what} {key!r}"):
                raise ValueError(f"{problem}; fix the environment, or the task {self.task.name}")

    def _append(
        self, state: ActingState, x_NSD: Float[Tensor, "N S D"], offset: int
    ) -> Float[Tensor, "N D"]:
        """Append S tokens to all contexts; return the hidden state after the last.

        `offset`: where in the present step the first of them is; -1 is the action token before it.
        """
        step_tokens, num_blocks = self.steps.tokens_per_step, self.window_steps + 1
        # Positions [N, S] are counted in tokens since each row's episode began; slots are shared.
        # These few numbers are NumPy's: an operation of PyTorch's takes several times as long.
        in_episode = (state.step - state.first_step) * step_tokens
        position = in_episode[:, None] + np.arange(offset, offset + x_NSD.shape[1])
        oldest_step = position // step_tokens - (self.window_steps - 1)
        # How many tokens back each may see: to the window's oldest step, or to its episode's begin.
        # At least itself, also before the episode's begin: a softmax needs a finite score.
        reach = np.maximum(position - np.maximum(oldest_step, 0) * step_tokens, 0)
        first_slot = (state.step % num_blocks) * step_tokens + offset + 1
        # The prompt is seen while any row's window still reaches back beyond its first step. The
        # last action token's window begins one step before its block's.
        sees_prompt = (
            state.prompt_tokens > 0 and state.step - state.first_step.max() < self.window_steps
        )
        prompt_reach = position - oldest_step * step_tokens if sees_prompt else None
        step = self._cached_step(
            state, first_slot, position=position, reach=reach, prompt_reach=prompt_reach
        )
        return self.model.transformer.cached(x_NSD, step, state.caches)

    def _cached_step(
        self,
        state: ActingState,
        first_slot: int,
        *,
        position: Int[np.ndarray, "N S"],
        reach: Int[np.ndarray, "N S"],
        prompt_reach: Int[np.ndarray, "N S"] | None = None,
    ) -> CachedStep:
        """Where new tokens go, and what they see of the ring buffer and the prompt: nothing further
        back than their reach."""
        dtype = self.model.embedding.table.weight.dtype
        # [S, C], the last token first. Slots that are empty, of a former episode or still to be
        # overwritten are further away than any reach.
        S = position.shape[1]
        distance = distances_from(self._distances, first_slot, S)
        mask = hidden_from(distance, self._tensor(reach[:, ::-1].copy()), dtype)
        mask = mask.flip(1) if S > 1 else mask
        at = self._tensor(position)
        if prompt_reach is None:
            return CachedStep(first_slot=first_slot, position=at, mask=mask)
        # [N, S, P]: the prompt's last token is one before the episode's first.
        to_prompt = at[..., None] + torch.arange(state.prompt_tokens, 0, -1, device=self._device)
        return CachedStep(
            first_slot=first_slot,
            position=at,
            mask=mask,
            prompt_distance=to_prompt.clamp(max=self._num_slots - 1),
            prompt_mask=hidden_from(to_prompt, self._tensor(prompt_reach), dtype),
        )

    def _tensor(self, array: np.ndarray) -> Int64[Tensor, ...]:
        return torch.from_numpy(array).to(self._device, torch.int64)

    def _has_ended(self, chosen: list[Tensor]) -> bool:
        """Whether every row's text has its end, which only tasks that write text have."""
        if not self.task.writes_text:
            return False
        return bool((torch.stack(chosen) == self.steps.layout.encoder.pad_id).any(0).all())

    def _logits(self, hidden: Float[Tensor, "N D"], element: int) -> Float[Tensor, "N V"]:
        """Logits of the ids that this element of the action may have."""
        if self.task.writes_text:
            return self.model.logits(hidden, 0, self.steps.layout.encoder.vocab_size).float()
        return self.model.logits(
            hidden, *self.model.config.layout.ids_of(self.task.action, element, is_action=True)
        ).float()

    def _choose(self, logits: Float[Tensor, "N V"]) -> tuple[Int[Tensor, "N 1"], Tensor]:
        """One action token of each row: its id, and its value (in [-1, 1] if continuous)."""
        continuous = self.task.action.kind is Kind.CONTINUOUS
        how = self.config.continuous if continuous else self.config.discrete
        p = probabilities(logits, how, self.config)
        if how == "mean":
            # The expectation over bins is finer than a bin; the context gets the bin it falls in.
            values = p @ self._centres
            index = bin_actions(values.cpu().numpy(), self.model.config.layout)
            return self._tensor(index + self._low)[:, None], values
        index = (
            p.argmax(-1)
            if how == "argmax"
            else torch.multinomial(p, 1, generator=self._generator)[:, 0]
        )
        return index[:, None] + self._low, self._centres[index] if continuous else index

    def _decode(self, values: Shaped[np.ndarray, "N A"]) -> Shaped[np.ndarray, "N ..."]:
        """Actions [N, *shape] in the environment's units."""
        spec = self.task.action
        if spec.kind is Kind.TEXT:
            encoder = self.steps.layout.encoder
            return np.stack([written(ids, encoder, spec.shape[0]) for ids in values])
        if spec.kind is Kind.CONTINUOUS:
            values = unscale(values, spec)
        return values.astype(spec.dtype).reshape(len(values), *spec.shape)
