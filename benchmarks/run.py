"""Speeds of the paths that matter, as ratios to a yardstick measured in the same run: `make bench`.

Writes rows to benchmarks/rows.jsonl and the table in benchmarks/README.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from actors.tasks.catalog import TASKS
from benchmarks import act, envs
from benchmarks import train as training
from benchmarks.machine import ROOT, about
from benchmarks.replay import measure as replay
from benchmarks.rows import add_rows
from benchmarks.timing import median_s
from gato.config import PRESETS, ModelConfig
from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.packing import RowWriter
from gato.scaling import MU, M
from gato.sequence import StepLayout, Window
from gato.threads import use_threads
from gato.tokenizer import TokenLayout, encode

HOPPER, FREEWAY = TASKS["mujoco/hopper"], TASKS["atari/freeway"]


def seconds(work: Callable[[], object], *, repeats: int = 5) -> float:
    """The median of some runs, after one that is not counted."""
    work()
    return median_s(work, repeats=repeats)


def tokenise() -> dict[str, float | str]:
    """A million state values, against the same formula in plain torch."""
    spec, layout = HOPPER.observations["state"], TokenLayout()
    values = np.random.default_rng(0).normal(0, 3, (100_000, 11)).astype(np.float32)
    tensor = torch.from_numpy(values)

    def plain() -> torch.Tensor:
        y = tensor.sign() * torch.log1p(tensor.abs() * MU) / np.log1p(M * MU)
        return (((y.clamp(-1, 1) + 1) * 512).int().clamp_max(1023) + 32_000).int()

    ours = seconds(lambda: encode(values, spec, layout))
    return {
        "path": "tokenise values",
        "against": "the formula in plain torch",
        "ours_s": ours,
        "theirs_s": seconds(plain),
    }


class BareBlock(nn.Module):
    """A GPT block of the same size, without relative positions: the yardstick of the training
    step."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.qkv, self.out = (
            nn.Linear(config.width, 3 * config.width),
            nn.Linear(config.width, config.width),
        )
        self.up, self.down = (
            nn.Linear(config.width, config.feedforward),
            nn.Linear(config.feedforward // 2, config.width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, L, D = x.shape
        q, k, v = (
            self.qkv(self.norm1(x))
            .view(B, L, 3, self.heads, D // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        x = x + self.out(
            F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, L, D)
        )
        gate, value = self.up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.gelu(gate) * value)


def train() -> dict[str, float | str]:
    """A training step of the demo's model on packed Hopper windows, against a bare GPT of equal
    size."""
    config = PRESETS["small"]
    rng = np.random.default_rng(0)
    steps = StepLayout(HOPPER, config.layout)
    writer = RowWriter(num_rows=64, row_tokens=45)
    for row in range(64):
        windows = [
            Window(
                observations={"state": rng.normal(size=(1, 11)).astype(np.float32)},
                actions=rng.uniform(-1, 1, (1, 3)).astype(np.float32),
            )
            for _ in range(3)
        ]
        writer.write_row(row, task_index=0, steps=steps, windows=windows)
    batch = TensorBatch.of(writer.batch())
    gato = Gato(config)
    table, blocks = (
        nn.Embedding(config.layout.vocab_size, config.width),
        nn.Sequential(*[BareBlock(config) for _ in range(config.num_layers)]),
    )
    bare = nn.ModuleList([table, blocks])
    rows, columns = batch.is_target.nonzero(as_tuple=True)

    def step(model: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
        optimiser = torch.optim.AdamW(model.parameters(), fused=True)

        def once() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                value = loss()
            value.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        return once

    def bare_loss() -> torch.Tensor:
        hidden = blocks(table(batch.ids))
        logits = hidden[rows, columns - 1] @ table.weight.to(hidden.dtype).T
        return F.cross_entropy(logits.float(), batch.ids[rows, columns])

    ours = seconds(step(gato, lambda: next_token_loss(gato, batch).mean))
    return {
        "path": "train step, CPU bf16, small, L=45",
        "against": "a bare GPT of equal size",
        "ours_s": ours,
        "theirs_s": seconds(step(bare, bare_loss)),
    }


def main() -> None:
    """Measure all, add the rows, write the table."""
    use_threads(1)
    small = (measure() for measure in (tokenise, train))
    rows = itertools.chain(
        small, replay.measures(), training.measures(), act.measures(), envs.measures()
    )
    add_rows(rows, about(), ROOT / "benchmarks" / "rows.jsonl")


if __name__ == "__main__":
    main()
