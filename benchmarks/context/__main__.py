"""What context and prompts are worth, with a small model, on two cores.

    python -m benchmarks.context            # what is missing: hours
    python -m benchmarks.context --parts opposites targets    # minutes: whether prompts and target
                                                              # returns work at all
    python -m benchmarks.context --size short         # minutes: that the command works
    python -m benchmarks.context draw

Four questions: does the length of the window matter (1, 4, 16 and 64 steps); what is a prompt
worth, by demonstration, by target return, by both, on a task that was trained and on one that was
held out and fine-tuned with few episodes (the paper's section 5.2); does prompting work at all, on
two tasks that only a prompt tells apart (`benchmarks/context/opposites.py`); and are target returns
reached, on one of them.

What is measured is kept in docs/results/context.json (of other sizes in the folder of runs)
after each part, trainings under GATO_RUNS: a command that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

from actors.tasks.catalog import TASKS
from actors.teachers.demonstrate import demonstrate
from actors.teachers.resolve import teacher_return
from benchmarks.context import opposites
from benchmarks.context.page import write_page
from benchmarks.context.settings import LONG, SIZES, Size, config_of
from benchmarks.in_process import Kept, Play, Training, gato_returns, returns_of, summary
from benchmarks.learning import RESULTS
from benchmarks.machine import about
from gato.acting.config import ActingConfig
from gato.episode import Episode
from gato.network.model import Gato
from gato.task import Task
from gato.threads import use_threads

WINDOWS = (1, 4, 16, 64)
TARGETS = (0.125, 0.375, 0.625, 0.875, 1.125)
"""Target returns, where the fastest demonstration has 1.25."""
SEEN, HELD_OUT = "mujoco/hopper", "mujoco/walker2d"
MODES: Mapping[str, tuple[bool, bool]] = {
    "neither": (False, False),
    "demonstration": (True, False),
    "target return": (False, True),
    "both": (True, True),
}
"""Whether an episode begins with a demonstration, and whether it is told a target return."""


def demonstrated(names: Sequence[str], episodes: int, *, first_seed: int) -> Iterator[Episode]:
    """Episodes of these tasks' teachers."""
    for name in names:
        yield from demonstrate(TASKS[name], episodes=episodes, seed=first_seed)


def in_modes(
    training: Training,
    model: Gato,
    task: Task,
    size: Size,
    *,
    window_steps: int,
    prompt_steps: int,
    play: Play,
) -> dict[str, Any]:
    """Returns of a model with each kind of prompt, with windows as long as those of training."""
    prompt = training.service.demonstration(task.name, prompt_steps)
    out: dict[str, Any] = {}
    for mode, (shows, tells) in MODES.items():
        acting = ActingConfig(
            prompt_steps=prompt_steps if shows else 0,
            window_steps=window_steps + (prompt_steps if shows else 0),
            target_return=1.0 if tells else None,
        )
        returns = gato_returns(
            model, task, acting, size.episodes, prompt=prompt if shows else None, play=play
        )
        out[mode] = summary(returns)
    return out


def windows(size: Size, folder: Path, seed: int, kept: Kept) -> None:
    """The same task, updates and tokens with windows of some lengths."""
    task = TASKS[SEEN]
    for steps in WINDOWS:

        def measure(steps: int = steps) -> dict[str, Any]:
            config = config_of(
                {SEEN: task}, window_steps=steps, size=size, updates=size.updates, seed=seed
            )
            episodes = partial(demonstrated, [SEEN], size.demonstrations, first_seed=1_000_000)
            path = folder / f"window-{steps}-{size.updates}-{seed}"
            with Training(config, path, episodes=episodes) as training:
                model = training.run()
            acting = ActingConfig(window_steps=steps)
            return summary(gato_returns(model, task, acting, size.episodes, play=returns_of))

        label = {"part": "windows", "steps": steps, "seed": seed, "updates": size.updates}
        kept.get_or(label, lambda measure=measure: {**measure(), **scale(task), "machine": about()})


def prompts(size: Size, folder: Path, seed: int, kept: Kept) -> None:
    """A model with prompts and returns on robots that it was trained on, then fine-tuned on one
    that it was not."""
    seen = (SEEN, "mujoco/halfcheetah")
    window_steps, prompt_steps = 8, 4
    options: Mapping[str, Any] = {
        "window_steps": window_steps, "prompt_steps": prompt_steps, "with_returns": True,
        "size": size, "seed": seed,
    }  # fmt: skip
    played: Mapping[str, Any] = {
        "window_steps": window_steps, "prompt_steps": prompt_steps, "play": returns_of,
    }  # fmt: skip
    # The held-out robot's steps are as long as the longest here, so that rows and model are alike.
    config = config_of({name: TASKS[name] for name in seen}, updates=size.updates, **options)
    path = folder / f"prompts-{size.updates}-{seed}"
    trained: list[Gato] = []

    def model() -> Gato:
        if not trained:
            episodes = partial(demonstrated, seen, size.demonstrations, first_seed=1_000_000)
            with Training(config, path, episodes=episodes) as training:
                trained.append(training.run())
        return trained[0]

    def of_seen() -> dict[str, Any]:
        whole = model()
        episodes = partial(demonstrated, seen, size.demonstrations, first_seed=1_000_000)
        with Training(config, path, episodes=episodes) as training:
            modes = in_modes(training, whole, TASKS[SEEN], size, **played)
        return {"modes": modes, **scale(TASKS[SEEN]), "machine": about()}

    kept.get_or({"part": "seen", "task": SEEN, "seed": seed, "updates": size.updates}, of_seen)
    for few in size.few:

        def of_held_out(few: int = few) -> dict[str, Any]:
            task = TASKS[HELD_OUT]
            tuned = config_of({HELD_OUT: task}, updates=size.tuning_updates, **options)
            episodes = partial(demonstrated, [HELD_OUT], few, first_seed=1_000_000)
            path = folder / f"tuned-{few}-{size.tuning_updates}-{size.updates}-{seed}"
            with Training(tuned, path, episodes=episodes) as training:
                fine = training.run(begins_with=model())
                modes = in_modes(training, fine, task, size, **played)
            return {"modes": modes, **scale(task), "machine": about()}

        label = {"part": "held out", "task": HELD_OUT, "episodes": few, "seed": seed}
        of_updates = {"updates": size.updates, "tuning_updates": size.tuning_updates}
        kept.get_or(label | of_updates, of_held_out)


