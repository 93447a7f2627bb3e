"""A plain Decision Transformer (Chen et al. 2021, arXiv 2106.01345), by its paper: a yardstick.

Sizes and settings are those of the paper's table 9: windows of 20 steps, 3 layers of 128 with one
head, ReLU, dropout 0.1, 64 windows a batch, AdamW at 1e-4 with weight decay 1e-4 and a linear
warm-up, gradients clipped at 0.25, returns divided by 1,000.

Shape letters: B windows, N environments, K steps, T = 3 K tokens, D width, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from actors.players.player import TimeStep
from gato.episode import Episode

RETURN_SCALE = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DTConfig:
    """Sizes, and how it is trained."""

    num_observations: int
    num_actions: int
    context_steps: int = 20
    num_layers: int = 3
    num_heads: int = 1
    width: int = 128
    dropout: float = 0.1
    max_steps: int = 1000
    """Of an episode: rows of the table of time steps."""
    windows: int = 64
    rate: float = 1e-4
    weight_decay: float = 1e-4
    warmup_updates: int = 10_000
    clip_gradient_norm: float = 0.25


class _Block(nn.Module):
    """Pre-norm attention and a layer of ReLU, four times as wide."""

    def __init__(self, config: DTConfig) -> None:
        super().__init__()
        D = config.width
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.norm_attention, self.norm_feedforward = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.feedforward = nn.Sequential(nn.Linear(D, 4 * D), nn.ReLU(), nn.Linear(4 * D, D))

    def forward(
        self, x_BTD: Float[Tensor, "B T D"], mask_B1TT: Bool[Tensor, "B 1 T T"]
    ) -> Float[Tensor, "B T D"]:
        B, T, D = x_BTD.shape
        split = (B, T, self.num_heads, D // self.num_heads)
        q, k, v = (
            part.view(split).transpose(1, 2)
            for part in self.qkv(self.norm_attention(x_BTD)).chunk(3, dim=-1)
        )
        p = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_B1TT, dropout_p=p)
        x_BTD = x_BTD + F.dropout(self.out(seen.transpose(1, 2).reshape(B, T, D)), p)
        return x_BTD + F.dropout(self.feedforward(self.norm_feedforward(x_BTD)), p)


class DecisionTransformer(nn.Module):
    """Predicts each step's action from the returns-to-go, observations and actions up to it."""

    def __init__(self, config: DTConfig) -> None:
        super().__init__()
        self.config, D = config, config.width
        self.embed_return = nn.Linear(1, D)
        self.embed_observation = nn.Linear(config.num_observations, D)
        self.embed_action = nn.Linear(config.num_actions, D)
        self.embed_time = nn.Embedding(config.max_steps + 1, D)
        self.norm = nn.LayerNorm(D)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.last_norm = nn.LayerNorm(D)
        self.head = nn.Linear(D, config.num_actions)

    def forward(
        self,
        returns_BK: Float[Tensor, "B K"],
        observations_BKO: Float[Tensor, "B K O"],
        actions_BKA: Float[Tensor, "B K A"],
        times_BK: Int[Tensor, "B K"],
        is_step_BK: Bool[Tensor, "B K"],
    ) -> Float[Tensor, "B K A"]:
        """Actions in [-1, 1]. `is_step_BK`: False for padding before an episode's first step."""
        B, K = returns_BK.shape
        time_BKD = self.embed_time(times_BK)
        tokens = (
            self.embed_return(returns_BK[..., None]) + time_BKD,
            self.embed_observation(observations_BKO) + time_BKD,
            self.embed_action(actions_BKA) + time_BKD,
        )
        # Interleaved: return, observation, action of the first step, then of the next.
        x_BTD = self.norm(torch.stack(tokens, dim=2).view(B, 3 * K, -1))
        x_BTD = F.dropout(x_BTD, self.config.dropout, self.training)
        # Each token sees itself and what is before it, but no padding; padding sees itself, so that
        # no row of the softmax is empty.
        seen_BT = is_step_BK.repeat_interleave(3, dim=1)
        causal_TT = torch.ones(3 * K, 3 * K, dtype=torch.bool, device=x_BTD.device).tril()
        itself_TT = torch.eye(3 * K, dtype=torch.bool, device=x_BTD.device)
        mask_BTT = (causal_TT & seen_BT[:, None, :]) | itself_TT
        for block in self.blocks:
            x_BTD = block(x_BTD, mask_BTT[:, None])
        # The token of a step's observation has seen its return, but not its action.
        return torch.tanh(self.head(self.last_norm(x_BTD)[:, 1::3]))


