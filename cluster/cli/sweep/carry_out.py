"""`gato sweep start` and `gato sweep resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.cli.options import SweepName, command_group, console
from cluster.sweep.settings import SchedulerName

app = command_group()
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help=(
            "A running Ray cluster, whose nodes share the folder of the runs. Default: a local one."
        ),
    ),
]
Parallel = Annotated[
    int | None,
    typer.Option(help="Trials at a time. Default: as many as have CPUs."),
]


@app.command()
def start(
    run: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|FILE",
            help="A preset, or a config file, which may have what is varied under `over`.",
        ),
    ] = "demo",
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=DISTRIBUTION",
            help=(
                "A setting and what it is drawn from: log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH"
                " or choice:A,B,... Repeatable."
            ),
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,NAME]",
            help=(
                "Data sets of `gato record` or `gato import`, or a run that has ended, whose replay"
                " is read. Default: the data sets of the file."
            ),
        ),
    ] = None,
    scheduler: Annotated[
        SchedulerName,
        typer.Option(
            help=(
                "asha stops the worse trials early; pbt lets them go on from better ones with"
                " changed settings; none trains all to the end."
            )
        ),
    ] = "asha",
    trials: Annotated[int, typer.Option(help="Number of trials.")] = 8,
    updates: Annotated[
        int | None, typer.Option(help="Updates of a whole trial. Default: the run's.")
    ] = None,
    evaluate_every: Annotated[
        int | None,
        typer.Option(
            help="Updates from one evaluation of a trial to the next. Default: a sixth of all."
        ),
    ] = None,
    episodes: Annotated[int, typer.Option(help="Episodes of each task in an evaluation.")] = 3,
    reduction: Annotated[
        int | None,
        typer.Option(help="Of asha: about one in this many trials passes a rung. Default: 3."),
    ] = None,
    parallel: Parallel = None,
    cpus: Annotated[int, typer.Option(help="CPUs of a trial, and its threads.")] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs of a trial.")] = 0,
    name: Annotated[
        str | None, typer.Option(help="Name of the sweep. Default: the run's, with a number.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sweep and its trials.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PATH=VALUE", help="A setting that all trials share. Repeatable."
        ),
    ] = None,
    address: Address = None,
) -> None:
    """Carry out a sweep. Ctrl-C ends it, and everything is kept.

    Example: [bold]gato sweep start demo --data hopper --over learner.max_rate=log:1e-4:3e-3[/bold]
    """
    from cluster.sweep import carry_out
    from cluster.sweep.build import Asked

    asked = Asked(
        base=run,
        name=name,
        data=data or [],
        over=over or [],
        settings=set_ or [],
        scheduler=scheduler,
        reduction=reduction,
        trials=trials,
        updates=updates,
        evaluate_every=evaluate_every,
        episodes=episodes,
        seed=seed,
        cpus=cpus,
        gpus=gpus,
    )
    carry_out.start(asked, carry_out.Where(address=address, parallel=parallel), console)


@app.command()
def resume(name: SweepName = None, parallel: Parallel = None, address: Address = None) -> None:
    """Go on with a sweep that was ended or killed. No trial that is over is trained again.

    Example: [bold]gato sweep resume demo[/bold]
    """
    from cluster.sweep import carry_out

    carry_out.resume(name, carry_out.Where(address=address, parallel=parallel), console)
