"""`gato stop`, `gato scale` and `gato roles`: steer an active run."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.options import RedisUrl, RunName, command_group, console
from cluster.control import run_control
from cluster.monitor.format import literal

app = command_group()


@app.command()
def stop(run: RunName = None, redis: RedisUrl = None) -> None:
    """Stop a run: the learner saves, the workers end. `gato resume` continues it.

    Example: [bold]gato stop demo[/bold]
    """
    folder = run_control.active_run(run)
    name = literal(folder.name)
    run_control.ask_to_stop(folder, redis_url=redis)
    console.print(f"stopping run [bold]{name}[/bold]: its learner saves ...")
    run_control.wait_until_stopped(folder)
    console.print(f"run [bold]{name}[/bold] stopped; gato resume {name} continues it")


@app.command()
def scale(
    workers: Annotated[int, typer.Argument(min=0, help="Number of actor workers from now on.")],
    run: Annotated[str | None, typer.Option(help="A run's name.")] = None,
    redis: RedisUrl = None,
) -> None:
    """Change the number of actor workers of an active run.

    Example: [bold]gato scale 4[/bold]
    """
    folder = run_control.active_run(run)
    run_control.scale(folder, workers, redis_url=redis)
    console.print(f"run [bold]{literal(folder.name)}[/bold] goes on with {workers} workers")


@app.command()
def roles(
    run: RunName = None,
    evaluate: Annotated[float | None, typer.Option(help="At most this share evaluating.")] = None,
    generate: Annotated[
        float | None, typer.Option(help="The agent plays, to learn from its own good episodes.")
    ] = None,
    relabel: Annotated[
        float | None, typer.Option(help="The agent plays, its teacher labels each step (DAgger).")
    ] = None,
    demonstrate: Annotated[
        float | None, typer.Option(help="The teacher plays, for more demonstrations.")
    ] = None,
    redis: RedisUrl = None,
) -> None:
    """Change how an active run divides its workers' time among roles.

    A share is 0 to 1.

    Example: [bold]gato roles demo --relabel 0.5 --generate 0[/bold]
    """
    given = {
        "evaluate": evaluate,
        "generate": generate,
        "relabel": relabel,
        "demonstrate": demonstrate,
    }
    shares = {f"{role}_share": share for role, share in given.items() if share is not None}
    if not shares:
        raise ValueError(
            "nothing to change; name --evaluate, --generate, --relabel or --demonstrate, each from"
            " 0 to 1"
        )
    folder = run_control.active_run(run)
    run_control.set_roles(folder, shares, redis_url=redis)
    name = literal(folder.name)
    console.print(f"run [bold]{name}[/bold] was asked for other shares; gato watch {name}")
