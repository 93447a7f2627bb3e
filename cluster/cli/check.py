"""`gato check TASK`: whether a task's environment keeps the contract of environments."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from functools import partial
from typing import IO, TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from cluster.cli.options import command_group, console, task_names
from cluster.monitor.format import literal

if TYPE_CHECKING:
    from gato.task import Task

IMPORT_TIMEOUT_S = 120.0
IMPORT = "import sys; from actors.tasks.resolve import resolve_task; resolve_task(sys.argv[1])"


app = command_group()


@app.command()
def check(
    task: Annotated[
        str,
        typer.Argument(help="A task, such as mujoco/hopper.", autocompletion=task_names),
    ],
    backend: Annotated[
        Literal["auto", "loop", "process", "envpool"],
        typer.Option(help="How its environments are made; auto: users' own in processes."),
    ] = "auto",
) -> None:
    """Check that a task's environment keeps the contract of environments.

    Seeds, limits, shapes, independent rows and more; exit status 1 if it does not.

    Example: [bold]gato check atari/pong[/bold]
    """
    if not check_task(task, backend=backend, console=console):
        raise typer.Exit(1)


def check_task(
    name: str, *, backend: Literal["auto", "loop", "process", "envpool"], console: Console
) -> bool:
    """Say what is found, and whether there is no error. ValueError where the task is unknown or
    cannot be made.

    With `auto`, users' own environments are made in processes, so that one that ends or hangs does
    not end or hang the check.
    """
    from actors.envs.conformance import Finding, findings
    from actors.envs.conformance_checks import CHECKS
    from actors.envs.factory import make_envs
    from gato.config import PRESETS
    from gato.sequence import StepLayout
    from gato.text import ByteEncoder
    from gato.tokenizer import TokenLayout

    with tempfile.TemporaryFile() as log:
        task = _resolved(name)
        chosen = (
            ("process" if task.family == "gymnasium" else "loop") if backend == "auto" else backend
        )
        found = list(findings(task, partial(make_envs, backend=chosen, log=log)))
        if printed := _lines(log):
            problem = (
                f"it printed {len(printed):,} lines in these checks, the last one"
                f" {printed[-1][:80]!r}; take that out, or use logging: it slows each step"
            )
            found.append(Finding(check="it prints nothing", problem=problem, is_error=False))
    tokens = StepLayout(task, TokenLayout(text=ByteEncoder())).tokens_per_step
    largest = max(model.context_tokens for model in PRESETS.values())
    if tokens > largest:
        problem = (
            f"a step has {tokens:,} tokens, the largest model here a context of {largest:,}; show"
            " less: smaller images (gymnasium.wrappers.ResizeObservation), as Box(0, 255,"
            " dtype=uint8), of which 256 pixels are one token"
        )
        found.append(Finding(check="a step fits into a context", problem=problem, is_error=False))
    for finding in found:
        console.print(
            f"[{'red' if finding.is_error else 'yellow'}]{literal(finding)}[/]", soft_wrap=True
        )
    errors = sum(finding.is_error for finding in found)
    console.print(
        f"{literal(task.name)}: {len(CHECKS)} checks, {errors} errors, {len(found) - errors}"
        " warnings"
    )
    return not errors


def _lines(log: IO[bytes]) -> list[str]:
    """What was printed, without what says nothing."""
    log.seek(0)
    return [
        line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()
    ]


def _resolved(name: str) -> Task:
    """The task, which is found in another process first: importing or making it may end or hang
    Python itself."""
    from actors.tasks.catalog import TASKS
    from actors.tasks.resolve import resolve_task
    from gato.task import find_task

    try:
        return find_task(name, TASKS)
    except ValueError:
        pass
    try:
        ended = subprocess.run(
            [sys.executable, "-c", IMPORT, name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=IMPORT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"importing, making or closing {name} did not end in {IMPORT_TIMEOUT_S:g} s;"
            f" {_try_it(name)}"
        ) from None
    if ended.returncode not in (0, 1):  # 1: an exception, which is met again below and says more
        how = (
            signal.Signals(-ended.returncode).name
            if ended.returncode < 0
            else f"exit status {ended.returncode}"
        )
        raise ValueError(
            f"importing, making or closing {name} ends Python ({how}); {_try_it(name)}"
        )
    return resolve_task(name)


def _try_it(name: str) -> str:
    module, colon, _ = name.partition(":")
    imported = f", {module}" if colon else ""
    return f"""try python -c "import gymnasium{imported}; gymnasium.make({name!r}).close()\""""
