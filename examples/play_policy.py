"""Loads a trained policy and plays a task with it, in this process and without Ray.

python examples/play_policy.py debug                          # after `gato start debug`
python examples/play_policy.py runs/demo/checkpoints/step-000002000 hopper
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from actors.envs.factory import make_envs
from actors.players.gato_player import GatoPlayers
from actors.rollout import play
from cluster.control.evaluate import locate
from cluster.control.resolve import acting_configs, layout_of, tasks_of
from gato.episode import Episode
from gato.network.model import Gato
from gato.task import find_task
from gato.version import Version
from gato.weights import Weights, snapshot
from learner.checkpoint import load_checkpoint


def episodes(
    what: str, task_name: str | None, *, seeds: range, num_envs: int = 2
) -> Iterator[Episode]:
    """Whole episodes of a run's last checkpoint, or of a checkpoint's folder."""
    found = locate(what)
    config = found.config
    tasks = tasks_of(config)
    task = find_task(task_name or config.tasks[0], tasks)

    model = Gato(config.model)
    progress = load_checkpoint(found.path, model)
    weights = Weights(
        version=Version(0, progress.number), learner_step=progress.step, arrays=snapshot(model)
    )
    players = GatoPlayers(
        model=config.model,
        evaluate=acting_configs(config, "evaluate"),
        generate=acting_configs(config, "generate"),
        seed=config.seed,
        text=layout_of(config, tasks, found.path.parent.parent).text,
    )
    player = players(task, num_envs, "evaluate")
    player.load(weights)

    envs = make_envs(task, num_envs)
    try:
        yield from play(envs, player, seeds)
    finally:
        envs.close()


def main(what: str, task_name: str | None = None) -> None:
    for episode in episodes(what, task_name, seeds=range(4)):
        print(
            f"{episode.task}, seed {episode.seed}: {episode.num_steps} steps, return {episode.episode_return:,.1f}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
