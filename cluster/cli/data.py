"""`gato import` and `gato record`: fill data sets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cluster.cli.options import command_group, console, task_names
from cluster.monitor.format import literal

if TYPE_CHECKING:
    from replay.formats.reader import Known, Reading

app = command_group()


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help=(
                "easy-vqa; text (.txt), Parquet with text or with images and text, or a folder of"
                " either; a D4RL file (.hdf5); a Minari data set: its folder, or minari:ID; a JAT"
                " or RLlib file (.parquet) or a folder of them; a folder of the DQN replay data."
            )
        ),
    ],
    task: Annotated[
        str | None, typer.Option(help="The task it is of. Default: what the file says.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the data set here. Default: the file's name.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help=(
                "Accept this difference from the task, such as wrapper:NormalizeObservation. It"
                " is recorded with the episodes. Repeatable."
            ),
        ),
    ] = None,
) -> None:
    """Import demonstrations from a file, to train on with `gato start --data`.

    What the file says of its environment is compared with the task. A contradiction is converted,
    noted, or rejected by name. Episodes that are here already are not read again: after Ctrl-C, the
    same command continues.

    Example: [bold]gato import hopper_expert-v2.hdf5[/bold]
    """
    import_data(source, task=task, name=name, allowed=allow or [], console=console)


@app.command()
def record(
    task: Annotated[
        str,
        typer.Argument(help="A task, such as mujoco/hopper.", autocompletion=task_names),
    ],
    episodes: Annotated[int, typer.Option(min=1, help="Number of episodes.")] = 20,
    name: Annotated[
        str | None, typer.Option(help="Name of the data set here. Default: from the task.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode.")] = 0,
    teacher: Annotated[
        str,
        typer.Option(metavar="SPEC", help="The teacher, as for gato start. Default: what ships."),
    ] = "",
    captions: Annotated[
        bool,
        typer.Option(
            "--captions", help="Record captioned images instead: of some games, and BabyAI."
        ),
    ] = False,
) -> None:
    """Record demonstrations of a task's teacher, to train on with `gato start --data`.

    Example: [bold]gato record atari/freeway --episodes 10[/bold]
    """
    from actors.envs.env import EnvFailedError
    from actors.tasks.resolve import resolve_task
    from actors.teachers.demonstrate import demonstrate
    from actors.teachers.resolve import teacher_for
    from cluster.runs.data import dataset_import
    from cluster.runs.disk_space import require_space
    from cluster.runs.folder import runs_root
    from replay.formats.reader import Reading, attempt_of

    found = resolve_task(task)
    require_space(runs_root())
    if captions:
        from cluster.runs.data.captions import record_captions

        called = name or re.sub(r"[/:]", "-", f"{found.name}-captions")
        record_captions(found, called, episodes=episodes, seed=seed, console=console)
        return
    for note in teacher_for(found, teacher).notes:
        console.print(
            f"[yellow]note:[/yellow] {literal(note.removeprefix('noted: '))}", highlight=False
        )
    played = demonstrate(found, episodes=episodes, seed=seed, teacher_spec=teacher)
    try:
        dataset_import.make(
            name or re.sub(r"[/:]", "-", found.name),
            lambda known: Reading(map(partial(attempt_of, task=found), played), total=episodes),
            {found.name: found},
            console,
            origin=f"record {found.name}",
        )
    except EnvFailedError as problem:
        raise ValueError(
            f"{problem}; gato check {found.name} says more. Episodes before it are kept"
        ) from problem


def import_data(
    source: str, *, task: str | None, name: str | None, allowed: Sequence[str], console: Console
) -> None:
    """Bring the episodes of a file or a folder into a data set here."""
    from actors.envs.gymnasium_env import keyword_defaults
    from actors.tasks.catalog import TASKS
    from actors.tasks.resolve import resolve_task
    from cluster.runs.data import dataset_import, datasets
    from cluster.runs.disk_space import require_space
    from cluster.runs.folder import runs_root
    from replay.formats.detect import needless, read_source
    from replay.formats.reader import ImportOptions

    chosen = resolve_task(task) if task else None
    known_tasks = {**TASKS, chosen.name: chosen} if chosen else dict(TASKS)
    name = name or datasets.name_of(source)
    options = ImportOptions(
        allowed=frozenset(allowed), defaults=keyword_defaults, name=name, find_task=resolve_task
    )
    require_space(runs_root())

    def opened(known: Known) -> Reading:
        reading = read_source(source, known_tasks, chosen, known=known, options=options)
        unused = needless(source, known_tasks, chosen, options=options)
        if reading.report.task and reading.report.task not in known_tasks:
            known_tasks[reading.report.task] = resolve_task(reading.report.task)
        reading.report.notes += [
            f"nothing of this source needs --allow {quote(subject)}" for subject in unused
        ]
        return reading

    dataset_import.make(name, opened, known_tasks, console, origin=source)
