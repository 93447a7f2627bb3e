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
from learner.clock import peak_memory_bytes
from learner.config import LearnerConfig
from learner.memory import is_out_of_memory
from learner.meter import Meter
from learner.optimiser import make_optimiser
from learner.prefetch import BatchSource, Prefetcher
from learner.preparation import Prepared, batch_flops, prepare
from learner.staging import Staged, Stager
from learner.update import Done, Update


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
        max_threads: int = 1,
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
            max_threads: On a CPU, where the settings say nothing.
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
        self._max_threads = max_threads
        if self._device.type == "cpu":
            use_threads(config.num_threads or 1)  # until it is measured
        torch.manual_seed(seed)
        self.model = Gato(model).to(self._device)
        self.model.transformer.activation_checkpointing = config.activation_checkpointing
        self.optimiser = make_optimiser(self.model, config)
        self._update = Update(
            self.model,
            self.optimiser,
            config,
            device=self._device,
            num_tasks=len(self._task_names),
            seed=seed,
            folder=folder,
        )
        self._stager = Stager(self._device, num_ids=self.model.config.layout.vocab_size)
        self._prepared: Prepared | None = None
        self.notes: list[str] = []
        """What the learner chose by itself; the reader removes them."""
        self.progress = Progress(step=0, number=0)
        self.problems: list[str] = []
        """Problems that did not stop training, such as a checkpoint without space; the reader
        removes them."""
        checkpoints = list_checkpoints(folder)
        if checkpoints:
            self.progress = load_checkpoint(checkpoints[-1], self.model, self.optimiser)

    def stop(self) -> None:
        """Ask the loop to end after the present update; it then publishes and saves."""
        self._stop = True

    def publish(self) -> None:
        """Publish the present weights as the next version. Raises Fenced if a newer learner
        runs."""
        number = self.progress.number + 1
        weights = Weights(
            version=Version(self._epoch, number),
            learner_step=self.progress.step,
            arrays=snapshot(self.model),
        )
        if not self._sink.publish(weights):
            raise Fenced(
                f"epoch {self._epoch} of this run is over: a newer learner publishes; this one ends"
            )
        self.progress = Progress(step=self.progress.step, number=number)

    def save(self) -> None:
        """Write a checkpoint. A full disk is a problem to report, not an end: the last checkpoint
        is still complete."""
        try:
            save_checkpoint(self._folder, self.model, self.optimiser, self.progress)
        except OSError as problem:
            self.problems.append(
                f"checkpoint of step {self.progress.step} not written: {problem}; free some space"
            )

    def run(self) -> Generator[LearnerReport]:
        """Train until `num_updates` or `stop()`; yield reports. Weights are published first, so
        that the workers can begin."""
        prefetcher = Prefetcher(self._source, self._stager, first_index=self.progress.step)
        try:
            self.publish()
            yield from self._train(prefetcher)
        finally:
            prefetcher.close()

    def _train(self, prefetcher: Prefetcher) -> Generator[LearnerReport]:
        meter, clock = Meter(), self._update.clock
        while self.progress.step < self.config.num_updates and not self._stop:
            asked = time.monotonic()
            batch = prefetcher.next(timeout_s=1.0)
            meter.wait_s += time.monotonic() - asked
            # Without a batch the loop only comes round, so that `stop` and reports are not delayed.
            if batch is not None:
                done = self._updated(batch, in_detail=meter.updates + 1 >= self.config.report_every)
                self.progress = Progress(step=self.progress.step + 1, number=self.progress.number)
                meter.add(done, tokens=batch.num_tokens, flops=batch_flops(self.model, batch.batch))
                begun = time.monotonic()
                if self.progress.step % self.config.publish_every == 0:
                    with clock.of("publish", on_host=True):
                        self.publish()
                if self.progress.step % self.config.checkpoint_every == 0:
                    with clock.of("checkpoint", on_host=True):
                        self.save()
                meter.blocked_s += time.monotonic() - begun
            # A learner that waits for data still reports, so that it is not taken for dead.
            if meter.updates >= self.config.report_every or (batch is None and meter.wait_s > 2.0):
                yield self._report(meter)
                meter = Meter()
        self.publish()
        self.save()
        yield self._report(meter)

    def _updated(self, batch: Staged, *, in_detail: bool) -> Done:
        """Make an update; where memory runs out, again with half as many rows at once."""
        if self._prepared is None:
            self._prepared = prepare(
                self.model,
                self._update,
                batch.batch,
                self.config,
                stager=self._stager,
                device=self._device,
                max_threads=self._max_threads,
                folder=self._folder,
            )
            self.notes += self._prepared.notes
        if batch.max_rows > (self._stager.micro_batch_rows or batch.max_rows):
            batch = self._stager.stage(batch.batch)  # it was put there before that was known
        while True:
            try:
                return self._update(batch, self.progress.step, in_detail=in_detail)
            except RuntimeError as problem:
                rows = batch.max_rows
                if rows == 1 or not is_out_of_memory(problem):
                    raise
            self._stager.micro_batch_rows = -(-rows // 2)
            self.problems.append(
                f"no memory for {rows} rows at once (step {self.progress.step}); goes on with"
                f" {self._stager.micro_batch_rows}: learner.micro_batch_rows"
            )
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            batch = self._stager.stage(batch.batch)

    def _report(self, meter: Meter) -> LearnerReport:
        loss_by_task = self._by_name(meter.loss_by_task)
        wall_s = time.monotonic() - meter.begun
        able = self._prepared.product_rate * wall_s if self._prepared is not None else 0.0
        return LearnerReport(
            step=self.progress.step,
            num_updates=self.config.num_updates,
            version=Version(self._epoch, self.progress.number),
            loss=sum(loss_by_task.values(), Mean()),
            loss_by_task=loss_by_task,
            learning_rate=self._schedule.at(self.progress.step),
            gradient_norm=meter.gradient_norm,
            tokens=meter.tokens,
            wall_s=wall_s,
            wait_s=meter.wait_s,
            blocked_s=meter.blocked_s,
            seconds={"data": meter.wait_s, **self._update.clock.take()},
            accuracy_by_task=self._by_name(meter.accuracy_by_task),
            norm_by_part=meter.norm_by_part,
            mfu=meter.flops / able if able else 0.0,
            memory_bytes=peak_memory_bytes(self._device),
        )

    def _by_name(self, by_index: Mapping[int, Mean]) -> dict[str, Mean]:
        return {self._task_names[index]: mean for index, mean in sorted(by_index.items())}
