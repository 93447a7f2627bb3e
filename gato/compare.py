"""The comparison of what a source says of its environment with a task: equal, convertible or refused by name.

Everything is checked against lists of what is known to change nothing. What is on no list is refused, unless the user
says that it is known (`--allow`), which stays with the episodes.

Shape letters: n elements of an action or of an observation.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gato.environment import (
    Bounds,
    Comparison,
    Difference,
    EnvDefaults,
    EnvDescription,
    full_bounds,
    no_defaults,
)
from gato.task import Kind, Task

UNBOUNDED = 1e6
"""A bound at or beyond this limits nothing: Gymnasium's older spaces write 3.4e38 for infinity."""
TOLERANCE = 1e-4
"""How far two bounds of the same space may be apart, relative to their size: they come from 32 bits, or from printed text."""
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
"""Wrappers that change neither observations nor rewards nor the ends of episodes. FlattenObservation keeps the values, and
what shape they have is compared by itself; ClipAction does to actions what the environment does."""
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
CLASSES_FROM = {"mujoco": ("gymnasium.envs.mujoco.",), "atari": ("ale_py.", "shimmy.atari_env", "gymnasium.envs.atari")}
"""Modules of the environments' own classes, by family."""
ATARI_ID = re.compile(r"(?:ALE/)?(\w+?)(NoFrameskip|Deterministic)?-v(\d)")
ATARI_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "mode": (None, 0), "difficulty": (None, 0), "obs_type": ("rgb", "grayscale"), "continuous": (False,),
    "continuous_action_threshold": (0.0, 0.5), "sound_obs": (False,),
}  # fmt: skip
"""Values of ale-py's keywords at which a game is played as the tasks play it."""


def compare(
    said: EnvDescription, task: Task, *, defaults: EnvDefaults = no_defaults, allowed: Iterable[str] = ()
) -> Comparison:
    """What a source says of its environment against the task. It raises nothing: see `Comparison.require`.

    compare(EnvDescription(where="x.hdf5", env_id="Hopper-v4"), TASKS["mujoco/hopper"]).require()   # ValueError: version
    """
    found = _Found(frozenset(allowed))
    _compare_id(said, task, found)
    _compare_class(said, task, found)
    wrappers = _compare_wrappers(said, task, found)
    if task.family == "atari":
        _compare_game(said, task, wrappers, found)
    else:
        _compare_keywords(said, task, defaults(task), found)
    _compare_limit(said, task, wrappers, found)
    scale_from = _compare_actions(said, task, found)
    for name, bounds in said.observation_bounds.items():
        _compare_observation(name, bounds, task, found)
    for trait in said.traits:
        found.note("format", trait)
    return Comparison(where=said.where, differences=tuple(found.differences), scale_from=scale_from)


