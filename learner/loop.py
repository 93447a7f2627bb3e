"""The learner's loop: batch, gradient, update; at intervals weights, a checkpoint, a report."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from gato.config import ModelConfig
from gato.metrics import LearnerReport, Mean
from gato.network.model import Gato
from gato.threads import use_threads
from gato.version import Version
from gato.weights import Weights, snapshot
from learner.checkpoint import Progress, list_checkpoints, load_checkpoint, save_checkpoint
from learner.config import LearnerConfig
from learner.meter import Meter
from learner.optimiser import make_optimiser
from learner.parallel import Parallel
from learner.parallel_update import ParallelUpdate
from learner.precision import bf16_in_hardware
from learner.prefetch import BatchSource, Prefetcher
from learner.ranks import Ranks
from learner.rows import Feed
from learner.update import Update


@runtime_checkable
class WeightsSink(Protocol):
    """Where published weights go."""

    def publish(self, weights: Weights) -> bool:
        """Store a version. False: a learner of a later epoch has published; this one must end."""
        ...


class Fenced(RuntimeError):
    """A newer learner of this run has started; this one's weights are no longer accepted."""


class Learner:
    """Trains one model. Resumes from the newest checkpoint in `folder` if there is one.

    tasks = ["mujoco/hopper"]
    learner = Learner(config, model, source, sink, folder, epoch=1, task_names=tasks, seed=0)
    for report in learner.run():
        ...
    """

    def __init__(
        self,
        config: LearnerConfig,
        model: ModelConfig,
        source: BatchSource,
        sink: WeightsSink,
        folder: Path,
        *,
        epoch: int,
        task_names: Sequence[str],
        seed: int,
        device: torch.device | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """Build the model and load the newest checkpoint.

        Args:
            config: How to train.
            model: What to train.
            source: Of batches.
            sink: For published weights.
            folder: Of checkpoints.
            epoch: How often a learner of this run was started, this one included.
            task_names: Names of the indices in a batch's `task_index`.
            seed: Of the run.
            device: None: a GPU if there is one.
            ranks: This process among those that train together; None: it trains alone. Only rank 0
                reads `source` and `folder`, publishes and saves.
        """
        self.config = config
        self._source = source
        self._sink = sink
        self._folder = folder
        self._epoch = epoch
        self._task_names = list(task_names)
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._schedule = config.schedule
        self._stop = False
        if config.num_threads and self._device.type == "cpu":
            use_threads(config.num_threads)
        torch.manual_seed(seed)
        # What several processes share is put on their devices later, in parts.
        self.model = Gato(model).to("cpu" if ranks else self._device)
        self.model.transformer.activation_checkpointing = config.activation_checkpointing
        self.optimiser = make_optimiser(self.model, config)
        bf16 = bf16_in_hardware(self._device) if config.bf16 is None else config.bf16
        self._update: Update | ParallelUpdate = Update(
            self.model,
            self.optimiser,
            config,
            device=self._device,
            bf16=bf16,
            seed=seed,
            folder=folder,
        )
        self.progress = Progress(step=0, number=0)
        self.problems: list[str] = []
        """Problems that did not stop training, such as a checkpoint without space; the reader
        removes them."""
        checkpoints = list_checkpoints(folder) if ranks is None or ranks.is_first else []
        if checkpoints:
            self.progress = load_checkpoint(checkpoints[-1], self.model, self.optimiser)
        self._ranks = ranks
        self._parallel: Parallel | None = None
        self._feed: Feed | None = None
        if ranks is not None:
            self.progress = ranks.of_first(self.progress)
            self._parallel = Parallel(self.model, self.optimiser, config, ranks, self._device)
            self.optimiser = self._parallel.optimiser
            self._source = self._feed = Feed(ranks, source)
            self._update = ParallelUpdate(
                self._parallel,
                config,
                ranks,
                num_tasks=len(self._task_names),
                device=self._device,
                bf16=bf16,
                seed=seed,
                folder=folder,
            )

    def stop(self) -> None:
        """Ask the loop to end after the present update; it then publishes and saves."""
        self._stop = True

    def publish(self) -> None:
        """Publish the present weights as the next version. Raises Fenced if a newer learner
        runs."""
        number = self.progress.number + 1
        if (whole := self._whole()) is not None:
            weights = Weights(
                version=Version(self._epoch, number),
                learner_step=self.progress.step,
                arrays=snapshot(whole[0]),
            )
            if not self._sink.publish(weights):
                raise Fenced(
                    f"epoch {self._epoch} of this run is over: a newer learner publishes; this one"
                    " ends"
                )
        self.progress = Progress(step=self.progress.step, number=number)

    def save(self) -> None:
        """Write a checkpoint. A full disk is a problem to report, not an end: the last checkpoint
        is still complete."""
        if (whole := self._whole()) is None:
            return
        try:
            save_checkpoint(self._folder, *whole, self.progress)
        except OSError as problem:
            self.problems.append(
                f"checkpoint of step {self.progress.step} not written: {problem}; free some space"
            )

    def _whole(self) -> tuple[Gato, torch.optim.Optimizer] | None:
        """What is published and saved; None if another rank does."""
        return (self.model, self.optimiser) if self._parallel is None else self._parallel.whole()

    def _goes_on(self) -> bool:
        goes_on = self.progress.step < self.config.num_updates and not self._stop
        return goes_on if self._ranks is None else self._ranks.agreed(goes_on)

    def run(self) -> Generator[LearnerReport]:
        """Train until `num_updates` or `stop()`; yield reports. Weights are published first, so
        that the workers can begin."""
        num_ids = self.model.config.layout.vocab_size
        prefetcher = Prefetcher(
            self._source, first_index=self.progress.step, device=self._device, num_ids=num_ids
        )
        try:
            self.publish()
            yield from self._train(prefetcher)
        finally:
            prefetcher.close()
        # Not after an error: the other ranks may not be listening any more.
        if self._feed is not None:
            self._feed.close()

    def _train(self, prefetcher: Prefetcher) -> Generator[LearnerReport]:
        meter = Meter()
        while self._goes_on():
            asked = time.monotonic()
            batch = (
                prefetcher.next(timeout_s=1.0)
                if self._feed is None
                else self._feed.next(prefetcher)
            )
            meter.wait_s += time.monotonic() - asked
            # Without a batch the loop only comes round, so that `stop` and reports are not delayed.
            if batch is not None:
                norm, by_task = self._update(batch, self.progress.step)
                self.progress = Progress(step=self.progress.step + 1, number=self.progress.number)
                meter.add(batch.num_tokens, norm, by_task)
                begun = time.monotonic()
                if self.progress.step % self.config.publish_every == 0:
                    self.publish()
                if self.progress.step % self.config.checkpoint_every == 0:
                    self.save()
                meter.blocked_s += time.monotonic() - begun
            # A learner that waits for data still reports, so that it is not taken for dead.
            if meter.updates >= self.config.report_every or (batch is None and meter.wait_s > 2.0):
                yield self._report(meter)
                meter = Meter()
        self.publish()
        self.save()
        yield self._report(meter)

    def _report(self, meter: Meter) -> LearnerReport:
        names = self._task_names
        by_task: Mapping[str, Mean] = {
            names[index]: mean for index, mean in sorted(meter.loss_by_task.items())
        }
        return LearnerReport(
            step=self.progress.step,
            num_updates=self.config.num_updates,
            version=Version(self._epoch, self.progress.number),
            loss=sum(by_task.values(), Mean()),
            loss_by_task=by_task,
            learning_rate=self._schedule.at(self.progress.step),
            gradient_norm=meter.gradient_norm,
            tokens=meter.tokens,
            wall_s=time.monotonic() - meter.begun,
            wait_s=meter.wait_s,
            blocked_s=meter.blocked_s,
        )
