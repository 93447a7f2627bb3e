"""`gato teach`: train a specialist, show how far it is, go on where it was stopped."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from actors.teachers.train.config import Algorithm, is_tried, settings_for
from cluster.monitor.format import literal


def teach(
    task: str,
    *,
    steps: int | None,
    seed: int,
    out: Path | None,
    algorithm: Algorithm,
    address: str | None,
    num_env_runners: int,
    console: Console,
) -> None:
    """Train a specialist and say how good it got. ValueError where there are no settings, or no Ray
    at `address`."""
    import ray

    from actors.teachers.specialist import SHIPPED
    from actors.teachers.train.rllib import teach as train
    from cluster.control.launch import connect_ray

    out = out or SHIPPED
    config = settings_for(task, seed=seed, env_steps=steps, algorithm=algorithm)
    if not is_tried(config.task):
        console.print(f"The settings of {config.task} are untried: no specialist of it ships.")
    if algorithm == "sac":
        console.print(
            "RLlib's SAC makes about 7 updates, and as many steps, a second on two cores: PPO is"
            " far sooner there."
        )
    connect_ray(address, namespace="gato-teach", num_cpus=2 + num_env_runners)
    try:
        with Progress(console=console) as bar:
            entry = bar.add_task(f"{config.task}: return -", total=config.env_steps)

            def told(done: int, mean: float | None) -> None:
                shown = "-" if mean is None else f"{mean:,.0f}"
                bar.update(entry, completed=done, description=f"{config.task}: return {shown}")

            made = train(config, out, progress=told, num_env_runners=num_env_runners)
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
