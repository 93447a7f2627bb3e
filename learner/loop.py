"""The learner's loop: batch, gradient, update; at intervals weights, a checkpoint, a report."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import torch

from gato.config import ModelConfig
from gato.metrics import LearnerReport, Mean
from gato.network.model import Gato
from gato.threads import use_threads
from learner.checkpoints.files import keep_as_best
from learner.checkpoints.resume import resume, run_record
from learner.checkpoints.saving import Saver
from learner.checkpoints.state import Progress, checkpoint_path
from learner.config import LearnerConfig
from learner.meter import Meter
from learner.optimiser import make_optimiser
from learner.precision import bf16_in_hardware
from learner.prefetch import BatchSource, Prefetcher
from learner.publishing import Publisher, WeightsSink
from learner.spikes import LossSpikes, Spike
from learner.update import Update


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
        in_background: bool = True,
    ) -> None:
        """Build the model and load the newest checkpoint that is whole.

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
            in_background: Publish and save beside the loop. If not, the loop waits for both, as it
                must where the sink plays in this process.

        Raises:
            ValueError: If the checkpoint is of another model, or all checkpoints are damaged.
        """
        self.config = config
        self._source = source
        self._publisher = Publisher(sink, epoch=epoch, in_thread=in_background)
        self._folder = folder
        self._epoch = epoch
        self._task_names = list(task_names)
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._schedule = config.schedule
        self._stop = False
        if config.num_threads and self._device.type == "cpu":
            use_threads(config.num_threads)
        torch.manual_seed(seed)
        self.model = Gato(model).to(self._device)
        self.model.transformer.activation_checkpointing = config.activation_checkpointing
        self.optimiser = make_optimiser(self.model, config)
        self._update = Update(
            self.model,
            self.optimiser,
            config,
            device=self._device,
            bf16=bf16_in_hardware(self._device) if config.bf16 is None else config.bf16,
            seed=seed,
            folder=folder,
            task_names=task_names,
        )
        self._spikes = LossSpikes()
        self.notes: list[tuple[str, str]] = []
        """Events, as kind and text: a damaged checkpoint, changed settings, spikes of the loss; the
        reader removes them."""
        record = run_record(config, self.model, seed=seed, epoch=epoch, task_names=task_names)
        self._saver = Saver(
            folder, self.model, self.optimiser, keep=config.keep_checkpoints, more=record,
            in_thread=in_background,
        )  # fmt: skip
        resumed = resume(
            folder, self.model, self.optimiser, record, lambda *note: self.notes.append(note)
        )
        self.progress = resumed or Progress(step=0, number=0)

    @property
    def problems(self) -> list[str]:
        """Problems that did not stop training, such as a checkpoint without space; the reader
        removes them."""
        return self._saver.problems

    def stop(self) -> None:
        """Ask the loop to end after the present update; it then publishes and saves."""
        self._stop = True

    def publish(self) -> None:
        """Publish the present weights as the next version, beside the loop. Raises Fenced if a
        newer learner runs, and ValueError if weights are not finite: now, or from a later call."""
        number = self.progress.number + 1
        self._publisher.publish(self.model, number=number, learner_step=self.progress.step)
        self.progress = Progress(step=self.progress.step, number=number)

    def save(self) -> None:
        """Write a checkpoint, beside the loop. A full disk is a problem to report, not an end: the
        last checkpoint is still complete."""
        self._saver.save(self.progress)

    def keep(self, step: int, note: Mapping[str, object]) -> bool:
        """Keep the checkpoint of a step as `best`, with `note` in its `best.json`. False if it is
        not there, or not any more."""
        return keep_as_best(checkpoint_path(self._folder, step), note)

    def wait(self) -> None:
        """Wait until the last version is published and the last checkpoint is on the disk. Raises
        as `publish` does."""
        self._publisher.wait()
        self._saver.wait()

    def run(self) -> Generator[LearnerReport]:
        """Train until `num_updates` or `stop()`; yield reports. Weights are published first, so
        that the workers can begin."""
        num_ids = self.model.config.layout.vocab_size
        prefetcher = Prefetcher(
            self._source, first_index=self.progress.step, device=self._device, num_ids=num_ids
        )
        try:
            self.publish()
            self._publisher.wait()
            yield from self._train(prefetcher)
        finally:
            prefetcher.close()
            self._publisher.join()
            self._saver.join()

    def _train(self, prefetcher: Prefetcher) -> Generator[LearnerReport]:
        meter = Meter()
        while self.progress.step < self.config.num_updates and not self._stop:
            asked = time.monotonic()
            batch = prefetcher.next(timeout_s=1.0)
            meter.wait_s += time.monotonic() - asked
            self._publisher.check()
            self._saver.check()
            # Without a batch the loop only comes round, so that `stop` and reports are not delayed.
            if batch is not None:
                norm, by_task = self._update(batch, self.progress.step)
                self.progress = Progress(step=self.progress.step + 1, number=self.progress.number)
                meter.add(batch.num_tokens, norm, by_task)
                for spike in self._spikes.add(by_task):
                    self.notes.append(("problem", self._spike_text(spike, batch.episode_keys)))
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
        self.save()  # first: a weights store that is away must not delay it
        self.publish()
        self.wait()
        yield self._report(meter)

    def _spike_text(self, spike: Spike, keys: Sequence[str]) -> str:
        return (
            f"the loss of {self._task_names[spike.task_index]} was {spike.loss:.3g} in update"
            f" {self.progress.step}, {spike.score:.0f} deviations above {spike.median:.3g}, the"
            f" median before it; episodes in its batch: {', '.join(keys) or 'unknown'}"
        )

    def _report(self, meter: Meter) -> LearnerReport:
        assert self._publisher.accepted is not None
        names = self._task_names
        by_task: Mapping[str, Mean] = {
            names[index]: mean for index, mean in sorted(meter.loss_by_task.items())
        }
        return LearnerReport(
            step=self.progress.step,
            num_updates=self.config.num_updates,
            version=self._publisher.accepted,
            loss=sum(by_task.values(), Mean()),
            loss_by_task=by_task,
            learning_rate=self._schedule.at(self.progress.step),
            gradient_norm=meter.gradient_norm,
            tokens=meter.tokens,
            wall_s=time.monotonic() - meter.begun,
            wait_s=meter.wait_s,
            blocked_s=meter.blocked_s,
        )
