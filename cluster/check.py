"""`gato check TASK`: whether a task's environment keeps what every environment must, said line by line."""

from __future__ import annotations

from functools import partial
from typing import Literal

from rich.console import Console
from rich.markup import escape

from actors.user_tasks import resolve_task


def check_task(name: str, *, backend: Literal["loop", "process", "envpool"], console: Console) -> bool:
    """Say what is found, and whether there is no error. ValueError where the task is unknown or cannot be made."""
    from actors.conformance import CHECKS, findings
    from actors.envs import make_envs

    task = resolve_task(name)
    found = list(findings(task, partial(make_envs, backend=backend)))
    for finding in found:
        console.print(f"[{'red' if finding.is_error else 'yellow'}]{escape(str(finding))}[/]", soft_wrap=True)
    errors = sum(finding.is_error for finding in found)
    console.print(f"{task.name}: {len(CHECKS)} checks, {errors} errors, {len(found) - errors} warnings")
    return not errors
