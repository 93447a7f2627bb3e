"""The training of one trial in slices: some updates, a checkpoint, an evaluation. Without Ray."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cluster.control.evaluation.evaluate import Checkpoint, evaluate_run
from cluster.runs.folder import RunFolder
from cluster.runs.replay_location import Place, opened
from cluster.runs.resolve import layout_of, tasks_of
from cluster.sweep.plan import SweepConfig
from gato.metrics import Mean
from gato.threads import VARIABLE, use_threads
from gato.weights import Weights
from learner.checkpoints.files import list_checkpoints
from learner.loop import Learner
from learner.preparation.precision import has_bf16
from replay.stored_batches import StoredBatches

PREDECESSOR_WAIT_S = 60.0
"""How long a trial waits for the killed process that trained it before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What a trial reports of one slice of its training."""

    step: int
    score: float
    """Interquartile mean of the normalised returns over tasks. Of one task without references: its
    mean return."""
    loss: float | None
    returns: Mapping[str, float]
    """Mean return by task."""
    is_last: bool


class _NoSink:
    """Nobody acts with the weights of a trial but its own evaluations."""

    def publish(self, weights: Weights) -> bool:
        return True


def train(path: Path, sweep: SweepConfig, *, reported_step: int) -> Generator[Slice]:
    """Train the trial in a folder from its newest checkpoint to its end, in slices.

    Args:
        path: The folder of the trial's generation.
        sweep: What it is a trial of.
        reported_step: Of its last report. A checkpoint that is newer is evaluated first.

    Raises:
        ValueError: The stored episodes, or the settings, cannot be trained on.
        LossNotFinite: The training diverged.
        OSError: A checkpoint could not be written.
    """
    os.environ[VARIABLE] = str(sweep.cpus)  # the environments' processes have it, too
    use_threads(sweep.cpus)
    config = RunFolder(path.parent, path.name).config()
    tasks = tasks_of(config)
    layout = layout_of(config, tasks, path)
    place = Place(label="", folders=tuple(map(Path, sweep.stores)))
    with _alone(path), opened(place) as stores:
        batches = StoredBatches(
            stores, tasks, layout, config.replay,
            seed=config.seed, teacher_returns=sweep.data_returns,
        )  # fmt: skip
        computing = config.learner
        if computing.bf16 is None and not sweep.gpus:
            # Measured, it would be another in a trial that is compared with this one.
            computing = replace(computing, bf16=has_bf16())
        learner = Learner(
            computing, config.model, batches, _NoSink(), path / "checkpoints",
            epoch=1, task_names=list(tasks), seed=config.seed,
            device=None if sweep.gpus else torch.device("cpu"), in_background=False,
        )  # fmt: skip
        if learner.progress.step > reported_step:
            yield _evaluated(path, sweep, batches, learner, Mean())
        if learner.progress.step < sweep.updates:
            yield from _slices(path, sweep, batches, learner)


def _slices(
    path: Path, sweep: SweepConfig, batches: StoredBatches, learner: Learner
) -> Generator[Slice]:
    """The learner yields after each update, so it stands still while it is evaluated."""
    loss = Mean()
    reports = learner.run()
    try:
        for report in reports:
            loss = loss + report.loss
            if learner.problems:
                raise OSError(learner.problems[0])
            is_due = report.step % sweep.evaluate_every == 0 and report.step < sweep.updates
            if is_due and report.loss.count:  # not a report that it only waits
                yield _evaluated(path, sweep, batches, learner, loss)
                loss = Mean()
        if learner.problems:
            raise OSError(learner.problems[0])
        # Only now: at its end the loop saves after its last report.
        yield _evaluated(path, sweep, batches, learner, loss)
    finally:
        reports.close()


def _evaluated(
    path: Path, sweep: SweepConfig, batches: StoredBatches, learner: Learner, loss: Mean
) -> Slice:
    """Play the checkpoint that was just saved, as `gato evaluate` does."""
    checkpoint = Checkpoint(
        path=list_checkpoints(path / "checkpoints")[-1],
        config=RunFolder(path.parent, path.name).config(),
        scales=sweep.scales,
    )
    report = evaluate_run(checkpoint, episodes=sweep.episodes, prompts=batches)
    use_threads(sweep.cpus)
    returns = {name: result.mean for name, result in report.tasks.items()}
    over = report.aggregate("teacher")
    return Slice(
        step=learner.progress.step,
        score=over.iqm if over is not None else next(iter(returns.values())),
        loss=loss.value if loss.count else None,
        returns=returns,
        is_last=learner.progress.step >= sweep.updates,
    )


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Keep another process out of the trial's folder: one of a killed sweep may end a moment
    later."""
    with (path / "lock").open("ab") as lock:
        deadline_s = time.monotonic() + PREDECESSOR_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    raise ValueError(
                        f"another process trains the trial in {path}; end it, then gato sweep"
                        " resume"
                    ) from None
                time.sleep(0.2)
        yield
