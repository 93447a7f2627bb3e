"""Ray Tune carries the trials of a sweep out: a trial as a trainable, and the call."""

from __future__ import annotations

import logging
import math
import os
import random
import shutil
import warnings
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from cluster.sweep.folder import SweepFolder
from cluster.sweep.plan import SweepConfig
from cluster.sweep.training import Slice, train
from cluster.sweep.trial_log import HOW, TrialLog
from cluster.sweep.tune_schedulers import Halving, RecordingPbt, RecordingScheduler
from learner.update import LossNotFinite

MOST_RETRIES = 2
"""How often a trial whose process died is tried again."""
OPTIONS: Mapping[str, str] = {
    # No event files, progress tables or early warnings: the sweep's journal is what is read.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "3600",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class SweepTrial(tune.Trainable):
    """One trial. A step is one slice of its training.

    All that it is lies in its folder: what Tune saves and restores is only a mark.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._open(config)

    def _open(self, config: dict[str, Any]) -> None:
        self._folder = SweepFolder(Path(config["sweep"]))
        self._trial = config["trial"]
        self._slices: Generator[Slice] | None = None

    def _begin(self) -> Generator[Slice]:
        sweep = self._folder.plan()
        number, generation = self._trial["number"], self._trial["generation"]
        # From the journal, not from the config: a process that died is started with the same one.
        known = TrialLog(self._folder, sweep, say=lambda _: None).trials[number]
        path = self._folder.trial_path(number, generation)
        return train(path, sweep, reported_step=known.step)

    def step(self) -> dict[str, Any]:
        try:
            if self._slices is None:
                self._slices = self._begin()
            part = next(self._slices, None)
        except LossNotFinite as problem:
            return _over("diverged", problem)
        except (ValueError, OSError, RuntimeError) as problem:
            return _over("failed", problem)
        if part is None:
            return _over("finished")
        return {
            "step": part.step,
            "score": part.score,
            "loss": part.loss,
            "returns": list(part.returns.items()),
            **({"done": True, HOW: "finished"} if part.is_last else {}),
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "trial.txt").write_text(f"{self._trial['number']}\n")

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: `train` goes on from the newest checkpoint in the trial's folder."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Be another trial, in the same process."""
        self.cleanup()
        self._open(new_config)
        return True

    def cleanup(self) -> None:
        if self._slices is not None:
            self._slices.close()
            self._slices = None


def _over(how: str, problem: object = "") -> dict[str, Any]:
    reason = " ".join(str(problem).split())
    return {"step": 0, "score": math.nan, "loss": None, "done": True, HOW: how, "reason": reason}


def run_trials(
    folder: SweepFolder,
    sweep: SweepConfig,
    log: TrialLog,
    *,
    max_parallel: int | None,
    nodes: Sequence[str] | None,
) -> None:
    """Carry out all trials that are not over, on the Ray that this process is connected to. Ctrl-C
    ends it early.

    Args:
        folder: Of the sweep, with the folders of its trials.
        sweep: Its settings.
        log: What happened before.
        max_parallel: Trials at a time. None: as many as have room.
        nodes: Ids of the nodes that see the sweep's folder. None: all do.
    """
    halving = _halving(log, folder, sweep)
    for trial in list(log.trials.values()):
        if trial.step >= sweep.updates:
            log.ended(trial.number, "finished")
    left = [trial for trial in log.trials.values() if not trial.is_over]
    if not left:
        return
    for trial in left:
        folder.make_trial(sweep, trial)
    # Tune's schedulers draw from the global generator: another one after each resume.
    random.seed(f"{sweep.base.seed}/{len(folder.journal.read())}")
    os.environ.update({**OPTIONS, "TUNE_MAX_PENDING_TRIALS_PG": str(len(left))})
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scheduler = (
        RecordingPbt(sweep, log) if sweep.scheduler == "pbt" else RecordingScheduler(log, halving)
    )
    trials = [
        {"number": t.number, "generation": t.generation, "settings": dict(t.settings)} for t in left
    ]
    scratch = folder.path / "tune"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Not `Tuner`, which pickles the scheduler: ours holds the journal.
            tune.run(
                SweepTrial,
                name=scratch.name,
                metric="score",
                mode="max",
                config={"sweep": str(folder.path), "trial": tune.grid_search(trials)},
                resources_per_trial=_resources(sweep, nodes),
                storage_path=str(scratch.parent),
                scheduler=scheduler,
                verbose=0,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
                max_failures=MOST_RETRIES,
                reuse_actors=True,
                raise_on_failed_trial=False,
                max_concurrent_trials=max_parallel,
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _name(trial: Any) -> str:
    return f"trial-{trial.config['trial']['number']}"


def _halving(log: TrialLog, folder: SweepFolder, sweep: SweepConfig) -> Halving | None:
    """With all reports of the journal, in their order; None where nothing is halved. What a killed
    process had reported and not decided yet is decided."""
    if sweep.scheduler != "asha":
        return None
    halving = Halving(sweep)
    for trial in sorted(halving.replay(folder.journal.read())):
        if not log.trials[trial].is_over:
            log.stopped(trial, log.trials[trial].step)
    return halving


def _resources(sweep: SweepConfig, nodes: Sequence[str] | None) -> tune.PlacementGroupFactory:
    bundle = {"CPU": float(sweep.cpus)} | ({"GPU": float(sweep.gpus)} if sweep.gpus else {})
    if nodes is None:
        return tune.PlacementGroupFactory([bundle])
    selector = {"ray.io/node-id": f"in({','.join(nodes)})"}
    return tune.PlacementGroupFactory([bundle], bundle_label_selector=[selector])
