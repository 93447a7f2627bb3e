"""Runs whose journals are written by hand: every kind of record, curves that rise, no Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cluster.journal.codec import encode
from cluster.journal.records import Event, Record
from cluster.journal.segment_writer import SegmentWriter
from cluster.monitor.scores import Scale
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from gato.metrics import Amount, Evaluation, LearnerReport, Mean, ReplayStats, WorkerReport
from gato.serialization import to_plain
from gato.version import Version

BEGIN_S = 1_790_000_000.0
STEP_S = 2.0
"""From one report of the learner to the next."""
SCALE = Scale(random_return=10.0, teacher_return=3000.0, expert_return=3400.0, human_return=2500.0)


def make_run(
    root: Path,
    name: str,
    *,
    tasks: Sequence[str] = ("mujoco/hopper", "atari/freeway"),
    reports: int = 60,
    seed: int = 0,
    ends: bool = True,
) -> RunFolder:
    """A run's folder with a journal of `reports` reports of the learner, each with an evaluation
    of every task."""
    base = RUNS["demo"]
    config = replace(
        base, name=name, tasks=tuple(tasks), seed=seed,
        replay=replace(base.replay, mix=replace(base.replay.mix, tasks={})),
        actors=replace(base.actors, demonstration_steps_of={}),
    )  # fmt: skip
    folder = RunFolder.create(config, root=root, is_exact=True)
    write_scales(folder, tasks)
    append(folder, records(tasks, reports, seed=seed))
    if ends:
        append(folder, [(BEGIN_S + reports * STEP_S, Event(kind="finished", text="all done"))])
        folder.set_state("finished")
    return folder


def write_scales(folder: RunFolder, tasks: Sequence[str]) -> None:
    (folder.path / "scales.json").write_text(json.dumps({name: to_plain(SCALE) for name in tasks}))


def append(folder: RunFolder, lines: Iterator[tuple[float, Record]] | list[tuple[float, Record]]):
    """Write records to the journal, as the supervisor does."""
    with SegmentWriter(folder.path / "journal") as writer:
        for time_s, record in lines:
            writer.append(encode(record, time_s=time_s))


def evaluation(task: str, number: int, mean: float, rng: np.random.Generator) -> Evaluation:
    returns = tuple(float(v) for v in rng.normal(mean, 60 + 0.12 * abs(mean), size=4))
    return Evaluation(
        task=task, version=Version(1, number), learner_step=10 * number, returns=returns,
        env_steps=400, wall_s=1.0, worker="w0",
    )  # fmt: skip


def records(tasks: Sequence[str], reports: int, *, seed: int = 0) -> Iterator[tuple[float, Record]]:
    """Time and record, in order."""
    rng = np.random.default_rng(seed)
    yield BEGIN_S, Event(kind="started", text=f"{len(tasks)} tasks: {', '.join(tasks)}")
    rates = rng.uniform(1.0, 6.0, len(tasks))
    tops = rng.uniform(0.5, 1.05, len(tasks))
    for number in range(1, reports + 1):
        now_s, share = BEGIN_S + number * STEP_S, number / reports
        yield now_s, learner_report(tasks, number, reports, rng)
        for rate, top, task in zip(rates, tops, tasks, strict=True):
            mean = 10 + 2990 * top * (1 - np.exp(-rate * share))
            yield now_s + 0.5, evaluation(task, number, float(mean), rng)
        for worker in range(4):
            yield (
                now_s + 0.8,
                WorkerReport(
                    worker=f"w{worker}", role=("evaluate", "generate", "relabel")[worker % 3],
                    task=tasks[(number + worker) % len(tasks)],
                    version=Version(1, max(1, number - worker // 2)), episodes=2, env_steps=800,
                    wall_s=2.0, wait_s=0.1 * (worker % 2), returns=Mean(100.0, 2),
                ),
            )  # fmt: skip
        yield now_s + 0.9, replay_stats(tasks, number)


def learner_report(
    tasks: Sequence[str], number: int, reports: int, rng: np.random.Generator
) -> LearnerReport:
    losses = {
        task: Mean(float(64 * (0.4 + 3 * np.exp(-number / 20) + rng.normal(0, 0.03))), 64)
        for task in tasks
    }
    return LearnerReport(
        step=10 * number, num_updates=10 * reports, version=Version(1, number),
        loss=sum(losses.values(), Mean()), loss_by_task=losses, learning_rate=1e-3,
        gradient_norm=float(abs(rng.normal(1.0, 0.2))), tokens=54_000, wall_s=STEP_S,
        wait_s=0.2, blocked_s=0.05,
        seconds={"data": 0.2, "forward": 0.6, "backward": 0.9, "optimiser": 0.2, "publish": 0.05},
        accuracy_by_task={t: Mean(64 * (1 - 0.7 * float(np.exp(-number / 25))), 64) for t in tasks},
        norm_by_part={"embedding": 0.2, "blocks": 0.8, "head": 0.3}, mfu=0.21,
        memory_bytes=812_000_000,
    )  # fmt: skip


def replay_stats(tasks: Sequence[str], number: int) -> ReplayStats:
    return ReplayStats(
        episodes=dict.fromkeys(tasks, 40 + 2 * number), steps=10_000 + 900 * number,
        inserted_tokens=200_000 + 20_000 * number, read_tokens=54_000 * number,
        stored_bytes=(40 << 20) + number * (1 << 20), capacity_bytes=1 << 30,
        refused={"NaN in observations": number // 20} if number >= 20 else {},
        sources={
            task: {
                "agent": Amount(episodes=2 * number, steps=800 * number),
                "teacher": Amount(episodes=40, steps=10_000),
            }
            for task in tasks
        },
        who_waits="nobody waits",
    )  # fmt: skip
