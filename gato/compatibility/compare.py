"""The comparison of what a source says of its environment with a task: equal, convertible or
refused by name.

Everything is checked against lists of what is known to change nothing. What is on no list is
refused, unless the user says that it is known (`--allow`), which stays with the episodes.

Shape letters: n elements of an action or of an observation.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from gato.compatibility.environment import (
    Comparison,
    Differences,
    EnvDefaults,
    EnvDescription,
    EnvFacts,
    Wrapper,
    no_defaults,
)
from gato.compatibility.spaces import compare_actions, compare_observation
from gato.task import Kind, Task

RENDERING = frozenset(
    {"render_mode", "width", "height", "camera_id", "camera_name", "default_camera_config", "max_geom", "visual_options",
     "render_fps", "screen_size", "disable_env_checker", "autoreset", "apply_api_compatibility"}
)  # fmt: skip
"""Keywords that change what is drawn, not what is played."""
HARMLESS_WRAPPERS = frozenset(
    {"OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics", "RecordVideo", "HumanRendering", "RenderCollection",
     "AddWhiteNoise", "ObstructView", "DataCollector", "DataCollectorV0", "StepDataCollector", "JaxToNumpy", "JaxToTorch",
     "NumpyToTorch", "ArrayConversion", "DtypeObservation", "FlattenObservation", "ClipAction", "Monitor"}
)  # fmt: skip
"""Wrappers that change neither observations nor rewards nor the ends of episodes.
FlattenObservation keeps the values, and what shape they have is compared by itself; ClipAction does
to actions what the environment does."""
CHANGES = {
    "NormalizeObservation": "observations", "TransformObservation": "observations", "FilterObservation": "observations",
    "RescaleObservation": "observations", "DelayObservation": "observations", "TimeAwareObservation": "observations",
    "FrameStackObservation": "observations", "FrameStack": "observations", "ReshapeObservation": "observations",
    "GrayscaleObservation": "observations", "AddRenderObservation": "observations", "ResizeObservation": "observations",
    "DiscretizeObservation": "observations", "AtariPreprocessing": "observations", "NormalizeReward": "rewards",
    "TransformReward": "rewards", "ClipReward": "rewards", "TransformAction": "actions", "DiscretizeAction": "actions",
    "StickyAction": "actions", "RepeatAction": "actions", "MaxAndSkipObservation": "time",
    "Autoreset": "the ends of episodes", "VecNormalize": "observations and rewards",
}  # fmt: skip
"""What the best-known other wrappers change, for the message."""
WRAPPERS_FROM = ("gymnasium.", "gym.", "minari.", "stable_baselines3.common.monitor")
"""Modules whose wrappers are what their names say."""
CLASSES_FROM = {
    "mujoco": ("gymnasium.envs.mujoco.",),
    "atari": ("ale_py.", "shimmy.atari_env", "gymnasium.envs.atari"),
}
"""Modules of the environments' own classes, by family."""
ATARI_ID = re.compile(r"(?:ALE/)?(\w+?)(NoFrameskip|Deterministic)?-v(\d)")
ATARI_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "mode": (None, 0), "difficulty": (None, 0), "obs_type": ("rgb",), "continuous": (False,),
    "continuous_action_threshold": (0.0, 0.5), "sound_obs": (False,),
}  # fmt: skip
"""Values of ale-py's keywords at which a game is played as the tasks play it."""
ATARI_COMPARED = frozenset(
    {"frameskip", "repeat_action_probability", "full_action_space", "max_num_frames_per_episode"}
)
"""Keywords of ale-py that are compared with the task by themselves: frames, sticky actions,
buttons, limit."""


def compare(
    said: EnvDescription,
    task: Task,
    *,
    defaults: EnvDefaults = no_defaults,
    allowed: Iterable[str] = (),
) -> Comparison:
    """What a source says of its environment against the task. It raises nothing: see
    `Comparison.require`.

    compare(EnvDescription(where="x.hdf5", env_id="Hopper-v4"), TASKS["mujoco/hopper"]).require()
    # ValueError: version
    """
    found = Differences(frozenset(allowed))
    facts = defaults(task)
    _compare_id(said, task, found)
    _compare_class(said, task, facts, found)
    wrappers = _compare_wrappers(said, task, found)
    if task.family == "atari":
        _compare_game(said, task, wrappers, found)
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
    """Name and version of an id: `Hopper`, 5 of `my_pkg:Hopper-v5`."""
    match = re.fullmatch(r"(.*?)(?:-v(\d+))?", env_id.rpartition(":")[2])
    assert match is not None
    return match[1], int(match[2]) if match[2] else None


