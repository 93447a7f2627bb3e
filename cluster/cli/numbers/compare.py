"""`gato compare`: runs side by side, those of equal settings averaged over their seeds."""

from __future__ import annotations

import csv as csv_files
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from cluster.cli.options import command_group, console, run_names
from cluster.monitor.curves import OVERALL, Axis
from cluster.monitor.format import NONE, count_text, literal, number_text

if TYPE_CHECKING:
    from cluster.monitor.compare import Band, Group

AXIS_LABELS = {"updates": "updates", "hours": "hours", "tokens": "tokens",
               "env_steps": "environment steps"}  # fmt: skip
COLUMNS = (
    "group", "run", "seed", "task", "axis", "x", "value", "low", "high", "seeds", "tasks",
    "episodes", "return",
)  # fmt: skip
app = command_group()


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Runs here.", autocompletion=run_names)
    ],
    over: Annotated[Axis, typer.Option(help="What the curves are over.")] = "updates",
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE.csv", help="Write all points there.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Write a picture of the curves there.")
    ] = None,
) -> None:
    """Compare runs: those with equal settings are averaged over their seeds.

    Scores are interquartile means of normalised returns (0: random, 1: the teacher) over seeds and
    tasks, with a 95 % bootstrap interval over seeds.

    Example: [bold]gato compare demo demo-2 wide --picture compare.svg[/bold]
    """
    from cluster.exporters.comparing import compare_runs

    _require(picture, ".svg")
    _require(csv, ".csv")
    groups = compare_runs(runs, axis=over)
    _print_groups(groups)
    _print_scores(groups, over)
    if csv is not None:
        _write(csv, lambda out: _write_csv(out, groups, over), newline="")
    if picture is not None:
        drawn = picture_of(groups, over)
        _write(picture, lambda out: out.write(drawn))


def _require(file: Path | None, suffix: str) -> None:
    if file is not None and file.suffix.lower() != suffix:
        raise ValueError(f"{file} must end in {suffix}")


def _write(file: Path, write: Callable[[IO[str]], object], *, newline: str | None = None) -> None:
    try:
        with file.expanduser().open("w", encoding="utf-8", newline=newline) as out:
            write(out)
    except OSError as problem:
        raise ValueError(
            f"cannot write {file} ({problem.strerror}); name a file in a folder that is there"
        ) from problem
    console.print(f"written: {literal(file)}", highlight=False, soft_wrap=True)


def _print_groups(groups: Sequence[Group]) -> None:
    from cluster.monitor.table import print_table

    rows = [
        (group.label, ", ".join(run.name for run in group.runs), _seeds(group)) for group in groups
    ]
    print_table(
        ("group", "runs", "seeds"), rows, console, left=("group", "runs", "seeds"),
        clipped=("runs", "seeds"),
    )  # fmt: skip
    paths = list(groups[0].settings)
    if paths:
        console.print()
        titles = ("setting", *(group.label for group in groups))
        differing = [(path, *(group.settings[path] for group in groups)) for path in paths]
        print_table(titles, differing, console, left=titles, clipped=(*titles[:0:-1], "setting"))
    elif len(groups) == 1:
        console.print("all runs have the same settings but for their seeds", highlight=False)


def _seeds(group: Group) -> str:
    return ", ".join(str(run.settings.get("seed", NONE)) for run in group.runs)


def _print_scores(groups: Sequence[Group], axis: Axis) -> None:
    """Each group where its curves end."""
    from cluster.monitor.table import print_table

    console.print()
    rows: list[tuple[str, ...]] = []
    for task in _tasks(groups):
        for group in groups:
            band = group.bands.get(task)
            if band is not None:
                first = not rows or not any(row[0] == _name(task) for row in rows)
                rows.append((_name(task) if first else "", group.label, *_cells(band)))
    titles = ("task", "group", "IQM", "low", "high", "seeds", AXIS_LABELS[axis])
    print_table(titles, rows, console, left=("task", "group"), clipped=("task",))


def _name(task: str) -> str:
    return "all tasks" if task == OVERALL else task


def _cells(band: Band) -> tuple[str, ...]:
    has_band = band.num_seeds > 1
    return (
        number_text(band.values[-1]),
        number_text(band.lows[-1]) if has_band else NONE,
        number_text(band.highs[-1]) if has_band else NONE,
        str(band.num_seeds),
        count_text(band.xs[-1]) if band.xs[-1] >= 100 else number_text(band.xs[-1]),
    )


def _tasks(groups: Sequence[Group]) -> list[str]:
    """All tasks together first."""
    names = dict.fromkeys(task for group in groups for task in group.bands)
    return sorted(names, key=lambda name: (name != OVERALL, name))


def _write_csv(out: IO[str], groups: Sequence[Group], axis: Axis) -> None:
    writer = csv_files.writer(out)
    writer.writerow(COLUMNS)
    writer.writerows(_rows(groups, axis))


def _rows(groups: Sequence[Group], axis: Axis) -> Iterator[Sequence[object]]:
    """The bands of the groups, whose run is empty, then the points of each run."""
    for group in groups:
        for task in _tasks([group]):
            band = group.bands[task]
            for x, value, low, high in zip(
                band.xs, band.values, band.lows, band.highs, strict=True
            ):
                counts = (band.num_seeds, band.num_tasks)
                yield (group.label, "", "", task, axis, x, value, low, high, *counts, "", "")
        for run in group.runs:
            seed = run.settings.get("seed", "")
            for task, points in run.curves.tasks.items():
                for point in points:
                    normalised = "" if point.normalised is None else point.normalised
                    raw = (point.returns.count, point.returns.mean)
                    yield (
                        group.label, run.name, seed, task, axis, point.at(axis), normalised, "", "",
                        1, 1, *raw,
                    )  # fmt: skip


def picture_of(groups: Sequence[Group], axis: Axis) -> str:
    """A panel for all tasks together and one for each task, as SVG."""
    from cluster.monitor.chart import Line, Panel, draw

    panels: list[Panel] = []
    for task in _tasks(groups):
        lines = [
            Line(
                name=group.label,
                xs=band.xs,
                ys=band.values,
                lows=band.lows,
                highs=band.highs,
                colour=number,
            )
            for number, group in enumerate(groups)
            if (band := group.bands.get(task)) is not None
        ]
        panels.append(Panel(title=_name(task), x_label=AXIS_LABELS[axis], lines=lines))
    legend = [(_legend(group), number) for number, group in enumerate(groups)]
    return draw(panels, legend)


def _legend(group: Group) -> str:
    settings = ", ".join(f"{path}={value}" for path, value in list(group.settings.items())[:4])
    names = [run.name for run in group.runs]
    said = f"{len(names)} seeds" if len(names) > 1 else names[0]
    return f"{group.label}: {said}{f', {settings}' if settings else ''}"