def opposite(size: Size, folder: Path, seed: int, kept: Kept) -> None:
    """Two tasks that only a prompt tells apart; also with a prompt of the other task, which must
    turn the return round."""
    tasks = {task.name: task for task in (opposites.RIGHT, opposites.LEFT)}
    window_steps, prompt_steps = 4, 4

    def measure() -> dict[str, Any]:
        config = config_of(
            tasks, window_steps=window_steps, prompt_steps=prompt_steps, with_returns=True,
            size=size, updates=size.opposites_updates, seed=seed, model="debug",
        )  # fmt: skip

        def episodes() -> Iterator[Episode]:
            for task in tasks.values():
                yield from opposites.demonstrations(task, 200)

        out: dict[str, Any] = {}
        path = folder / f"opposites-{size.opposites_updates}-{seed}"
        with Training(config, path, episodes=episodes, tasks=tasks) as training:
            model = training.run()
            for task, other in permutations(tasks.values()):
                modes = in_modes(
                    training, model, task, size, window_steps=window_steps,
                    prompt_steps=prompt_steps, play=opposites.returns_of,
                )  # fmt: skip
                wrong = training.service.demonstration(other.name, prompt_steps)
                acting = ActingConfig(
                    prompt_steps=prompt_steps,
                    window_steps=window_steps + prompt_steps,
                    target_return=None,
                )
                returns = gato_returns(
                    model, task, acting, size.episodes, prompt=wrong, play=opposites.returns_of
                )
                out[task.name] = {**modes, "demonstration of the other": summary(returns)}
        expert = opposites.RIGHT.references
        assert expert is not None
        return {"tasks": out, "random": 0.0, "teacher": expert.expert, "machine": about()}

    label = {"part": "opposites", "seed": seed, "updates": size.opposites_updates}
    kept.get_or(label, measure)


def targets(size: Size, folder: Path, seed: int, kept: Kept) -> None:
    """One of those tasks with demonstrations of all returns, from hardly any to the best: what is
    reached with each target return."""
    task, window_steps = opposites.RIGHT, 4

    def measure() -> dict[str, Any]:
        config = config_of(
            {task.name: task}, window_steps=window_steps, with_returns=True, size=size,
            updates=size.opposites_updates, seed=seed, model="debug",
        )  # fmt: skip
        # Everything is read, whatever it returned, and each window is told its return.
        mix = replace(
            config.replay.mix, return_fraction=1.0, min_agent_score=None, min_expert_fraction=None
        )
        config = replace(config, replay=replace(config.replay, mix=mix))
        episodes = partial(opposites.demonstrations, task, 400, slowest=0.0)
        path = folder / f"targets-{size.opposites_updates}-{seed}"
        with Training(config, path, episodes=episodes, tasks={task.name: task}) as training:
            model = training.run()
        reached = {
            target: gato_returns(
                model, task, ActingConfig(target_return=target, window_steps=window_steps),
                size.episodes, play=opposites.returns_of,
            )
            for target in TARGETS
        }  # fmt: skip
        assert task.references is not None
        return {
            "points": [{"target": target, **summary(of)} for target, of in reached.items()],
            "random": 0.0,
            "teacher": task.references.expert,
            "machine": about(),
        }

    kept.get_or({"part": "targets", "seed": seed, "updates": size.opposites_updates}, measure)


def scale(task: Task) -> dict[str, float]:
    """The returns that are 0 and 1."""
    top = teacher_return(task)
    assert task.references is not None
    assert top is not None
    return {"random": task.references.random, "teacher": top}


PARTS: Mapping[str, Callable[[Size, Path, int, Kept], None]] = {
    "opposites": opposite,
    "targets": targets,
    "prompts": prompts,
    "windows": windows,
}


def main() -> None:
    """Measure what is missing, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("word", nargs="?", default="run", choices=["run", "draw"])
    parser.add_argument("--size", default="long", choices=list(SIZES))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--updates", type=int, help="of windows and prompts")
    arguments = parser.parse_args()
    use_threads(1)
    size = SIZES[arguments.size]
    results = RESULTS if size is LONG else None
    size = replace(
        size,
        seeds=tuple(arguments.seeds or size.seeds),
        updates=arguments.updates or size.updates,
    )
    folder = Path(os.environ.get("GATO_RUNS", "runs")).absolute() / size.name
    results = results or folder
    kept = Kept(results / f"{size.name}.json")
    if arguments.word == "run":
        for seed in size.seeds:
            for part in arguments.parts:
                PARTS[part](size, folder, seed, kept)
    write_page(kept.entries, results, size.name)


if __name__ == "__main__":
    main()