def _compare_id(said: EnvDescription, task: Task, found: Differences) -> None:
    if not said.env_id:
        found.note(
            "environment",
            f"it does not say in which environment it was made; taken as {task.env_id}",
        )
        return
    (name, version), (wanted, wanted_version) = _bare(said.env_id), _bare(task.env_id)
    module, own_module = said.env_id.rpartition(":")[0], task.env_id.rpartition(":")[0]
    if module and module != own_module:
        found.refuse(
            "environment", f"it was made in {said.env_id}, task {task.name} is {task.env_id}"
        )
        return
    if (name, version) == (wanted, wanted_version):
        return
    if task.family == "atari" and _is_same_game(said.env_id, task.env_id):
        return  # what the older ids stand for is compared as frameskip and sticky actions
    if name != wanted:
        found.refuse(
            "environment", f"it was made in {said.env_id}, task {task.name} is {task.env_id}"
        )
    elif said.converts_versions and task.family == "mujoco" and version is not None and version < 4:
        found.convert(
            "version",
            f"{said.env_id} ran on mujoco-py; it becomes {task.env_id}, whose physics and rewards"
            " differ, so returns are not the same",
        )
    else:
        found.refuse(
            "version",
            f"it was made in {said.env_id}, task {task.name} is {task.env_id}: versions differ in"
            " what they show and pay",
        )


def _is_same_game(said: str, wanted: str) -> bool:
    games = [ATARI_ID.fullmatch(env_id.rpartition(":")[2]) for env_id in (said, wanted)]
    return all(games) and len({game[1] for game in games if game}) == 1


def _compare_class(said: EnvDescription, task: Task, facts: EnvFacts, found: Differences) -> None:
    """A class of Gymnasium's or ale-py's own; of another environment the one that is registered
    here."""
    if said.entry_point in ("", facts.entry_point, *facts.former_entry_points):
        return
    of_family = CLASSES_FROM.get(task.family)
    if of_family is not None and said.entry_point.startswith(of_family):
        return
    if of_family is not None or facts.entry_point:
        own = facts.entry_point or f"{task.env_id}'s own"
        found.refuse("entry-point", f"its environment is the class {said.entry_point}, not {own}")


def _is_what_it_is_called(wrapper: Wrapper) -> bool:
    """Whether a wrapper is of a module whose wrappers are known, and of the class that its name
    says."""
    its_class = re.split(r"[:.]", wrapper.entry_point)[-1]
    return not wrapper.entry_point or (
        wrapper.entry_point.startswith(WRAPPERS_FROM) and its_class == wrapper.name
    )


def _compare_wrappers(
    said: EnvDescription, task: Task, found: Differences
) -> dict[str, Mapping[str, Any]]:
    """Keywords of the wrappers that are compared elsewhere; of two of a name the outer's."""
    known: dict[str, Mapping[str, Any]] = {}
    once = {"MaxAndSkipObservation", "ResizeObservation"} if task.family == "atari" else set[str]()
    for wrapper in said.wrappers:
        is_known = _is_what_it_is_called(wrapper)
        if is_known and (
            wrapper.name in ("TimeLimit", "RescaleAction") or (wrapper.name in once - known.keys())
        ):
            inner = known.get(wrapper.name, {})
            known[wrapper.name] = wrapper.kwargs
            # the shorter one ends an episode
            if wrapper.name == "TimeLimit" and _limit(inner) is not None:
                known[wrapper.name] = min(
                    (inner, wrapper.kwargs), key=lambda kwargs: _limit(kwargs) or math.inf
                )
            continue
        never = (
            wrapper.name == "StickyAction" and wrapper.kwargs.get("repeat_action_probability") == 0
        )
        if is_known and (wrapper.name in HARMLESS_WRAPPERS or never):
            continue
        changes = CHANGES.get(wrapper.name) if is_known else None
        what = f"which changes {changes}" if changes else "which is unknown here"
        found.refuse(
            f"wrapper:{wrapper.name}", f"it was made behind the wrapper {wrapper.name}, {what}"
        )
    if "ResizeObservation" in known:
        shape = known["ResizeObservation"].get("shape")
        wanted = [
            list(spec.shape[:2]) for spec in task.observations.values() if spec.kind is Kind.IMAGE
        ]
        if not isinstance(shape, (list, tuple)) or [list(shape)] != wanted:
            found.refuse(
                "wrapper:ResizeObservation",
                f"frames were resized to {_short(shape)}, task {task.name} shows {wanted}",
            )
    return known


def _limit(kwargs: Mapping[str, Any]) -> int | None:
    """Steps of a TimeLimit, if it says a number of them."""
    return whole(kwargs.get("max_episode_steps"))


