"""`gato debug-step`: repeat a step whose loss or gradient was not finite."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cluster.cli.options import AsJson, command_group, console
from cluster.monitor.format import literal

if TYPE_CHECKING:
    from learner.checkpoints.failed_step import StepFindings

MAX_NAMES = 3

app = command_group()


@app.command(name="debug-step")
def debug_step(
    folder: Annotated[
        Path, typer.Argument(help="A folder such as runs/demo/checkpoints/failed-step-000000812.")
    ],
    as_json: AsJson = False,
) -> None:
    """Repeat a step whose loss or gradient was not finite, and say of which task and parameter.

    A learner that stops for such a step saves it: weights, optimiser, batch and random numbers.

    Example: [bold]gato debug-step runs/demo/checkpoints/failed-step-000000812[/bold]
    """
    from learner.checkpoints.failed_step import repeat_step

    findings = repeat_step(folder)
    if as_json:
        sys.stdout.write(json.dumps(asdict(findings)) + "\n")
    else:
        _print(findings)


def _print(findings: StepFindings) -> None:
    console.print(f"step {findings.step:,}: {literal(findings.what)} in the run", highlight=False)
    table = Table("task", "loss", "not finite", "gradients not finite", box=None)
    for name, task in findings.tasks.items():
        table.add_row(
            literal(name),
            f"{task.loss.value:.4g}",
            f"{task.bad_losses:,} of {task.loss.count:,} targets",
            literal(_names(task.bad_gradients)),
        )
    console.print(table)
    console.print(f"gradient norm {findings.gradient_norm:.4g}", highlight=False)
    weights = _names(findings.bad_weights)
    console.print(f"weights not finite before the step: {literal(weights)}", highlight=False)
    if findings.episode_keys:
        keys = literal(" ".join(findings.episode_keys))
        console.print(f"episodes in the batch: {keys}", highlight=False, soft_wrap=True)


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return (", ".join(names[:MAX_NAMES]) or "none") + more
