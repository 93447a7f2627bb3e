"""`gato evaluate`: play a checkpoint and print its returns."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from actors.records.marks import BITS_PER_BYTE
from actors.tasks.resolve import resolve_task
from cluster.cli.options import AsJson, command_group, console, run_names, task_names
from cluster.control.evaluation.domains import domains_table
from cluster.control.evaluation.report import EvaluationReport, TaskResult
from cluster.monitor.format import literal, number_text
from cluster.monitor.progress import Progressing
from cluster.monitor.scores import MEASURES, mean_success
from cluster.runs.folder import RunFolder, find_run, runs_root

app = command_group()


@app.command()
def evaluate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CHECKPOINT",
            help="A run's name, or a checkpoint's folder.",
            autocompletion=run_names,
        ),
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(help="Only this task. Repeatable.", autocompletion=task_names),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each task.")] = 10,
    video: Annotated[
        bool, typer.Option("--video", help="Film each task's first episode, into the run's folder.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an interrupted evaluation of this checkpoint."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Play the last checkpoint of a run and print its returns.

    For a run on a cluster, the evaluation runs on its home, where the files are. Each episode is
    saved in the run's folder as soon as it ends.

    Example: [bold]gato evaluate demo --episodes 20[/bold]
    """
    away = _run_elsewhere(what)
    if away is not None:
        _report(_played_at_home(away, task, episodes, video, resume=resume), as_json)
        return
    from cluster.control.evaluation.evaluate import evaluate_run, locate, log_file
    from cluster.runs.evaluation_log import EvaluationLog

    found = locate(what)
    names = [resolve_task(name).name for name in task] if task else list(found.config.tasks)
    untrained = found.untrained(names)
    if untrained and not as_json:
        trained = ", ".join(found.config.tasks)
        _warn(
            console,
            f"{found.config.name} was never trained on {', '.join(untrained)}; it was trained on"
            f" {trained}",
        )
    log = EvaluationLog(log_file(found), found.path, resume=resume)
    what, total = f"evaluating {found.config.name}", len(names) * episodes
    try:
        with closing(log), Progressing(what, total=total, unit="episodes") as progress:
            report = evaluate_run(
                found, tasks=names, episodes=episodes, video=video, log=log, progress=progress
            )
    except KeyboardInterrupt:
        _warn(
            Console(stderr=True, emoji=False),
            f"stopped; its episodes are in {log.file}, and --resume goes on with them",
        )
        raise
    _report(report, as_json)


def _run_elsewhere(what: str) -> RunFolder | None:
    """The run of this name, if its files are on another machine."""
    if "/" in what or not (runs_root() / what / "run.json").is_file():
        return None
    folder = find_run(what)
    return folder if folder.home is not None and not folder.home.is_here else None


def _played_at_home(
    folder: RunFolder, task: list[str] | None, episodes: int, video: bool, *, resume: bool
) -> EvaluationReport:
    from cluster.control.at_home import evaluate_at_home

    assert folder.home is not None
    names = [resolve_task(name).name for name in task] if task else list(folder.config().tasks)
    what, total = f"evaluating {folder.name} on {folder.home.node}", len(names) * episodes
    with Progressing(what, total=total, unit="episodes") as progress:
        return evaluate_at_home(
            folder.name, folder.home, tasks=names, episodes=episodes, video=video, resume=resume,
            progress=progress,
        )  # fmt: skip


def _report(report: EvaluationReport, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(to_json(report)) + "\n")
    else:
        print_report(report, console)


def to_json(report: EvaluationReport) -> Mapping[str, object]:
    """The report as what `gato evaluate --json` prints."""
    return {
        "checkpoint": str(report.checkpoint),
        "tasks": {name: _task_json(result) for name, result in report.tasks.items()},
        "aggregate": {by: asdict(a) if a else None for by, a in report.aggregates.items()},
        "success": mean_success(report.success_rates),
        "clips": {name: str(file) for name, file in report.clips.items()},
    }


def _task_json(result: TaskResult) -> dict[str, object]:
    return {
        "step": result.learner_step,
        "return": result.mean,
        "return_std": result.std,
        "normalised": result.normalised("teacher"),
        "expert_normalised": result.normalised("expert"),
        "human_normalised": result.normalised("human"),
        "success": result.success_rate,
        "random_return": result.scale.random_return if result.scale else None,
        "trained": result.is_trained,
        "episodes": len(result.returns),
        "returns": list(result.returns),
        "measures": dict(result.measures),
        "warnings": list(result.warnings),
    }


def print_report(report: EvaluationReport, console: Console) -> None:
    """Print a table of the tasks, what is doubtful, the clips, and the mean over tasks."""
    console.print(f"checkpoint {literal(report.checkpoint)}", highlight=False)
    console.print(_table(report))
    for name, result in report.tasks.items():
        if result.measures:
            said = ", ".join(measure_text(*measure) for measure in result.measures.items())
            console.print(f"{literal(name)}: {literal(said)}", highlight=False, soft_wrap=True)
        for warning in result.warnings:
            _warn(console, f"{name}: {warning}")
    _print_clips(report, console)
    for by, over in report.aggregates.items():
        if over is not None and over.num_tasks > 1:
            said = f"interquartile mean over {over.num_tasks} tasks: {over.iqm:.2f} of the {by}'s"
            if (bounds := over.bounds) is not None:
                said += f", 95 % interval {bounds[0]:.2f} to {bounds[1]:.2f} over other episodes"
            console.print(said, highlight=False)

    domains = domains_table(report)
    if domains is not None:
        console.print(domains)
    rates = report.success_rates
    mean = mean_success(rates)
    if mean is not None and len(rates) > 1:
        console.print(f"mean success over {len(rates)} tasks: {mean:.0%}", highlight=False)


def measure_text(name: str, value: float) -> str:
    """A measure of held-out records: a share, or bits per byte."""
    return f"{name} {value:.3f}" if name == BITS_PER_BYTE else f"{name} {value:.1%}"


def _table(report: EvaluationReport) -> Table:
    rates = report.success_rates
    titles = ["task", "return", "±", "random", *(f"of {by}" for by in MEASURES), "episodes"]
    titles += ["success"] if rates else []
    table = Table(*titles, box=None, header_style="bold")
    table.columns[0].overflow = "fold"
    for name, result in report.tasks.items():
        table.add_row(
            literal(name),
            f"{result.mean:,.1f}",
            f"{result.std:,.1f}",
            number_text(result.scale.random_return if result.scale else None),
            *(number_text(result.normalised(by)) for by in MEASURES),
            str(len(result.returns)),
            *([f"{rates[name]:.0%}" if name in rates else "-"] if rates else []),
        )
    return table


def _print_clips(report: EvaluationReport, console: Console) -> None:
    files: list[Path] = list(report.clips.values())
    for file in files:
        console.print(f"clip {literal(file)}", highlight=False, soft_wrap=True)
    for problem in report.clip_problems:
        console.print(f"no clip: {literal(problem)}", highlight=False)
    if any(file.suffix == ".gif" for file in files):
        console.print(
            "GIFs hold the beginning alone; for MP4: pip install -e '.[video]' in the project's"
            " folder",
            highlight=False,
            markup=False,
        )


def _warn(console: Console, text: str) -> None:
    console.print(f"[yellow]warning:[/yellow] {literal(text)}", highlight=False, soft_wrap=True)