class _Found:
    """Collects differences; what the user allows is no longer refused."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed
        self.differences: list[Difference] = []

    def refuse(self, subject: str, text: str) -> None:
        outcome = "allowed" if subject in self._allowed else "refused"
        self.differences.append(Difference(subject=subject, text=text, outcome=outcome))

    def convert(self, subject: str, text: str) -> None:
        self.differences.append(Difference(subject=subject, text=text, outcome="converted"))

    def note(self, subject: str, text: str) -> None:
        self.differences.append(Difference(subject=subject, text=text, outcome="noted"))


def _bare(env_id: str) -> tuple[str, int | None]:
    """Name and version of an id: `Hopper`, 5 of `my_pkg:Hopper-v5`."""
    match = re.fullmatch(r"(.*?)(?:-v(\d+))?", env_id.rpartition(":")[2])
    assert match is not None
    return match[1], int(match[2]) if match[2] else None


def _compare_id(said: EnvDescription, task: Task, found: _Found) -> None:
    if not said.env_id:
        found.note("environment", f"it does not say in which environment it was made; taken as {task.env_id}")
        return
    (name, version), (wanted, wanted_version) = _bare(said.env_id), _bare(task.env_id)
    if (name, version) == (wanted, wanted_version):
        return
    if task.family == "atari" and _is_same_game(said.env_id, task.env_id):
        return  # what the older ids stand for is compared as frameskip and sticky actions
    if name != wanted:
        found.refuse("environment", f"it was made in {said.env_id}, task {task.name} is {task.env_id}")
    elif said.converts_versions and task.family == "mujoco" and version is not None and version < 4:
        found.convert(
            "version",
            f"{said.env_id} ran on mujoco-py; it becomes {task.env_id}, whose physics and rewards differ, so returns are "
            "not the same",
        )
    else:
        found.refuse(
            "version",
            f"it was made in {said.env_id}, task {task.name} is {task.env_id}: versions differ in what they show and pay",
        )


def _is_same_game(said: str, wanted: str) -> bool:
    games = [ATARI_ID.fullmatch(env_id.rpartition(":")[2]) for env_id in (said, wanted)]
    return all(games) and len({game[1] for game in games if game}) == 1


def _compare_class(said: EnvDescription, task: Task, found: _Found) -> None:
    if said.entry_point and task.family in CLASSES_FROM and not said.entry_point.startswith(CLASSES_FROM[task.family]):
        found.refuse("entry-point", f"its environment is the class {said.entry_point}, not {task.env_id}'s own")


def _compare_wrappers(said: EnvDescription, task: Task, found: _Found) -> dict[str, Mapping[str, Any]]:
    """Keywords of the wrappers that are compared elsewhere: limits, and for games frames and sticky actions."""
    known: dict[str, Mapping[str, Any]] = {}
    compared = {"TimeLimit", "RescaleAction"} | (
        {"MaxAndSkipObservation", "StickyAction", "ResizeObservation"} if task.family == "atari" else set()
    )
    for wrapper in said.wrappers:
        is_known = not wrapper.entry_point or wrapper.entry_point.startswith(WRAPPERS_FROM)
        if is_known and wrapper.name in compared and wrapper.name not in known:
            known[wrapper.name] = wrapper.kwargs
        elif not (is_known and wrapper.name in HARMLESS_WRAPPERS):
            changes = CHANGES.get(wrapper.name) if is_known else None
            what = f"which changes {changes}" if changes else "which is unknown here"
            found.refuse(f"wrapper:{wrapper.name}", f"it was made behind the wrapper {wrapper.name}, {what}")
    if "RescaleAction" in known and said.action_bounds is None:
        found.refuse(
            "wrapper:RescaleAction", "it was made behind RescaleAction, but does not say the bounds of its actions"
        )
    if "ResizeObservation" in known:
        shape = known["ResizeObservation"].get("shape")
        wanted = [spec.shape[:2] for spec in task.observations.values() if spec.kind is Kind.IMAGE]
        if shape is None or [tuple(shape)] != wanted:
            found.refuse(
                "wrapper:ResizeObservation", f"frames were resized to {shape}, task {task.name} shows {wanted}"
            )
    return known


def _compare_keywords(said: EnvDescription, task: Task, defaults: Mapping[str, Any], found: _Found) -> None:
    wanted = {**defaults, **task.env_kwargs}
    for name, value in said.kwargs.items():
        if name in RENDERING:
            continue
        if name not in wanted:
            found.refuse(
                f"keyword:{name}", f"it was made with {name}={_short(value)}, which task {task.name} does not know"
            )
        elif not _equal(value, wanted[name]):
            found.refuse(
                f"keyword:{name}",
                f"it was made with {name}={_short(value)}, task {task.name} has {_short(wanted[name])}",
            )
    for name, value in task.env_kwargs.items() if said.env_id else ():
        if (
            name not in said.kwargs
            and name not in RENDERING
            and not (name in defaults and _equal(defaults[name], value))
        ):
            found.refuse(
                f"keyword:{name}", f"task {task.name} sets {name}={_short(value)}, and it was made without that keyword"
            )


def _compare_game(said: EnvDescription, task: Task, wrappers: Mapping[str, Mapping[str, Any]], found: _Found) -> None:
    """Frames between two decisions, sticky actions, and the game's own switches."""
    match = ATARI_ID.fullmatch(said.env_id.rpartition(":")[2])
    frameskip: Any = said.kwargs.get("frameskip")
    sticky: Any = said.sticky if said.sticky is not None else said.kwargs.get("repeat_action_probability")
    if match and match[3] in "04" and not said.env_id.startswith("ALE/"):  # older ids stand for both
        frameskip = (
            {"NoFrameskip": 1, "Deterministic": 4}.get(match[2] or "", (2, 5)) if frameskip is None else frameskip
        )
        sticky = (0.25 if match[3] == "0" else 0.0) if sticky is None else sticky
    if "StickyAction" in wrappers:
        sticky = wrappers["StickyAction"].get("repeat_action_probability", math.nan)
    if "MaxAndSkipObservation" in wrappers:
        skip = wrappers["MaxAndSkipObservation"].get("skip", 4)
        frameskip = skip * frameskip if isinstance(frameskip, int) and isinstance(skip, int) else (frameskip, skip)
    wanted_skip, wanted_sticky = task.env_kwargs.get("frameskip", 4), float(task.env_kwargs.get("sticky", 0.0))
    if frameskip is None:
        found.note("frameskip", "it does not say how many frames an action lasts" + f"; taken as {wanted_skip}")
    elif frameskip != wanted_skip:
        found.refuse("frameskip", f"an action lasted {_short(frameskip)} frames, in task {task.name} {wanted_skip}")
    if sticky is None:
        found.note("sticky", f"it does not say whether actions were sticky; taken as {wanted_sticky:g}")
    elif not math.isclose(float(sticky), wanted_sticky, abs_tol=1e-6):
        base = task.name.partition("?")[0]
        found.refuse(
            "sticky",
            f"actions were sticky with chance {float(sticky):g}, in task {task.name} {wanted_sticky:g} (there is the task "
            f"{base if not sticky else f'{base}?sticky={float(sticky):g}'})",
        )
    for name, value in said.kwargs.items():
        if name in RENDERING | {
            "frameskip",
            "repeat_action_probability",
            "full_action_space",
            "max_num_frames_per_episode",
        }:
            continue  # the first two stand above; buttons and limits are compared elsewhere
        if name == "game":
            wanted = str(task.env_kwargs.get("rom", value))
            if str(value).replace("_", "") != wanted.replace("_", ""):
                found.refuse("keyword:game", f"it is of the game {value}, task {task.name} of {wanted}")
        elif name not in ATARI_DEFAULTS:
            found.refuse(
                f"keyword:{name}", f"it was made with {name}={_short(value)}, which task {task.name} does not know"
            )
        elif value not in ATARI_DEFAULTS[name]:
            normal = ATARI_DEFAULTS[name][-1]
            found.refuse(f"keyword:{name}", f"it was made with {name}={_short(value)}, task {task.name} has {normal}")


