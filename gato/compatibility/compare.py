"""Compares what a source says of its environment with a task: equal, convertible or rejected.

Everything is checked against lists of what is known to change nothing. What is on no list is
rejected with its name, unless the user allows it (`--allow`), which is then stored with the
episodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from gato.compatibility.atari import compare_game, is_same_game
from gato.compatibility.environment import (
    Comparison,
    Differences,
    EnvDefaults,
    EnvDescription,
    EnvFacts,
    no_defaults,
)
from gato.compatibility.spaces import compare_actions, compare_observation
from gato.compatibility.values import RENDERING, equal, short, whole
from gato.compatibility.wrappers import compare_wrappers
from gato.task import Task

CLASSES_FROM = {
    "mujoco": ("gymnasium.envs.mujoco.",),
    "atari": ("ale_py.", "shimmy.atari_env", "gymnasium.envs.atari"),
}
"""Modules that define the environments' own classes, by family."""


def compare(
    said: EnvDescription,
    task: Task,
    *,
    defaults: EnvDefaults = no_defaults,
    allowed: Iterable[str] = (),
) -> Comparison:
    """Compare what a source says of its environment with a task.

    said = EnvDescription(where="x.hdf5", env_id="Hopper-v4")
    compare(said, TASKS["mujoco/hopper"]).require()  # ValueError: version

    Args:
        said: What the source says.
        task: The task that its data is to be used for.
        defaults: The keywords of the task's environment where it is installed.
        allowed: Subjects of differences that the user knows of.

    Returns:
        All differences. Nothing is raised: see `Comparison.require`.
    """
    found = Differences(frozenset(allowed))
    facts = defaults(task)
    _compare_id(said, task, found)
    _compare_class(said, task, facts, found)
    wrappers = compare_wrappers(said, task, found)
    if task.family == "atari":
        compare_game(said, task, wrappers, found)
    else:
        _compare_keywords(said, task, facts.keywords, found)
    _compare_limit(said, task, wrappers, found)
    scale_from = compare_actions(said, wrappers.get("RescaleAction"), task, found)
    for name, bounds in said.observation_bounds.items():
        compare_observation(name, bounds, task, found)
    for trait in said.traits:
        found.note("format", trait)
    return Comparison(where=said.where, differences=tuple(found.found), scale_from=scale_from)


def _bare(env_id: str) -> tuple[str, int | None]:
    """Name and version of an id: ("Hopper", 5) of `my_pkg:Hopper-v5`."""
    match = re.fullmatch(r"(.*?)(?:-v(\d+))?", env_id.rpartition(":")[2])
    assert match is not None
    return match[1], int(match[2]) if match[2] else None


def _compare_id(said: EnvDescription, task: Task, found: Differences) -> None:
    if not said.env_id:
        found.note(
            "environment",
            f"it does not say in which environment it was made; {task.env_id} is assumed",
        )
        return
    (name, version), (wanted, wanted_version) = _bare(said.env_id), _bare(task.env_id)
    module, own_module = said.env_id.rpartition(":")[0], task.env_id.rpartition(":")[0]
    if module and module != own_module:
        found.reject(
            "environment", f"it was made in {said.env_id}, task {task.name} is {task.env_id}"
        )
        return
    if (name, version) == (wanted, wanted_version):
        return
    if task.family == "atari" and is_same_game(said.env_id, task.env_id):
        return  # what the older ids stand for is compared as frameskip and sticky actions
    if name != wanted:
        found.reject(
            "environment", f"it was made in {said.env_id}, task {task.name} is {task.env_id}"
        )
    elif said.converts_versions and task.family == "mujoco" and version is not None and version < 4:
        found.convert(
            "version",
            f"{said.env_id} ran on mujoco-py; it becomes {task.env_id}, whose physics and rewards"
            " differ, so returns are not the same",
        )
    else:
        found.reject(
            "version",
            f"it was made in {said.env_id}, task {task.name} is {task.env_id}: versions differ in"
            " observations and rewards",
        )


def _compare_class(said: EnvDescription, task: Task, facts: EnvFacts, found: Differences) -> None:
    """The class must be Gymnasium's or ale-py's own, or the one that is registered here."""
    if said.entry_point in ("", facts.entry_point, *facts.former_entry_points):
        return
    of_family = CLASSES_FROM.get(task.family)
    if of_family is not None and said.entry_point.startswith(of_family):
        return
    if of_family is not None or facts.entry_point:
        own = facts.entry_point or f"{task.env_id}'s own"
        found.reject("entry-point", f"its environment is the class {said.entry_point}, not {own}")


def _compare_keywords(
    said: EnvDescription, task: Task, defaults: Mapping[str, Any], found: Differences
) -> None:
    wanted = {**defaults, **task.env_kwargs}
    for name, value in said.kwargs.items():
        if name in RENDERING:
            continue
        if name not in wanted:
            found.reject(
                f"keyword:{name}",
                f"it was made with {name}={short(value)}, which task {task.name} does not know",
            )
        elif not equal(value, wanted[name]):
            found.reject(
                f"keyword:{name}",
                f"it was made with {name}={short(value)}, task {task.name} has"
                f" {short(wanted[name])}",
            )
    for name, value in task.env_kwargs.items() if said.env_id else ():
        if (
            name not in said.kwargs
            and name not in RENDERING
            and not (name in defaults and equal(defaults[name], value))
        ):
            found.reject(
                f"keyword:{name}",
                f"task {task.name} sets {name}={short(value)}, and it was made without that"
                " keyword",
            )


def _compare_limit(
    said: EnvDescription, task: Task, wrappers: Mapping[str, Mapping[str, Any]], found: Differences
) -> None:
    limits = [said.max_steps, wrappers.get("TimeLimit", {}).get("max_episode_steps")]
    frames = said.kwargs.get("max_num_frames_per_episode") if task.family == "atari" else None
    limits.append(
        frames // int(task.env_kwargs.get("frameskip", 4)) if isinstance(frames, int) else None
    )
    stated: list[int] = []
    for limit in limits:
        steps = whole(limit)
        if steps is not None:
            stated.append(steps)
        elif limit is not None and limit != -1:  # Gymnasium's older specs write -1 for none
            found.note(
                "limit",
                f"its limit of steps is {short(limit)}, not a number of steps; it is not compared",
            )
    if stated and min(stated) != task.max_steps:
        what = (
            "longer episodes are cut there"
            if min(stated) > task.max_steps
            else "its episodes end earlier"
        )
        found.note(
            "limit",
            f"its limit was {min(stated):,} steps, the task's is {task.max_steps:,}: {what}",
        )
