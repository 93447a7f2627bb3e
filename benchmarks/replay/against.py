"""Replay against other ways to read the same episodes: TorchRL, a plain DataLoader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.replay.episodes import HOPPER, LAYOUT, ROW_TOKENS, settings
from benchmarks.rows import Row
from benchmarks.timing import paired_s
from gato.episode import Episode
from gato.sequence import StepLayout
from gato.task import Task
from replay.service import ReplayService


def windows_against_torchrl(folder: Path, task: Task, episodes: Sequence[Episode]) -> Row:
    """256 windows of 64 steps as they were stored, against TorchRL's slice sampler over the same
    episodes in memory."""
    # By name: it is not a dependency, so no type checker knows it.
    data = import_module("torchrl.data")
    samplers, tensordict = (
        import_module("torchrl.data.replay_buffers.samplers"),
        import_module("tensordict"),
    )

    num_windows, steps = (256, 64) if task is HOPPER else (32, 64)
    total = sum(episode.num_steps for episode in episodes)
    buffer = data.TensorDictReplayBuffer(
        storage=data.LazyTensorStorage(total),
        sampler=samplers.SliceSampler(slice_len=steps, traj_key="episode", cache_values=True),
        batch_size=num_windows * steps,
    )
    for number, episode in enumerate(episodes):
        columns = {name: torch.from_numpy(values) for name, values in episode.observations.items()}
        columns |= {
            "action": torch.from_numpy(episode.actions),
            "reward": torch.from_numpy(episode.rewards),
        }
        columns["episode"] = torch.full((episode.num_steps,), number)
        buffer.extend(tensordict.TensorDict(columns, batch_size=[episode.num_steps]))
    service = ReplayService(folder, {task.name: task}, LAYOUT, settings(1), seed=0)
    counter = iter(range(10**9))

    def ours() -> object:
        return service.next_windows(
            next(counter) % 100, num_windows=num_windows, steps=steps, timeout_s=60
        )

    for _ in range(300):
        ours()
    ours_s, theirs_s = paired_s(ours, lambda: buffer.sample())
    service.close()
    return {
        "path": f"windows {num_windows}x64 steps, {task.name}, warm",
        "against": "TorchRL 0.14 SliceSampler, in memory",
        "ours_s": ours_s, "theirs_s": theirs_s, "windows_per_s": num_windows / ours_s,
    }  # fmt: skip


class TokenRows(Dataset[dict[str, torch.Tensor]]):
    """What one would write without a replay: a random window of a random episode in memory,
    tokenised when it is read."""

    def __init__(self, task: Task, episodes: Sequence[Episode]) -> None:
        self._layout = StepLayout(task, LAYOUT)
        self._episodes = episodes
        self._steps = ROW_TOKENS // self._layout.tokens_per_step
        self._rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        episode = self._episodes[int(self._rng.integers(len(self._episodes)))]
        start = int(self._rng.integers(episode.num_steps - self._steps + 1))
        steps = slice(start, start + self._steps)
        seen = {name: values[steps] for name, values in episode.observations.items()}
        ids = self._layout.step_ids(seen, episode.actions[steps])
        row = {
            "ids": torch.from_numpy(ids.reshape(-1)),
            "place": torch.from_numpy(np.tile(self._layout.place_S, self._steps)),
        }
        if self._layout.num_patches:
            row["patches"] = torch.from_numpy(self._layout.patches(seen))
        return row


def batches_against_dataloader(
    folder: Path, task: Task, episodes: Sequence[Episode], rows: int
) -> Row:
    """A batch of tokens, against a plain PyTorch DataLoader (no workers: one core each) over the
    same episodes in memory."""
    loader = iter(DataLoader(TokenRows(task, episodes), batch_size=rows))
    mix = replace(settings(rows).mix, prompt_fraction=0.0)
    service = ReplayService(folder, {task.name: task}, LAYOUT, settings(rows, mix=mix), seed=0)
    counter = iter(range(10**9))
    for _ in range(300):
        service.next_batch(next(counter), timeout_s=60)
    ours_s, theirs_s = paired_s(
        lambda: service.next_batch(next(counter) % 40, timeout_s=60),
        lambda: next(loader),
        block_s=0.1,
        blocks=7,
    )
    service.close()
    return {
        "path": f"batch {rows}x1024, {task.name}, warm",
        "against": "PyTorch DataLoader over episodes in memory",
        "ours_s": ours_s, "theirs_s": theirs_s, "batches_per_s": 1 / ours_s,
    }  # fmt: skip
