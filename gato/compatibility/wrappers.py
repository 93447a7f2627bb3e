"""The wrappers around a source's environment: which change nothing, and which are rejected."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from gato.array_spec import Kind
from gato.compatibility.environment import Differences, EnvDescription, Wrapper
from gato.compatibility.values import short, whole
from gato.task import Task

HARMLESS_WRAPPERS = frozenset(
    {"OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics", "RecordVideo",
    "HumanRendering", "RenderCollection",
     "AddWhiteNoise", "ObstructView", "DataCollector", "DataCollectorV0", "StepDataCollector",
     "JaxToNumpy", "JaxToTorch",
     "NumpyToTorch", "ArrayConversion", "DtypeObservation", "FlattenObservation", "ClipAction",
     "Monitor"}
)  # fmt: skip
"""Wrappers that change neither observations nor rewards nor the ends of episodes.
FlattenObservation keeps the values, and their shape is compared separately; ClipAction does to
actions what the environment does."""
CHANGES = {
    "NormalizeObservation": "observations", "TransformObservation": "observations",
    "FilterObservation": "observations",
    "RescaleObservation": "observations", "DelayObservation": "observations",
    "TimeAwareObservation": "observations",
    "FrameStackObservation": "observations", "FrameStack": "observations",
    "ReshapeObservation": "observations",
    "GrayscaleObservation": "observations", "AddRenderObservation": "observations",
    "ResizeObservation": "observations",
    "DiscretizeObservation": "observations", "AtariPreprocessing": "observations",
    "NormalizeReward": "rewards",
    "TransformReward": "rewards", "ClipReward": "rewards", "TransformAction": "actions",
    "DiscretizeAction": "actions",
    "StickyAction": "actions", "RepeatAction": "actions", "MaxAndSkipObservation": "time",
    "Autoreset": "the ends of episodes", "VecNormalize": "observations and rewards",
}  # fmt: skip
"""What other well-known wrappers change, for the message."""
WRAPPERS_FROM = ("gymnasium.", "gym.", "minari.", "stable_baselines3.common.monitor")
"""Modules whose wrappers do what their names say."""


def _is_what_it_is_called(wrapper: Wrapper) -> bool:
    """Whether a wrapper is from a known module, and its class has its name."""
    its_class = re.split(r"[:.]", wrapper.entry_point)[-1]
    return not wrapper.entry_point or (
        wrapper.entry_point.startswith(WRAPPERS_FROM) and its_class == wrapper.name
    )


def compare_wrappers(
    said: EnvDescription, task: Task, found: Differences
) -> dict[str, Mapping[str, Any]]:
    """Reject unknown wrappers.

    Returns:
        Keywords of the wrappers that are compared elsewhere, by name; of two, the outer's.
    """
    known: dict[str, Mapping[str, Any]] = {}
    once = {"MaxAndSkipObservation", "ResizeObservation"} if task.family == "atari" else set[str]()
    for wrapper in said.wrappers:
        is_known = _is_what_it_is_called(wrapper)
        if is_known and (
            wrapper.name in ("TimeLimit", "RescaleAction") or (wrapper.name in once - known.keys())
        ):
            inner = known.get(wrapper.name, {})
            known[wrapper.name] = wrapper.kwargs
            # The shorter of two limits ends an episode.
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
        found.reject(
            f"wrapper:{wrapper.name}", f"it was made behind the wrapper {wrapper.name}, {what}"
        )
    if "ResizeObservation" in known:
        shape = known["ResizeObservation"].get("shape")
        wanted = [
            list(spec.shape[:2]) for spec in task.observations.values() if spec.kind is Kind.IMAGE
        ]
        if not isinstance(shape, (list, tuple)) or [list(shape)] != wanted:
            found.reject(
                "wrapper:ResizeObservation",
                f"frames were resized to {short(shape)}, task {task.name} shows {wanted}",
            )
    return known


def _limit(kwargs: Mapping[str, Any]) -> int | None:
    """The steps of a TimeLimit; None if it does not say a number."""
    return whole(kwargs.get("max_episode_steps"))
