"""`gato start` and `gato resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.options import (
    Attach,
    Detach,
    RayAddress,
    RedisUrl,
    ResumeRedisUrl,
    ResumeStorage,
    RunName,
    Storage,
    command_group,
    console,
    preset_names,
)
from cluster.monitor.format import literal
from cluster.runs.presets import RUNS

PRESETS = "\n\n".join(f"[bold]{name}[/bold]: {config.about}" for name, config in RUNS.items())
app = command_group()


@app.command(epilog=f"Presets:\n\n{PRESETS}")
def start(
    run: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|FILE",
            help="A preset, or a config file (.yaml, .toml), such as runs/demo/config.yaml.",
            autocompletion=preset_names,
        ),
    ] = "demo",
    name: Annotated[
        str | None,
        typer.Option(help="Name of the run. Default: the preset's, with a number if it is taken."),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated, such as mujoco/hopper,my_pkg:MyEnv-v0. Default: the preset's."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="A data set of `gato import` or `gato record` to train on. Repeatable."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN|CHECKPOINT|FILE",
            help=(
                "Initial model and weights: a run (its last checkpoint), a checkpoint's folder, or"
                " a file written by gato export."
            ),
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.model|mistral",
            help="SentencePiece model for tasks with text. Default: UTF-8 bytes as tokens.",
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=SPEC",
            help=(
                "The teacher of a task: rule, specialist:FOLDER, sb3:FILE.zip or"
                " python:PACKAGE.MODULE:FUNCTION. Default: the one that ships."
            ),
        ),
    ] = None,
    normalise: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK",
            help=(
                "Normalise this task's observations by the mean and standard deviation of the data"
                " sets. Repeatable; all: every task."
            ),
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Number of actor workers.")] = None,
    updates: Annotated[int | None, typer.Option(help="Number of updates of the learner.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Trace five of the learner's updates, for ui.perfetto.dev."),
    ] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Print settings, expected time and memory by task; start nothing."
        ),
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help=(
                "Any other setting, such as learner.max_rate=1e-3. Repeatable; `gato config show`"
                " lists them."
            ),
        ),
    ] = None,
    address: RayAddress = None,
    home: Annotated[
        str | None,
        typer.Option(
            metavar="NODE",
            help="Node for the learner, by name or address. Default: one with a GPU, or this one.",
        ),
    ] = None,
    storage: Storage = None,
    redis: RedisUrl = None,
    redis_port: Annotated[
        int | None,
        typer.Option(help="Port of the run's own Redis, on loopback. Default: a free one."),
    ] = None,
    detach: Detach = False,
    attach: Attach = False,
    or_resume: Annotated[
        bool,
        typer.Option(
            "--or-resume",
            help=(
                "Resume the run of this name if it exists, and follow it until it finishes or is"
                " stopped (exit status 0) or fails (exit status 2). For services."
            ),
        ),
    ] = False,
) -> None:
    """Start a run and watch it. Ctrl-C stops it and keeps everything; on a cluster it only stops
    watching.

    Example: [bold]gato start demo --workers 2[/bold]
    """
    from actors.tasks.resolve import note_on
    from cluster.control import carry_on, lifecycle
    from cluster.control.build_run import data_notes, make_config, teacher_notes
    from cluster.control.storage import storage_setting
    from cluster.nodes.connect import address_of

    chosen = None if tasks is None else [task.strip() for task in tasks.split(",")]
    if chosen == [""]:
        raise ValueError(
            "--tasks names no task; leave it out, or give names such as hopper,freeway"
        )
    _prepare(run, chosen, data)
    config = make_config(
        run,
        name=name,
        tasks=chosen,
        data=data or [],
        settings=[
            *(set_ or []),
            *_settings(workers=workers, updates=updates, seed=seed),
            *(["learner.profile_updates=5"] if profile else []),
            *storage_setting(storage),
        ],
        text=text,
        teachers=teacher or [],
        normalise=normalise or [],
        weights=from_,
    )
    names = filter(None, map(note_on, chosen or ()))
    for note in [*names, *teacher_notes(config), *data_notes(config)]:
        console.print(f"[yellow]note:[/yellow] {literal(note)}", highlight=False)
    if plan:
        from cluster.control.plan import make_plan, print_plan  # imports torch

        print_plan(make_plan(config), console)
        return
    if or_resume:
        wanted = carry_on.Wanted(
            config=config,
            address=address_of(address) if address is not None else None,
            home=home,
            redis_url=redis,
            redis_port=redis_port,
            updates=updates,
            detach=detach,
            attach=attach,
        )
        carry_on.start_or_resume(wanted, console)
        return
    lifecycle.start(
        config,
        address=address_of(address) if address is not None else None,
        redis_url=redis,
        redis_port=redis_port,
        detach=detach,
        console=console,
        home=home,
        attach=attach,
    )


@app.command()
def resume(
    run: RunName = None,
    updates: Annotated[
        int | None, typer.Option(help="Continue to this number of updates in all.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Number of actor workers.")] = None,
    learners: Annotated[
        int | None, typer.Option(help="Number of processes that train the model together.")
    ] = None,
    address: RayAddress = None,
    home: Annotated[
        str | None,
        typer.Option(
            metavar="NODE",
            help="Node to resume on, from the run's storage, after its home was lost.",
        ),
    ] = None,
    storage: ResumeStorage = None,
    redis: ResumeRedisUrl = None,
    detach: Detach = False,
    attach: Attach = False,
) -> None:
    """Continue a stopped run from its last checkpoint, with all its episodes.

    Settings changed here are stored with the run and apply to later resumes as well.

    Example: [bold]gato resume demo --updates 4000[/bold]
    """
    from cluster.control import lifecycle
    from cluster.control.storage import storage_setting
    from cluster.nodes.connect import address_of

    lifecycle.resume(
        run,
        settings=[
            *_settings(workers=workers, updates=updates, learners=learners),
            *storage_setting(storage),
        ],
        address=address_of(address) if address is not None else None,
        redis_url=redis,
        detach=detach,
        console=console,
        attach=attach,
        to=home,
    )


def _prepare(run: str, tasks: list[str] | None, data: list[str] | None) -> None:
    """Name all packages at once that a preset needs and that are missing, and import the data set
    that it reads if a package holds it."""
    from actors.envs.packages import require_extras
    from cluster.cli.data import import_data
    from cluster.runs.data import datasets

    preset = RUNS.get(run)
    if preset is None:
        return
    wanted = [name for name in data or preset.data if not datasets.is_here(name)]
    require_extras([*(tasks or ([] if data else preset.tasks)), *wanted])
    for name in preset.data if not data else ():
        if name in wanted:
            console.print(f"importing {literal(name)}", highlight=False)
            import_data(name, task=None, name=None, allowed=[], console=console)


def _settings(
    *,
    workers: int | None = None,
    updates: int | None = None,
    seed: int | None = None,
    learners: int | None = None,
) -> list[str]:
    """The options that are short for settings, as settings."""
    given = {
        "actors.num_workers": workers,
        "learner.num_updates": updates,
        "learner.num_learners": learners,
        "seed": seed,
    }
    return [f"{path}={value}" for path, value in given.items() if value is not None]
