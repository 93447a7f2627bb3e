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
from gato.version import Version
from learner.checkpoints.resume import resume, run_record
from learner.checkpoints.saving import Saver
from learner.checkpoints.state import Progress
from learner.clock import peak_memory_bytes
from learner.config import LearnerConfig
from learner.meter import Meter
from learner.optimiser import freeze, make_optimiser
from learner.parallel.model import Parallel
from learner.parallel.ranks import Ranks
from learner.parallel.rows import Feed
from learner.parallel.update import ParallelUpdate
from learner.prefetch import BatchSource, Prefetcher
from learner.preparation.prepare import batch_flops
from learner.publishing import Publisher, WeightsSink
from learner.spikes import LossSpikes
from learner.staging import Stager
from learner.steps import Steps
from learner.update import Update

REPORT_S = 10.0
"""After so long a report follows the next update, however few there were: a slow learner is not
taken for dead."""
WAITED_S = 2.0
"""Of waiting for data, after which a report follows without an update."""


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
        in_background: bool = True,
        ranks: Ranks | None = None,
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
            max_threads: On a CPU, where the settings say nothing.
            in_background: Publish and save beside the loop. If not, the loop waits for both, as it
                must where the sink plays in this process.
            ranks: This process among those that train together; None: it trains alone. Only rank 0
                reads `source` and `folder`, publishes and saves.

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
        if self._device.type == "cpu":
            use_threads(config.num_threads or 1)  # until it is measured
        torch.manual_seed(seed)
        # What several processes share is put on their devices later, in parts.
        self.model = Gato(model).to("cpu" if ranks else self._device)
        self.model.transformer.activation_checkpointing = config.activation_checkpointing
        freeze(self.model, config.frozen)
        self.optimiser = make_optimiser(self.model, config)
        self._update: Update | ParallelUpdate = Update(
            self.model,
            self.optimiser,
            config,
            device=self._device,
            seed=seed,
            folder=folder,
            task_names=task_names,
        )
        ids = self.model.config.layout.vocab_size
        self._stager = Stager(self._device, num_ids=ids, is_of_ranks=ranks is not None)
        self._spikes = LossSpikes()
        self.notes: list[tuple[str, str]] = []
        """Events, as kind and text: what the learner chose by itself, a damaged checkpoint, changed
        settings, spikes of the loss; the reader removes them."""
        record = run_record(config, self.model, seed=seed, epoch=epoch, task_names=task_names)
        self._saver = Saver(
            folder, keep=config.keep_checkpoints, more=record, in_thread=in_background
        )
        self.progress = Progress(step=0, number=0)
        if ranks is None or ranks.is_first:
            resumed = resume(
                folder, self.model, self.optimiser, record, lambda *said: self.notes.append(said)
            )
            self.progress = resumed or self.progress
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
                seed=seed,
                folder=folder,
            )
        self._steps = Steps(
            self.model,
            self._update,
            self._stager,
            config,
            device=self._device,
            max_threads=max_threads,
            folder=folder,
            say=lambda *said: self.notes.append(said),
        )

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
        if (whole := self._whole()) is not None:
            self._publisher.publish(whole[0], number=number, learner_step=self.progress.step)
        self.progress = Progress(step=self.progress.step, number=number)

    def save(self) -> None:
        """Write a checkpoint, beside the loop. A full disk is a problem to report, not an end: the
        last checkpoint is still complete."""
        if (whole := self._whole()) is not None:
            self._saver.save(*whole, self.progress)

    def _whole(self) -> tuple[Gato, torch.optim.Optimizer] | None:
        """What is published and saved; None if another rank does."""
        return (self.model, self.optimiser) if self._parallel is None else self._parallel.whole()

    def _goes_on(self) -> bool:
        goes_on = self.progress.step < self.config.num_updates and not self._stop
        return goes_on if self._ranks is None else self._ranks.agreed(goes_on)

    def wait(self) -> None:
        """Wait until the last version is published and the last checkpoint is on the disk. Raises
        as `publish` does."""
        self._publisher.wait()
        self._saver.wait()

    def run(self) -> Generator[LearnerReport]:
        """Train until `num_updates` or `stop()`; yield reports. Weights are published first, so
        that the workers can begin."""
        prefetcher = Prefetcher(self._source, self._stager, first_index=self.progress.step)
        try:
            self.publish()
            self._publisher.wait()
            yield from self._train(prefetcher)
        finally:
            self._steps.close()
            prefetcher.close()
            self._publisher.join()
            self._saver.join()
        # Not after an error: the other ranks may not be listening any more.
        if self._feed is not None:
            self._feed.close()

    def _train(self, prefetcher: Prefetcher) -> Generator[LearnerReport]:
        meter, clock = Meter(), self._update.clock
        while self._goes_on():
            asked = time.monotonic()
            batch = self._feed.next(prefetcher) if self._feed else prefetcher.next(timeout_s=1.0)
            meter.wait_s += time.monotonic() - asked
            self._publisher.check()
            self._saver.check()
            # Without a batch the loop only comes round, so that `stop` and reports are not delayed.
            if batch is not None:
                is_due = self._is_due(meter)
                done = self._steps(batch, self.progress.step, in_detail=is_due)
                self.progress = Progress(step=self.progress.step + 1, number=self.progress.number)
                meter.add(done, tokens=batch.num_tokens, flops=batch_flops(self.model, batch.batch))
                for spike in self._spikes.add(done.loss_by_task):
                    name = self._task_names[spike.task_index]
                    text = spike.text(name, self.progress.step, batch.batch.episode_keys)
                    self.notes.append(("problem", text))
                begun = time.monotonic()
                if self.progress.step % self.config.publish_every == 0:
                    with clock.of("publish", on_host=True):
                        self.publish()
                if self.progress.step % self.config.checkpoint_every == 0:
                    with clock.of("checkpoint", on_host=True):
                        self.save()
                meter.blocked_s += time.monotonic() - begun
                is_due = is_due or self._is_late(meter)
            else:  # a learner that waits for data still reports, so that it is not taken for dead
                is_due = meter.wait_s > WAITED_S
            if is_due:
                yield self._report(meter)
                meter = Meter()
        self.save()  # first: a weights store that is away must not delay it
        self.publish()
        self.wait()
        yield self._report(meter)

    def _is_due(self, meter: Meter) -> bool:
        """Whether a report follows the next update, as far as is known before it."""
        return self._is_late(meter) or meter.updates + 1 >= self.config.report_every

    def _is_late(self, meter: Meter) -> bool:
        """Whether a report is due by time. Several learners report together, by the number of
        updates alone."""
        return self._ranks is None and time.monotonic() - meter.begun > REPORT_S

    def _report(self, meter: Meter) -> LearnerReport:
        version = self._publisher.accepted or Version(self._epoch, self.progress.number)
        loss_by_task = self._by_name(meter.loss_by_task)
        wall_s = time.monotonic() - meter.begun
        able = self._steps.product_rate * wall_s
        return LearnerReport(
            step=self.progress.step,
            num_updates=self.config.num_updates,
            version=version,
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
