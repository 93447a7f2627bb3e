"""`gato teach`: train a specialist with RLlib, to be a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.cli.options import RayAddress, command_group, console, task_names
from cluster.monitor.format import literal
from cluster.monitor.progress import Progressing

app = command_group()


@app.command()
def teach(
    task: Annotated[
        str,
        typer.Argument(
            help="A task, such as mujoco/hopper or dm-control/cheetah-run.",
            autocompletion=task_names,
        ),
    ],
    steps: Annotated[
        int | None, typer.Option(min=1, help="Environment steps. Default: from its settings.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for its weights and its record. Default: where runs look for teachers."
        ),
    ] = None,
    algorithm: Annotated[
        Literal["ppo", "sac"], typer.Option(help="PPO, or SAC, which is slow on few cores.")
    ] = "ppo",
    address: RayAddress = None,
    env_runners: Annotated[
        int,
        typer.Option(
            min=0,
            help="Processes that play, on all machines of the cluster; 0: the learner plays, too.",
        ),
    ] = 0,
) -> None:
    """Train a teacher for a robot, of MuJoCo or DM Control, with RLlib.

    After Ctrl-C, the same command continues from its last checkpoint.

    Example: [bold]gato teach mujoco/inverted-pendulum --steps 60000[/bold]
    """
    import ray

    from actors.teachers.specialist import SHIPPED
    from actors.teachers.train.config import is_tried, settings_for
    from actors.teachers.train.rllib import teach as train
    from cluster.nodes.connect import connect_ray

    out = out or SHIPPED
    config = settings_for(task, seed=seed, env_steps=steps, algorithm=algorithm)
    if not is_tried(config.task):
        console.print(f"The settings of {config.task} are untried: no specialist of it ships.")
    if algorithm == "sac":
        console.print(
            "RLlib's SAC makes about 7 updates, and as many steps, a second on two cores: PPO is"
            " far sooner there."
        )
    connect_ray(address, namespace="gato-teach", num_cpus=2 + env_runners)
    try:
        with Progressing(config.task, total=config.env_steps, unit="steps") as progress:

            def told(done: int, mean: float | None) -> None:
                shown = "-" if mean is None else f"{mean:,.0f}"
                progress.update(done, what=f"{config.task}: return {shown}")

            made = train(config, out, progress=told, num_env_runners=env_runners)
    except KeyboardInterrupt:
        console.print(
            f"Stopped. The same command goes on from its last checkpoint in {literal(out)}."
        )
        return
    finally:
        ray.shutdown()
    console.print(
        f"{config.task}: {made['return_mean']:,.1f} ± {made['return_std']:,.1f} over 20 episodes;"
        f" written to {literal(out)}"
    )
