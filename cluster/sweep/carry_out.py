"""Carry out a sweep, from its start or from where it was ended."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import ray
from ray.exceptions import RayError
from rich.console import Console

from cluster.control.build_run import data_notes
from cluster.journal.records import Event
from cluster.monitor.format import literal
from cluster.nodes.connect import connect_ray
from cluster.runs.disk_space import require_space
from cluster.runs.folder import runs_root
from cluster.sweep.build import Asked, check_trials, make_sweep
from cluster.sweep.folder import SweepFolder, find_sweep
from cluster.sweep.journal import Planned
from cluster.sweep.merge import merge_data
from cluster.sweep.nodes import nodes_for_trials
from cluster.sweep.plan import SweepConfig, draw_trials
from cluster.sweep.results import print_sweep, write_results
from cluster.sweep.trial_log import TrialLog
from cluster.sweep.tune_trials import run_trials


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where a sweep is carried out."""

    address: str | None = None
    """Of a Ray cluster. None: a local one."""
    parallel: int | None = None
    """Trials at a time. None: as many as have CPUs."""

    def check(self, sweep: SweepConfig) -> None:
        """Raises ValueError where they do not fit the sweep."""
        if self.parallel is not None and self.parallel < 1:
            raise ValueError(f"--parallel {self.parallel} must be at least 1")
        if sweep.scheduler == "pbt" and self.address is not None and self.parallel is not None:
            raise ValueError(
                "pbt on a cluster trains as many trials at a time as the cluster has room for;"
                " leave --parallel out, or raise --cpus"
            )


def start(asked: Asked, where: Where, console: Console) -> SweepFolder:
    """Carry out a new sweep to its end. Raises ValueError if something that was asked is wrong, or
    no trial got a score."""
    sweep = make_sweep(asked)
    where.check(sweep)
    check_trials(sweep, draw_trials(sweep))
    for note in data_notes(sweep.base):
        console.print(f"[yellow]note:[/yellow] {literal(note)}", highlight=False)
    require_space(runs_root())
    folder = SweepFolder.create(sweep)
    with folder.alone():
        _carry_out(folder, where, console, word="started")
    return folder


def resume(name: str | None, where: Where, console: Console) -> SweepFolder:
    """Carry out what is left of a sweep. Raises ValueError if it is over, or goes on elsewhere."""
    folder = find_sweep(name)
    where.check(folder.plan())
    with folder.alone():
        trials = TrialLog(folder, folder.plan(), say=lambda _: None).trials
        if trials and all(trial.is_over for trial in trials.values()):
            raise ValueError(
                f"sweep {folder.name} is over: each trial has ended; gato sweep show {folder.name}"
            )
        require_space(folder.path)
        _carry_out(folder, where, console, word="resumed")
    return folder


def _prepare(folder: SweepFolder, console: Console) -> SweepConfig:
    """Episodes and trials, unless they are there. A process may be killed at any place of it."""
    sweep = folder.plan()
    if not sweep.stores:
        store = merge_data(sweep.base, folder.path / "replay", console)
        sweep = replace(sweep, stores=(str(store),))
        folder.write_plan(sweep)
    known = TrialLog(folder, sweep, say=lambda _: None).trials
    for number, settings in enumerate(draw_trials(sweep), 1):
        if number not in known:
            folder.journal.append(Planned(trial=number, settings=settings))
    return sweep


def _carry_out(folder: SweepFolder, where: Where, console: Console, *, word: str) -> None:
    sweep = _prepare(folder, console)
    log = TrialLog(
        folder,
        sweep,
        say=lambda line: console.print(literal(line), highlight=False, soft_wrap=True),
    )
    left = sum(not trial.is_over for trial in log.trials.values())
    folder.journal.append(Event(kind=word, text=f"{left} of {sweep.trials} trials to go"))
    console.print(
        f"sweep [bold]{literal(folder.name)}[/bold] in {literal(folder.path)}: {left} of"
        f" {sweep.trials} trials to go; starting Ray ...",
        highlight=False,
        soft_wrap=True,
    )
    parallel = where.parallel or max(1, len(os.sched_getaffinity(0)) // sweep.cpus)
    # Ray's workers have it from their start: PyTorch would take a thread for each core.
    os.environ["OMP_NUM_THREADS"] = str(sweep.cpus)
    connect_ray(
        where.address,
        namespace=f"gato-sweep-{folder.name}",
        num_cpus=None if where.address else parallel * sweep.cpus,
    )
    try:
        paths = [folder.path / "sweep.json", *(Path(store) for store in sweep.stores)]
        nodes = nodes_for_trials(paths, cpus=sweep.cpus, gpus=sweep.gpus)
        run_trials(
            folder, sweep, log, max_parallel=where.parallel if where.address else None, nodes=nodes
        )
    except RayError as problem:
        raise ValueError(
            f"Ray ended: {str(problem).splitlines()[0]}; gato sweep resume {folder.name} goes on"
        ) from problem
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.shutdown()
    _finish(folder, sweep, log, console)


def _finish(folder: SweepFolder, sweep: SweepConfig, log: TrialLog, console: Console) -> None:
    trials = list(log.trials.values())
    left = [trial for trial in trials if not trial.is_over]
    over = f"{len(trials) - len(left)} of {len(trials)} trials are over"
    folder.journal.append(Event(kind="ended" if not left else "interrupted", text=over))
    write_results(folder, sweep, trials)
    if all(trial.score is None for trial in trials):
        why = next((trial.reason for trial in trials if trial.reason), "it was interrupted")
        raise ValueError(f"no trial of sweep {folder.name} has a score: {why}")
    print_sweep(folder, sweep, trials, console)
    if left:
        name = literal(folder.name)
        console.print(f"{over}; gato sweep resume {name} goes on", highlight=False)
