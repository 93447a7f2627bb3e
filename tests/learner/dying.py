"""A learner in a process of its own that is killed, by SIGKILL, in the middle of what it does:
`python -m tests.learner.dying FOLDER WHERE`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save, save_file

from gato.weights import Weights
from learner.checkpoints import files
from learner.loop import Learner
from learner.termination import Termination
from tests.learner.test_learner import CONFIG, ListSink, ListSource, make

STEP = 6
"""Of the kill in the middle of an update; checkpoints and publications are due at 4, 8 and 12."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingSink(ListSink):
    """Dies in the publication after update 8."""

    def publish(self, weights: Weights) -> bool:
        if weights.learner_step == 8:
            die()
        return super().publish(weights)


def half_written(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write the first file of the checkpoint of step 8 in part, and die."""
    if not (path.parent.parent / "step-000000004").is_dir():
        save_file(tensors, path)
        return
    path.write_bytes(save(tensors)[:1000])
    die()


class Unsaved:
    """`save` of a learner that is killed before it comes to the checkpoint of step 8."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._save = learner.save

    def __call__(self) -> None:
        if self._learner.progress.step < 8:
            self._save()
            self._learner.wait()
        else:
            threading.Event().wait()


def end_by_sigterm(folder: Path) -> None:
    """Train until SIGTERM comes, and print each step."""
    config = replace(CONFIG, num_updates=1_000_000, checkpoint_every=1_000_000, report_every=1)
    learner = make(folder, config=config)

    def stop() -> bool:
        learner.stop()
        return True

    termination = Termination(stop)
    for report in learner.run():
        print(report.step, flush=True)
    termination.end_if_asked()


def main(folder: Path, where: str) -> None:
    if where == "sigterm":
        end_by_sigterm(folder)
    sink = DyingSink() if where == "publication" else ListSink()
    learner = make(folder, sink=sink, source=ListSource())
    if where == "checkpoint":
        files.save_file = half_written
    if where == "publication":
        learner.save = Unsaved(learner)
    if where == "step":

        def before_step(*_: object) -> None:
            if learner.progress.step == STEP:
                learner.wait()  # for the checkpoint of step 4
                die()

        learner.optimiser.register_step_pre_hook(before_step)
    list(learner.run())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
