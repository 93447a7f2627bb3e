"""`gato stop`, `gato scale` and `gato roles`: steer an active run."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.options import RedisUrl, RunName, command_group, console, run_names
from cluster.control import run_control
from cluster.monitor.format import literal

app = command_group()
ROLES = ("evaluate", "generate", "relabel", "demonstrate")


@app.command()
def stop(run: RunName = None, redis: RedisUrl = None) -> None:
    """Stop a run: the learner saves, the workers end. `gato resume` continues it.

    Example: [bold]gato stop demo[/bold]
    """
    folder = run_control.active_run(run)
    name = literal(folder.name)
    if run_control.is_stopping(folder, redis_url=redis):
        console.print(f"run [bold]{name}[/bold] is being stopped already: waiting for its end ...")
    else:
        run_control.ask_to_stop(folder, redis_url=redis)
        console.print(f"stopping run [bold]{name}[/bold]: its learner saves ...")
    run_control.wait_until_stopped(folder)
    console.print(f"run [bold]{name}[/bold] stopped; gato resume {name} continues it")


@app.command()
def scale(
    workers: Annotated[
        str,
        typer.Argument(
            metavar="NUMBER|ROLE=NUMBER,...",
            help="Number of actor workers from now on, or how many for each role.",
        ),
    ],
    run: Annotated[str | None, typer.Option(help="A run's name.", autocompletion=run_names)] = None,
    redis: RedisUrl = None,
) -> None:
    """Change the number of actor workers of an active run.

    Roles share all workers: evaluate=2,generate=6 are eight, a quarter of whose time evaluates.

    Example: [bold]gato scale 4[/bold]
    """
    number, shares = parse_scale(workers)
    folder = run_control.active_run(run)
    if shares:
        run_control.set_roles(folder, shares, redis_url=redis)
    answer = run_control.scale(folder, number, redis_url=redis)
    console.print(
        f"run [bold]{literal(folder.name)}[/bold] goes on with {number} workers"
        + (f" ({literal(answer)})" if " wait" in answer else ""),
        highlight=False,
        soft_wrap=True,
    )


def parse_scale(text: str) -> tuple[int, dict[str, float]]:
    """How many workers, and the share of each role of their time if roles are named.

    Raises:
        ValueError: It is neither a number nor ROLE=NUMBER,...
    """
    fix = f"give a number, or {', '.join(f'{role}=NUMBER' for role in ROLES)}, such as evaluate=2"
    counts: dict[str, int] = {}
    try:
        if "=" not in text:
            number = int(text)
        else:
            for part in text.split(","):
                role, _, count = part.partition("=")
                if role.strip() not in ROLES or role.strip() in counts:
                    raise ValueError
                counts[role.strip()] = int(count)
            number = sum(counts.values())
        if min([number, *counts.values()]) < 0:
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is not a number of workers; {fix}") from None
    if not number:
        return 0, {}
    return number, {f"{role}_share": counts.get(role, 0) / number for role in ROLES if counts}


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
