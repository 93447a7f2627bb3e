"""Specialists beside one model of Meta-World: `python -m benchmarks.specialists runs/mt50`.

A specialist is a model of the same size with one task's demonstrations, as many as the run's, and
as many steps of the task as the run trained on. It has no relabelled play. Ten of the tasks,
because a specialist takes a minute or two of a core; `--tasks` names others. It goes on where it
was ended, and writes docs/results/mt50-specialists.{json,md}, after `python -m
benchmarks.generalist runs/mt50` has written docs/results/mt50.json. It needs the extra `metaworld`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.envs.factory import WorkerEnvs
from actors.players.player import Player
from actors.rollout import play
from actors.tasks.resolve import resolve_task
from actors.teachers.demonstrate import demonstrate
from benchmarks.in_process import MOST_ENVS, Kept, Training, gato_returns
from benchmarks.learning import RESULTS
from benchmarks.machine import about
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder
from cluster.supervision.scheduler import EVALUATION_SEED
from gato.task import Task
from gato.threads import use_threads
from learner.preparation.precision import has_bf16

NAMES = (
    "reach", "push", "pick-place", "door-open", "peg-insert-side", "drawer-close", "faucet-open",
    "assembly", "hammer", "sweep-into",
)  # fmt: skip
TASKS = tuple(f"metaworld/{name}?task_id=1" for name in NAMES)
FIRST_SEED = 50_000
"""Of the demonstrations."""


def specialist_of(config: RunConfig, task: str) -> RunConfig:
    """The run with one of its tasks: as many updates as it spent on this task."""
    mix = config.replay.mix
    weights = {name: of.weight or 1.0 for name, of in mix.tasks.items()}
    share = weights[task] / sum(weights.values())
    return replace(
        config,
        name="specialist",
        tasks=(task,),
        learner=replace(
            config.learner,
            num_updates=max(1, round(share * config.learner.num_updates)),
            bf16=has_bf16(),
        ),
        replay=replace(
            config.replay,
            mix=replace(mix, tasks={task: mix.tasks[task]}),
            limiter=replace(config.replay.limiter, warmup_tokens=1),
        ),
        actors=replace(config.actors, demonstration_steps_of={}, play_from=0, relabel_share=0.0),
    )


def measure(config: RunConfig, task: Task, episodes: int) -> dict[str, Any]:
    """Train a specialist, play it."""
    made = specialist_of(config, task.name)
    number = config.actors.demonstration_steps_of.get(task.name, config.actors.demonstration_steps)
    with (
        tempfile.TemporaryDirectory() as folder,
        Training(
            made,
            Path(folder),
            episodes=lambda: demonstrate(
                task,
                episodes=number // task.max_steps,
                seed=FIRST_SEED,
                noise=config.actors.demonstration_noise,
            ),
        ) as training,
    ):
        model = training.run()
    solved: list[bool] = []

    def play_all(player: Player, of: Task, number: int) -> Sequence[float]:
        envs = WorkerEnvs()(of, min(MOST_ENVS, number))
        try:
            seeds = range(EVALUATION_SEED, EVALUATION_SEED + number)
            played = list(play(envs, player, seeds))
        finally:
            envs.close()
        solved.extend(bool(episode.success) for episode in played)
        return [episode.episode_return for episode in played]

    returns = gato_returns(model, task, config.actors.evaluate, episodes, play=play_all)
    return {
        "updates": made.learner.num_updates,
        "return": round(statistics.mean(returns), 2),
        "success": sum(solved) / len(solved),
        "machine": about(),
    }


def write_page(kept: Sequence[Mapping[str, Any]]) -> None:
    """The table of both."""
    last = kept[-1]
    same = [e for e in kept if all(e[name] == last[name] for name in ("episodes", "of"))]
    rows = [(entry, entry["one_model"]) for entry in same]
    means = [statistics.mean(of["success"] for of in each) for each in zip(*rows, strict=True)]
    machine = last["machine"]
    names = " ".join(f"'{entry['task']}'" for entry in same)
    lines = [
        "# Specialists beside the run mt50", "",
        f"`python -m benchmarks.specialists RUN --episodes {last['episodes']} --tasks {names}`: for"
        " each task a model of the run's size, with as many of the expert's steps and"
        f" {last['updates']:,} updates, as many as the run spent on the task, without relabelled"
        f" play. Last checkpoints. Mean success: {means[0]:.0%} of the specialists, {means[1]:.0%}"
        f" of the one model of 50 tasks after {last['of']:,} updates.", "",
        "| task | episodes | specialist: success | return | one model: success | return |",
        "|---|--:|--:|--:|--:|--:|",
        *(
            f"| {own['task'].partition('?')[0]} | {own['episodes']} | {own['success']:.0%} |"
            f" {own['return']:,.0f} | {of['success']:.0%} | {of['return']:,.0f} |"
            for own, of in rows
        ),
        "",
        f"{machine['cpu']}, {machine['date']}, commit {machine['commit']}. All 50 tasks of the one"
        " model, after more updates where its page says so: [mt50](mt50.md).",
    ]  # fmt: skip
    (RESULTS / "mt50-specialists.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Train what is missing, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the run, such as runs/mt50")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), metavar="TASK")
    parser.add_argument("--episodes", type=int, default=20, help="of each specialist")
    arguments = parser.parse_args()
    use_threads()
    folder: Path = arguments.folder
    config = RunFolder(folder.parent, folder.name).config()
    generalist = json.loads((RESULTS / "mt50.json").read_text())
    kept = Kept(RESULTS / "mt50-specialists.json")
    for name in arguments.tasks:
        one_model = generalist["tasks"][name]
        kept.get_or(
            {"task": name, "episodes": arguments.episodes, "of": config.learner.num_updates},
            lambda name=name, one_model=one_model: {
                **measure(config, resolve_task(name), arguments.episodes),
                "one_model": {key: one_model[key] for key in ("return", "success")},
            },
        )
    write_page(kept.entries)


if __name__ == "__main__":
    main()