def _compare_limit(said: EnvDescription, task: Task, wrappers: Mapping[str, Mapping[str, Any]], found: _Found) -> None:
    limits = [said.max_steps, wrappers.get("TimeLimit", {}).get("max_episode_steps")]
    frames = said.kwargs.get("max_num_frames_per_episode") if task.family == "atari" else None
    limits.append(frames // int(task.env_kwargs.get("frameskip", 4)) if isinstance(frames, int) else None)
    stated = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    if stated and min(stated) != task.max_steps:
        what = "longer episodes are cut there" if min(stated) > task.max_steps else "its episodes end earlier"
        found.note("limit", f"its limit was {min(stated):,} steps, the task's is {task.max_steps:,}: {what}")


def _compare_actions(said: EnvDescription, task: Task, found: _Found) -> Bounds | None:
    """The bounds that actions are to be scaled from."""
    bounds = task.action.bounds
    if task.action.kind is not Kind.CONTINUOUS or bounds is None or said.action_bounds is None:
        return None
    own, wanted = _open(said.action_bounds), full_bounds(bounds, task.action.size)
    if len(own[0]) != task.action.size or _same(own, wanted):
        return None  # another number of elements is refused as a shape
    is_finite = np.isfinite(own[0]) & np.isfinite(own[1])
    if is_finite.all():
        found.convert(
            "action-bounds",
            f"actions are scaled from {_bounds_text(own)}, the bounds it declares, to {_bounds_text(wanted)}",
        )
        return own
    if not is_finite.any():
        found.note("action-bounds", f"it declares no bounds of actions; they are clipped to {_bounds_text(wanted)}")
    else:
        found.refuse(
            "action-bounds", f"it declares actions in {_bounds_text(own)}, task {task.name} in {_bounds_text(wanted)}"
        )
    return None


def _compare_observation(name: str, bounds: Bounds, task: Task, found: _Found) -> None:
    spec = task.observations[name]
    own = _open(bounds)
    if spec.kind is not Kind.CONTINUOUS or len(own[0]) != spec.size:
        return  # another size is refused as a shape
    wanted = full_bounds(spec.bounds or (np.array([-np.inf]), np.array([np.inf])), spec.size)
    if not _same(own, wanted):
        found.refuse(
            "observation-bounds",
            f"it declares {name} in {_bounds_text(own)}, task {task.name} in {_bounds_text(wanted)}: it was rescaled or "
            "normalised, or is of another environment",
        )


def _open(bounds: Bounds) -> Bounds:
    """Bounds in 64 bits, those that limit nothing as infinite."""
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in bounds)
    return np.where(low <= -UNBOUNDED, -np.inf, low), np.where(high >= UNBOUNDED, np.inf, high)


def _same(one: Bounds, other: Bounds) -> bool:
    return all(np.allclose(a, b, rtol=TOLERANCE, atol=1e-6) for a, b in zip(one, other, strict=True))


def _equal(value: Any, other: Any) -> bool:
    """Whether two keywords are the same, whether a list or a tuple holds them."""
    if isinstance(value, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(value, other, rel_tol=1e-9) or (math.isnan(value) and math.isnan(other))
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(value) == len(other) and all(map(_equal, value, other))
    return bool(value == other)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bounds_text(bounds: Bounds) -> str:
    """`[-1, 1]` where all elements share them, else those of the first elements."""
    pairs = [f"[{low:g}, {high:g}]" for low, high in zip(*bounds, strict=True)]
    if len(set(pairs)) == 1:
        return pairs[0]
    return ", ".join(pairs[:4]) + (", ..." if len(pairs) > 4 else "")
