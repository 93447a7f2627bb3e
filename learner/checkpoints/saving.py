"""Saving checkpoints beside the loop: a copy on the step's path, the writing in a thread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gato.network.model import Gato
from learner.background import Background
from learner.checkpoints.files import remove_old, write_checkpoint
from learner.checkpoints.state import Progress, checkpoint_path, record_of, state_tensors


class Saver:
    """Saves checkpoints of one model and optimiser.

    saver = Saver(folder, keep=2, more={"seed": 0})
    saver.save(model, optimiser, Progress(step=500, number=5))      # copies, and returns
    saver.wait()                                                    # until it is on the disk
    saver.problems                                                  # such as a full disk

    At most one checkpoint is being written; if the next one is due before it is, the loop waits.
    The copy takes as much memory of the host as a checkpoint has bytes, which is used again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        more: Mapping[str, Any],
        in_thread: bool = True,
    ) -> None:
        """`more`: what `checkpoint.json` says of the run."""
        self._folder = folder
        self._keep = keep
        self._more = more
        self._background = Background("checkpoint", in_thread=in_thread)
        self._copies: dict[str, dict[str, Tensor]] = {}
        self.problems: list[str] = []
        """Checkpoints that were not written; the reader removes them."""

    def save(self, model: Gato, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
        """Copy the state and hand it to the thread. Raises what writing the one before raised,
        unless that was an OSError, which is a problem and not an end: older checkpoints stand."""
        self._background.wait()
        tensors = state_tensors(model, optimiser)
        on_gpu = self._copy(tensors)
        copied = None
        if on_gpu:
            copied = torch.cuda.Event()
            copied.record()
        record = record_of(model, progress, self._more)
        self._background.submit(lambda: self._write(progress.step, record, copied))

    def _copy(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> bool:
        """Copy into memory of the host that is kept. Returns whether any came from a GPU, without
        waiting for it: later updates of the same stream come after the copy."""
        on_gpu = False
        for file, of_file in tensors.items():
            kept = self._copies.setdefault(file, {})
            for name, tensor in of_file.items():
                if name not in kept:
                    kept[name] = torch.empty(
                        tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda"
                    )
                kept[name].copy_(tensor, non_blocking=True)
                on_gpu = on_gpu or tensor.device.type == "cuda"
        return on_gpu

    def _write(self, step: int, record: Mapping[str, Any], copied: torch.cuda.Event | None) -> None:
        if copied is not None:
            copied.synchronize()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = checkpoint_path(self._folder, step)
            write_checkpoint(path, self._copies, record)
            remove_old(self._folder, keep=self._keep, written=path)
        except OSError as problem:
            self.problems.append(
                f"checkpoint of step {step} not written: {problem}; free some space"
            )

    def check(self) -> None:
        """Raise what writing raised; see `save`."""
        self._background.check()

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk. Raises as `save` does."""
        self._background.wait()

    def join(self) -> None:
        """Wait until nothing is being written, whatever became of it."""
        self._background.join()