def _compare_keywords(
    said: EnvDescription, task: Task, defaults: Mapping[str, Any], found: Differences
) -> None:
    wanted = {**defaults, **task.env_kwargs}
    for name, value in said.kwargs.items():
        if name in RENDERING:
            continue
        if name not in wanted:
            found.refuse(
                f"keyword:{name}",
                f"it was made with {name}={_short(value)}, which task {task.name} does not know",
            )
        elif not _equal(value, wanted[name]):
            found.refuse(
                f"keyword:{name}",
                f"it was made with {name}={_short(value)}, task {task.name} has"
                f" {_short(wanted[name])}",
            )
    for name, value in task.env_kwargs.items() if said.env_id else ():
        if (
            name not in said.kwargs
            and name not in RENDERING
            and not (name in defaults and _equal(defaults[name], value))
        ):
            found.refuse(
                f"keyword:{name}",
                f"task {task.name} sets {name}={_short(value)}, and it was made without that"
                " keyword",
            )


def _compare_game(
    said: EnvDescription, task: Task, wrappers: Mapping[str, Mapping[str, Any]], found: Differences
) -> None:
    """Frames between two decisions, sticky actions, and the game's own switches."""
    match = ATARI_ID.fullmatch(said.env_id.rpartition(":")[2])
    frameskip: Any = said.kwargs.get("frameskip")
    sticky: Any = (
        said.sticky if said.sticky is not None else said.kwargs.get("repeat_action_probability")
    )
    # older ids stand for both
    if match and match[3] in "04" and not said.env_id.startswith("ALE/"):
        frameskip = (
            {"NoFrameskip": 1, "Deterministic": 4}.get(match[2] or "", (2, 5))
            if frameskip is None
            else frameskip
        )
        sticky = (0.25 if match[3] == "0" else 0.0) if sticky is None else sticky
    if "MaxAndSkipObservation" in wrappers:
        skip = wrappers["MaxAndSkipObservation"].get("skip", 4)
        frameskip = (
            skip * frameskip
            if isinstance(frameskip, int) and isinstance(skip, int)
            else (frameskip, skip)
        )
    wanted_skip, wanted_sticky = (
        task.env_kwargs.get("frameskip", 4),
        float(task.env_kwargs.get("sticky", 0.0)),
    )
    if frameskip is None:
        found.note(
            "frameskip", f"it does not say how many frames an action lasts; taken as {wanted_skip}"
        )
    elif frameskip != wanted_skip:
        found.refuse(
            "frameskip",
            f"an action lasted {_short(frameskip)} frames, in task {task.name} {wanted_skip}",
        )
    if sticky is not None and (
        isinstance(sticky, bool) or not isinstance(sticky, (int, float)) or not 0 <= sticky < 1
    ):
        found.refuse(
            "sticky", f"its chance of sticky actions is {_short(sticky)}, which is none from 0 to 1"
        )
    elif sticky is None:
        found.note(
            "sticky", f"it does not say whether actions were sticky; taken as {wanted_sticky:g}"
        )
    elif not math.isclose(float(sticky), wanted_sticky, abs_tol=1e-6):
        base = task.name.partition("?")[0]
        found.refuse(
            "sticky",
            f"actions were sticky with chance {float(sticky):g}, in task {task.name}"
            f" {wanted_sticky:g} (there is the task"
            f" {base if not sticky else f'{base}?sticky={float(sticky):g}'})",
        )
    for name, value in said.kwargs.items():
        if name in RENDERING or name in ATARI_COMPARED:
            continue
        if name == "game":
            wanted = str(task.env_kwargs.get("rom", value))
            if str(value).replace("_", "") != wanted.replace("_", ""):
                found.refuse(
                    "keyword:game", f"it is of the game {value}, task {task.name} of {wanted}"
                )
        elif name == "obs_type" and value == "grayscale" and task.env_kwargs.get("grey"):
            continue
        elif name not in ATARI_DEFAULTS:
            found.refuse(
                f"keyword:{name}",
                f"it was made with {name}={_short(value)}, which task {task.name} does not know",
            )
        elif value not in ATARI_DEFAULTS[name]:
            normal = ATARI_DEFAULTS[name][-1]
            found.refuse(
                f"keyword:{name}",
                f"it was made with {name}={_short(value)}, task {task.name} has {normal}",
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
        elif limit is not None and limit != -1:  # which Gymnasium's older specs write for none
            found.note(
                "limit",
                f"its limit of steps is {_short(limit)}, which is no number of steps; not compared",
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


def whole(value: Any) -> int | None:
    """A number of steps: a whole number above 0, also as a float or a text of one. None if it is
    none."""
    try:
        number = (
            float(value)
            if isinstance(value, (int, float, str)) and not isinstance(value, bool)
            else math.nan
        )
    except (ValueError, OverflowError):
        return None
    return int(number) if number > 0 and number < 1e15 and number == int(number) else None


def _equal(value: Any, other: Any) -> bool:
    """Whether two keywords are the same, whether a list or a tuple holds them."""
    if isinstance(value, (int, float)) and isinstance(other, (int, float)):
        return value == other or (abs(value) < 1e300 and math.isclose(value, other, rel_tol=1e-9))
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(value) == len(other) and all(map(_equal, value, other))
    return bool(value == other)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
