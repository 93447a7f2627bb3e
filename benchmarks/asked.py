"""A training step that computes the last block at the targets alone, against one that computes it
at all tokens: `python -m benchmarks.asked`.

The preset small on rows of whole single steps, as the named runs have them, in seconds of one
core. It adds its rows to benchmarks/rows.jsonl and the table in benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from actors.tasks.resolve import resolve_task
from benchmarks.machine import ROOT, about
from benchmarks.rows import Row, add_rows
from benchmarks.timing import paired_s
from benchmarks.train import loss_of, training_step
from gato.array_spec import Kind
from gato.config import PRESETS
from gato.network.model import Gato, TensorBatch
from gato.packing import RowWriter
from gato.sequence import StepLayout, Window
from gato.task import Task
from gato.threads import use_threads
from learner.preparation.precision import has_bf16

ROWS, ROW_TOKENS, BLOCKS = 120, 45, 15
TASKS = ("metaworld/push?task_id=1", "mujoco/hopper", "atari/pong")


def one_step(task: Task, rng: np.random.Generator) -> Window:
    """A window of one step, with a random image where there is one."""
    shown = {
        name: rng.integers(0, 256, (1, *spec.shape)).astype(spec.dtype)
        if spec.kind is Kind.IMAGE
        else np.zeros((1, *spec.shape), spec.dtype)
        for name, spec in task.observations.items()
    }
    return Window(observations=shown, actions=np.zeros((1, *task.action.shape), task.action.dtype))


def rows_of(task: Task) -> TensorBatch:
    """Rows full of windows of one step."""
    rng, steps = np.random.default_rng(0), StepLayout(task, PRESETS["small"].layout)
    writer = RowWriter(num_rows=ROWS, row_tokens=ROW_TOKENS)
    for row in range(ROWS):
        windows = [one_step(task, rng) for _ in range(ROW_TOKENS // steps.tokens_per_step)]
        writer.write_row(row, task_index=0, steps=steps, windows=windows)
    return TensorBatch.of(writer.batch())


def loss_of_all(gato: Gato, batch: TensorBatch) -> Tensor:
    """The same loss, of hidden states that are computed at every token."""
    hidden = gato(batch).flatten(0, 1).index_select(0, batch.target_at - 1)
    targets = batch.ids.flatten()[batch.target_at]
    return F.cross_entropy(gato.logits(hidden).float(), targets)


def measures() -> Iterator[Row]:
    """A row for each task."""
    bf16, device = has_bf16(), torch.device("cpu")
    for name in TASKS:
        gato, batch = Gato(PRESETS["small"]).train(), rows_of(resolve_task(name))
        ours, theirs = (
            training_step(gato, partial(loss, gato, batch), device=device, bf16=bf16)
            for loss in (loss_of, loss_of_all)
        )
        for step in (ours, theirs):
            step()
        ours_s, theirs_s = paired_s(ours, theirs, blocks=BLOCKS)
        yield {
            "path": f"train step, CPU {'bf16' if bf16 else 'fp32'}, small, single steps of {name}",
            "against": "all of the last block computed",
            "ours_s": ours_s,
            "theirs_s": theirs_s,
        }


if __name__ == "__main__":
    use_threads(1)
    add_rows(measures(), about(), ROOT / "benchmarks" / "rows.jsonl")
