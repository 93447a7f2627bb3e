"""How long checkpoints and publications hold up the learner's loop, and a resume: `python -m
benchmarks.saving`.

A learner makes updates on one batch, and publishes and saves at some of them; a report after each
update says how long the loop was held up. Once beside the loop, as in runs, and once in it. The
paper's middle size is arithmetic from its bytes. Results: docs/results/saving.json, and the tables
of docs/learner.md.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.tasks.catalog import TASKS
from benchmarks.learner_page import write_tables
from benchmarks.machine import ROOT, about
from benchmarks.train import CPU_MODEL, ROW_TOKENS
from gato.config import PRESETS
from gato.metrics import LearnerReport
from gato.network.model import Gato
from gato.packing import RowWriter
from gato.sequence import Batch, StepLayout, Window
from gato.threads import use_threads
from gato.weights import Weights
from learner.checkpoints.files import list_checkpoints, read_tensors
from learner.checkpoints.state import read_record
from learner.config import LearnerConfig
from learner.loop import Learner

RESULT = ROOT / "docs" / "results" / "saving.json"
TASK = TASKS["mujoco/hopper"]
ROWS = 1
CONFIG = LearnerConfig(
    num_updates=14, publish_every=4, checkpoint_every=6, report_every=1, bf16=False, num_threads=1
)
PUBLISHES, SAVES = (4, 8), (6,)
"""Updates that only publish, or only save."""
PLAIN, BESIDE = (2, 3, 10, 11), (7, 13)
"""Updates beside which nothing is written, and beside which a checkpoint is."""
H100_FLOPS = 0.4 * 989e12
"""Reached by others at this size: 40 % of the peak in bfloat16."""
LINK = 50e9
"""Bytes a second from a GPU to pinned memory, over PCIe 5.0 x16 (peak 63)."""


class _OneBatch:
    """The same rows of Hopper for each number."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        steps = StepLayout(TASK, CPU_MODEL.layout)
        count = ROW_TOKENS // steps.tokens_per_step
        writer = RowWriter(num_rows=ROWS, row_tokens=ROW_TOKENS)
        for row in range(ROWS):
            window = Window(
                observations={"state": rng.normal(size=(count, 11)).astype(np.float32)},
                actions=rng.uniform(-1, 1, (count, 3)).astype(np.float32),
            )
            writer.write_row(row, task_index=0, steps=steps, windows=[window])
        self._batch = writer.batch()

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        return self._batch


class _DiskSink:
    """Stores a version on the disk, as the weights store does."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def publish(self, weights: Weights) -> bool:
        with self._file.open("wb") as out:
            for array in weights.arrays.values():
                out.write(np.ascontiguousarray(array).data)
        return True


def make(folder: Path, *, in_background: bool = True, num_updates: int = 14) -> Learner:
    """The learner that is measured."""
    return Learner(
        replace(CONFIG, num_updates=num_updates), CPU_MODEL, _OneBatch(),
        _DiskSink(folder.parent / "weights"), folder, epoch=1, task_names=[TASK.name], seed=0,
        device=torch.device("cpu"), in_background=in_background,
    )  # fmt: skip


def stalls(folder: Path, *, in_background: bool) -> dict[str, float | str]:
    """Seconds of a step, and for how long each holds up the loop."""
    reports: dict[int, LearnerReport] = {}
    for report in make(folder, in_background=in_background).run():
        reports.setdefault(report.step, report)

    def median(steps: tuple[int, ...], *, blocked: bool) -> float:
        times = [reports[i].blocked_s if blocked else reports[i].wall_s for i in steps]
        return statistics.median(times)

    step_s = median(PLAIN, blocked=False)
    publish_s, save_s = median(PUBLISHES, blocked=True), median(SAVES, blocked=True)
    defaults = LearnerConfig(num_updates=1)
    per_update_s = publish_s / defaults.publish_every + save_s / defaults.checkpoint_every
    return {
        "how": "beside the loop" if in_background else "in the loop",
        "step_s": round(step_s, 3),
        "publish_s": round(publish_s, 4),
        "checkpoint_s": round(save_s, 4),
        "step_after_s": round(median(BESIDE, blocked=False), 3),
        "share_percent": round(100 * per_update_s / step_s, 3),
    }


def resume_times(folder: Path) -> list[dict[str, float]]:
    """Seconds to build a new learner, and to resume one from a checkpoint."""
    begun_s = time.monotonic()
    make(folder.parent / "none")
    new_s = time.monotonic() - begun_s
    path = list_checkpoints(folder)[-1]
    size = sum(file.stat().st_size for file in path.iterdir())
    record = read_record(path)
    begun_s = time.monotonic()
    for name in record["files"]:
        read_tensors(path / name, record)
    read_s = time.monotonic() - begun_s
    begun_s = time.monotonic()
    make(folder, num_updates=28)
    resume_s = time.monotonic() - begun_s
    return [
        {
            "checkpoint_megabytes": round(size / 1e6, 1),
            "without_s": round(new_s, 2),
            "resume_s": round(resume_s, 2),
            "of_it_read_and_verify_s": round(read_s, 2),
        }
    ]


def arithmetic() -> list[dict[str, float | str]]:
    """The paper's middle size on one GPU, by its bytes: weights in bfloat16, and weights with both
    moments in float32, over a link to the host. Each GPU step takes as long as its products of
    matrices."""
    with torch.device("meta"):
        parameters = Gato(PRESETS["364m"]).num_parameters()
    defaults = LearnerConfig(num_updates=1)
    rows: list[dict[str, float | str]] = []
    for rows_of_batch in (64, 512):
        step_s = 6 * parameters * rows_of_batch * ROW_TOKENS / H100_FLOPS
        publish_s, save_s = 2 * parameters / LINK, 12 * parameters / LINK
        per_update_s = publish_s / defaults.publish_every + save_s / defaults.checkpoint_every
        rows.append(
            {
                "parameters": f"{parameters / 1e6:.0f} M",
                "rows_of_1024": rows_of_batch,
                "step_s": round(step_s, 2),
                "publish_s": round(publish_s, 4),
                "checkpoint_s": round(save_s, 3),
                "share_percent": round(100 * per_update_s / step_s, 3),
            }
        )
    return rows


def main() -> None:
    """Measure, and write the results and the tables of docs/learner.md."""
    use_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        held = [
            stalls(folder / f"background-{beside}", in_background=beside)
            for beside in (True, False)
        ]
        resumes = resume_times(folder / "background-True")
    found: dict[str, Any] = {"stalls": held, "resume": resumes, "arithmetic": arithmetic()}
    print(json.dumps(found), flush=True)
    measured = about()
    RESULT.write_text(json.dumps(measured | found, indent=1) + "\n")
    write_tables(found, measured)


if __name__ == "__main__":
    main()
