"""Training in several processes against one, on the same batches: `python -m benchmarks.parallel`.

Each process has one thread, or one GPU if there are as many. The result:
docs/results/parallel.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch

from actors.tasks.catalog import TASKS
from benchmarks.machine import ROOT, about
from gato.config import PRESETS, ModelConfig
from gato.packing import RowWriter
from gato.sequence import Batch, StepLayout, Window
from gato.weights import Weights
from learner.config import LearnerConfig
from learner.loop import Learner
from learner.parallel.ranks import Ranks, meeting_place

Way = Literal["ddp", "fsdp"]
TASK = TASKS["mujoco/hopper"]
REPORT_EVERY = 5
RESULT = ROOT / "docs" / "results" / "parallel.json"


class OneBatch:
    """The same batch again and again: full rows of Hopper."""

    def __init__(self, model: ModelConfig, num_rows: int) -> None:
        rng = np.random.default_rng(0)
        steps = StepLayout(TASK, model.layout)
        num_steps = model.context_tokens // steps.tokens_per_step
        writer = RowWriter(num_rows=num_rows, row_tokens=model.context_tokens)
        for row in range(num_rows):
            window = Window(
                observations={"state": rng.normal(size=(num_steps, 11)).astype(np.float32)},
                actions=rng.uniform(-1, 1, (num_steps, 3)).astype(np.float32),
            )
            writer.write_row(row, task_index=0, steps=steps, windows=[window])
        self._batch = writer.batch()

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        return self._batch


class NoSink:
    """Nobody acts with the weights."""

    def publish(self, weights: Weights) -> bool:
        return True


def train(
    rank: int,
    size: int,
    port: int,
    way: Way | None,
    model: ModelConfig,
    num_rows: int,
    num_reports: int,
    answers: Queue[float],
) -> None:
    """Train as one rank. Rank 0 answers with its median of tokens a second."""
    on_gpus = torch.cuda.device_count() >= size
    device = torch.device("cuda", rank) if on_gpus else torch.device("cpu")
    ranks = None
    if size > 1:
        store, _ = meeting_place("127.0.0.1", port, size)
        ranks = Ranks.join(store, rank=rank, size=size, device=device, address="127.0.0.1")
    config = LearnerConfig(
        num_updates=num_reports * REPORT_EVERY,
        report_every=REPORT_EVERY,
        publish_every=10**9,
        checkpoint_every=10**9,
        bf16=on_gpus,
        num_threads=1,
        num_learners=size,
        parallel=way,
    )
    with TemporaryDirectory() as folder:
        learner = Learner(
            config, model, OneBatch(model, num_rows), NoSink(), Path(folder),
            epoch=1, task_names=[TASK.name], seed=0, device=device, ranks=ranks,
        )  # fmt: skip
        reports = [report for report in learner.run() if report.loss.count]
    if ranks is not None:
        ranks.leave()
    if rank == 0:
        answers.put(median(report.tokens / report.wall_s for report in reports[1:]))


def tokens_per_s(
    size: int, way: Way | None, model: ModelConfig, num_rows: int, num_reports: int
) -> float:
    """Of `size` processes together."""
    context = multiprocessing.get_context("spawn")
    answers: Queue[float] = context.Queue()
    _store, port = meeting_place("127.0.0.1", 0, size)
    work: Callable[..., None] = train
    processes = [
        context.Process(
            target=work, args=(rank, size, port, way, model, num_rows, num_reports, answers)
        )
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        return answers.get(timeout=3600.0)
    finally:
        for process in processes:
            process.join(timeout=60.0)
            process.kill()


def main() -> None:
    """Measure one process, then each way of several, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learners", type=int, default=2)
    parser.add_argument("--preset", default="small", choices=sorted(PRESETS))
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--reports", type=int, default=6, help="of 5 updates each")
    arguments = parser.parse_args()
    model = PRESETS[arguments.preset]
    sizes = (model, arguments.rows, arguments.reports)
    rows: list[dict[str, float | int | str]] = []
    alone = tokens_per_s(1, None, *sizes)
    rows.append({"learners": 1, "parallel": "no", "tokens_per_s": round(alone, 1), "ratio": 1.0})
    ways: tuple[Way, ...] = ("ddp", "fsdp")
    for way in ways:
        speed = tokens_per_s(arguments.learners, way, *sizes)
        rows.append(
            {
                "learners": arguments.learners,
                "parallel": way,
                "tokens_per_s": round(speed, 1),
                "ratio": round(speed / alone, 3),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    measured = {
        "machine": {**about(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
        "model": arguments.preset,
        "rows": arguments.rows,
        "row_tokens": model.context_tokens,
        "speeds": rows,
    }
    RESULT.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
