"""The learner's loop: batch, gradient, update; at intervals weights, a checkpoint, a report."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from safetensors.torch import save_file

from gato.config import ModelConfig
from gato.metrics import LearnerReport, Mean
from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.threads import use_threads
from gato.version import Version
from gato.weights import Weights, snapshot
from learner.checkpoint import Progress, list_checkpoints, load_checkpoint, save_checkpoint
from learner.config import LearnerConfig
from learner.prefetch import BatchSource, Prefetcher


@runtime_checkable
class WeightsSink(Protocol):
    """Where published weights go."""

    def publish(self, weights: Weights) -> bool:
        """Store a version. False: a learner of a later epoch has published; this one must end."""
        ...


class LossNotFinite(RuntimeError):
    """The loss was NaN or infinite. The update was not made; the message says where the batch was
    saved."""


class Fenced(RuntimeError):
    """A newer learner of this run has started; this one's weights are no longer accepted."""


def parameter_groups(model: Gato, weight_decay: float) -> list[dict[str, object]]:
    """Matrices and kernels of the network with decay; norms, biases and tables (ids, places, patch
    rows) without."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    decay = [
        p
        for n, p in model.named_parameters()
        if p.ndim >= 2 and id(p) not in tables and not n.endswith("_bias")
    ]
    chosen = {id(p) for p in decay}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def bf16_in_hardware(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones on this device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(
        torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


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
        """
        self.config = config
        self._source = source
        self._sink = sink
        self._folder = folder
        self._epoch = epoch
        self._task_names = list(task_names)
        self._seed = seed
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._bf16 = bf16_in_hardware(self._device) if config.bf16 is None else config.bf16
        self._schedule = config.schedule
        self._stop = False
        if config.num_threads and self._device.type == "cpu":
            use_threads(config.num_threads)
        torch.manual_seed(seed)
        self.model = Gato(model).to(self._device)
        self.model.transformer.activation_checkpointing = config.activation_checkpointing
        self._loss = (
            torch.compile(next_token_loss, fullgraph=True) if config.compile else next_token_loss
        )
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.model, config.weight_decay),
            lr=config.max_rate,
            betas=config.betas,
            eps=config.epsilon,
            fused=True,
        )
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

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)

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

    def _update(self, batch: TensorBatch) -> tuple[float, dict[int, Mean]]:
        """Make one update.

        Returns:
            The gradient's norm before clipping, and the loss by task index.

        Raises:
            LossNotFinite: Before anything has changed.
        """
        step = self.progress.step
        # Each update draws (patch positions, dropout) from a seed of its own, so that a resumed run
        # has the same random numbers as an unbroken one.
        torch.manual_seed(int(np.random.default_rng([self._seed, step]).integers(2**62)))
        rate = self._schedule.at(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.model.train()
        with self._autocast():
            loss = self._loss(self.model, batch, spread_bins=self.config.spread_bins)
        mean = loss.mean
        if not torch.isfinite(mean):
            raise LossNotFinite(
                f"loss {mean.item()} at step {step}; no update was made. The batch:"
                f" {self._save_batch(batch)}"
            )
        mean.backward()
        # Clips in place; without a limit it only measures.
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), self.config.clip_gradient_norm or float("inf")
        )
        if not torch.isfinite(norm):
            self.optimiser.zero_grad(set_to_none=True)
            raise LossNotFinite(
                f"gradient norm {norm.item()} at step {step}; no update was made. The batch:"
                f" {self._save_batch(batch)}"
            )
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        # [n]: the task of each target's row. Sums and counts merge right over updates, means do
        # not.
        tasks = batch.task_index[loss.rows]
        by_task: dict[int, Mean] = {}
        for index in tasks.unique().tolist():
            mine = loss.losses.detach()[tasks == index]
            by_task[index] = Mean(float(mine.sum()), len(mine))
        return float(norm), by_task

    def _save_batch(self, batch: TensorBatch) -> Path:
        path = self._folder / f"bad-batch-{self.progress.step:09d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = {name: getattr(batch, name) for name in TensorBatch.__dataclass_fields__}
        save_file(
            {k: v.cpu().contiguous() for k, v in fields.items() if isinstance(v, torch.Tensor)},
            path,
        )
        return path

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

    def _train(self, prefetcher: Prefetcher) -> Generator[LearnerReport]:
        meter = _Meter()
        while self.progress.step < self.config.num_updates and not self._stop:
            asked = time.monotonic()
            batch = prefetcher.next(timeout_s=1.0)
            meter.wait_s += time.monotonic() - asked
            # Without a batch the loop only comes round, so that `stop` and reports are not delayed.
            if batch is not None:
                norm, by_task = self._update(batch)
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
                meter = _Meter()
        self.publish()
        self.save()
        yield self._report(meter)

    def _report(self, meter: _Meter) -> LearnerReport:
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


class _Meter:
    """What happened since the last report."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.updates = 0
        self.tokens = 0
        self.wait_s = 0.0
        self.blocked_s = 0.0
        self.gradient_norm = 0.0
        self.loss_by_task: dict[int, Mean] = {}

    def add(self, tokens: int, gradient_norm: float, by_task: Mapping[int, Mean]) -> None:
        self.updates += 1
        self.tokens += tokens
        self.gradient_norm = gradient_norm
        for index, mean in by_task.items():
            self.loss_by_task[index] = self.loss_by_task.get(index, Mean()) + mean