class Trajectories:
    """Episodes of one task as arrays: windows drawn by length, observations normalised."""

    def __init__(self, episodes: Sequence[Episode], *, array: str = "state") -> None:
        """`array`: the name of the observation. Raises ValueError if there are no episodes."""
        if not episodes:
            raise ValueError("there are no episodes; name a D4RL file that has some")
        self._observations = [e.observations[array].astype(np.float32) for e in episodes]
        self._actions = [e.actions.astype(np.float32) for e in episodes]
        # The sum of rewards from each step to its episode's end.
        self._returns = [np.cumsum(e.rewards[::-1])[::-1].astype(np.float32) for e in episodes]
        stacked = np.concatenate(self._observations)
        self.mean, self.std = stacked.mean(0), stacked.std(0) + 1e-6
        lengths = np.array([len(actions) for actions in self._actions])
        self._share = lengths / lengths.sum()

    def batch(self, rng: np.random.Generator, windows: int, steps: int) -> list[Tensor]:
        """Returns, observations, actions, times and what is a step, of windows that begin anywhere
        in an episode; short ones are padded in front."""
        shape = (windows, steps)
        observations = np.zeros((*shape, len(self.mean)), np.float32)
        actions = np.zeros((*shape, self._actions[0].shape[1]), np.float32)
        returns, times = np.zeros(shape, np.float32), np.zeros(shape, np.int64)
        is_step = np.zeros(shape, np.bool_)
        for row, index in enumerate(rng.choice(len(self._share), windows, p=self._share).tolist()):
            start = int(rng.integers(len(self._actions[index])))
            part = slice(start, start + steps)
            count = len(self._actions[index][part])
            observations[row, -count:] = (self._observations[index][part] - self.mean) / self.std
            actions[row, -count:] = self._actions[index][part]
            returns[row, -count:] = self._returns[index][part] / RETURN_SCALE
            times[row, -count:] = np.arange(start, start + count)
            is_step[row, -count:] = True
        arrays = (returns, observations, actions, times, is_step)
        return [torch.from_numpy(array) for array in arrays]


def train(
    config: DTConfig, data: Trajectories, *, updates: int, seed: int, file: Path, every: int = 1000
) -> DecisionTransformer:
    """Train to `updates`, from the state in `file` if there is one; it is written every `every`
    updates."""
    torch.manual_seed(seed)
    model = DecisionTransformer(config)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.rate, weight_decay=config.weight_decay
    )
    done = 0
    if file.is_file():
        state = torch.load(file, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        done = int(state["updates"])
    for update in range(done, updates):
        for group in optimiser.param_groups:
            group["lr"] = config.rate * min(1.0, (update + 1) / config.warmup_updates)
        # Batch number i is the same however often the training was ended.
        rng = np.random.default_rng([seed, update])
        torch.manual_seed(seed * 1_000_003 + update)
        batch = data.batch(rng, config.windows, config.context_steps)
        predicted = model(*batch)
        is_step = batch[4]
        loss = F.mse_loss(predicted[is_step], batch[2][is_step])
        if not torch.isfinite(loss):
            raise ValueError(f"the loss of update {update} is not finite")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_gradient_norm)
        optimiser.step()
        if (update + 1) % every == 0 or update + 1 == updates:
            state = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "updates": update + 1,
            }
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, file.with_suffix(".draft"))
            file.with_suffix(".draft").replace(file)
    return model.eval()


class DTPlayer:
    """Plays N environments with one target return, on the last `context_steps` steps."""

    def __init__(
        self,
        model: DecisionTransformer,
        data: Trajectories,
        *,
        num_envs: int,
        target_return: float,
        array: str = "state",
    ) -> None:
        """`target_return`: in the environment's own units."""
        self._model, self._data, self._array = model, data, array
        self._target = target_return
        config, shape = model.config, (num_envs, model.config.context_steps)
        self._returns = torch.zeros(shape)
        self._observations = torch.zeros(*shape, config.num_observations)
        self._actions = torch.zeros(*shape, config.num_actions)
        self._times = torch.zeros(shape, dtype=torch.int64)
        self._is_step = torch.zeros(shape, dtype=torch.bool)

    @torch.inference_mode()
    def act(self, step: TimeStep) -> np.ndarray:
        """Actions [N, A]."""
        first = torch.from_numpy(step.is_first)
        owed = self._returns[:, -1] - torch.from_numpy(step.rewards).float() / RETURN_SCALE
        owed = torch.where(first, self._target / RETURN_SCALE, owed)
        time = torch.where(first, 0, self._times[:, -1] + 1).clamp(max=self._model.config.max_steps)
        self._is_step[first] = False
        for kept in (
            self._returns, self._observations, self._actions, self._times, self._is_step
        ):  # fmt: skip
            kept.copy_(kept.roll(-1, dims=1))
        seen = (step.observations[self._array] - self._data.mean) / self._data.std
        self._observations[:, -1] = torch.from_numpy(seen).float()
        self._returns[:, -1], self._times[:, -1], self._is_step[:, -1] = owed, time, True
        self._actions[:, -1] = 0.0  # it is not known yet, and nothing before it may see it
        chosen = self._model(
            self._returns, self._observations, self._actions, self._times, self._is_step
        )[:, -1]
        self._actions[:, -1] = chosen
        return chosen.numpy().copy()
