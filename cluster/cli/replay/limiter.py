"""`gato replay pause`, `resume` and `limit`: the rate limiter of an active run."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.options import ActiveRun, RedisUrl, command_group, console
from cluster.control import run_control
from cluster.monitor.format import literal
from cluster.runs.folder import RunFolder

app = command_group()


@app.command()
def pause(run: ActiveRun = None, redis: RedisUrl = None) -> None:
    """Switch the rate limiter off, as for an offline fill, until `gato replay resume`.

    Example: [bold]gato replay pause demo[/bold]
    """
    folder = run_control.active_run(run)
    run_control.pause_limiter(folder, True, redis_url=redis)
    _asked(folder, "to switch its rate limiter off")


@app.command()
def resume(run: ActiveRun = None, redis: RedisUrl = None) -> None:
    """Switch the rate limiter on again; what came in meanwhile does not count.

    Example: [bold]gato replay resume demo[/bold]
    """
    folder = run_control.active_run(run)
    run_control.pause_limiter(folder, False, redis_url=redis)
    _asked(folder, "to switch its rate limiter on again")


@app.command()
def limit(
    run: ActiveRun = None,
    reads_per_token: Annotated[
        float | None, typer.Option(help="How often each inserted token is read from now on.")
    ] = None,
    slack: Annotated[
        int | None, typer.Option(help="Read tokens by which either side may be ahead.")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(help="Inserted tokens before anything is read.")
    ] = None,
    uncoupled: Annotated[
        bool, typer.Option("--uncoupled", help="Let readers and writers go on without each other.")
    ] = False,
    redis: RedisUrl = None,
) -> None:
    """Change the rate limiter of an active run.

    Example: [bold]gato replay limit demo --reads-per-token 8[/bold]
    """
    if uncoupled and reads_per_token is not None:
        raise ValueError(
            "--uncoupled and --reads-per-token contradict each other; give one of them"
        )
    given = {
        "reads_per_inserted_token": reads_per_token,
        "slack_tokens": slack,
        "warmup_tokens": warmup,
    }
    changes: dict[str, float | None] = {
        name: value for name, value in given.items() if value is not None
    }
    if uncoupled:
        changes["reads_per_inserted_token"] = None
    if not changes:
        raise ValueError(
            "nothing to change; name --reads-per-token, --slack, --warmup or --uncoupled"
        )
    folder = run_control.active_run(run)
    run_control.set_limiter(folder, changes, redis_url=redis)
    _asked(folder, "for other settings of its rate limiter")


def _asked(folder: RunFolder, what: str) -> None:
    name = literal(folder.name)
    console.print(f"run [bold]{name}[/bold] was asked {what}; gato watch {name} shows the effect")
