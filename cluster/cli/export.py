"""`gato export`: a trained policy as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from cluster.cli.options import command_group, console, run_names
from cluster.monitor.format import literal, number_text
from gato.serialization import from_plain

app = command_group()


@app.command()
def export(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CHECKPOINT|FILE",
            help="A run's name, a checkpoint's folder, or another policy file.",
            autocompletion=run_names,
        ),
    ],
    to: Annotated[
        Path, typer.Argument(metavar="FILE", help="The new file, such as policy.safetensors.")
    ],
    tasks: Annotated[
        str | None, typer.Option(help="Only these tasks, such as mujoco/hopper,atari/pong.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="bf16|fp32", help="Of the weights. A run's actors act in bf16.")
    ] = "bf16",
    prompts: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="STEPS",
            help=(
                "Put so many steps of a stored demonstration of each task into the file, to begin"
                " episodes with. Default: as the run's evaluations."
            ),
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Write a trained policy as one file, which acts with torch and numpy alone.

    Example: [bold]gato export demo policy.safetensors[/bold]
    """
    from cluster.control.export import Precision, export_policy

    try:
        precision = cast(Precision, from_plain(Precision, dtype))
    except ValueError as problem:
        raise ValueError(f"--dtype: {problem}") from problem
    policy = export_policy(
        what,
        to.expanduser(),
        tasks=_names(tasks),
        precision=precision,
        prompt_steps=prompts,
        replace=force,
    )
    prompted = [name for name, each in policy.tasks.items() if each.prompt is not None]
    console.print(
        f"[bold]{literal(to)}[/bold]: {literal(', '.join(policy.tasks))}; weights of step"
        f" {policy.weights.learner_step:,} of {literal(policy.run)}, {dtype},"
        f" {number_text(to.expanduser().stat().st_size / 1e6)} MB"
        + (f"; with a prompt: {literal(', '.join(prompted))}" if prompted else ""),
        highlight=False,
        soft_wrap=True,
    )


def _names(tasks: str | None) -> list[str] | None:
    if tasks is None:
        return None
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise ValueError("--tasks names no task; leave it out for all, or give mujoco/hopper")
    return names
