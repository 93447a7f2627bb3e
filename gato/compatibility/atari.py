"""What a source says of an Atari game: frames of an action, sticky actions, the game's switches."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from gato.compatibility.environment import Differences, EnvDescription
from gato.compatibility.values import RENDERING, short
from gato.task import Task

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


def is_same_game(said: str, wanted: str) -> bool:
    games = [ATARI_ID.fullmatch(env_id.rpartition(":")[2]) for env_id in (said, wanted)]
    return all(games) and len({game[1] for game in games if game}) == 1


def compare_game(
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
            "frameskip",
            f"it does not say how many frames an action lasts; {wanted_skip} is assumed",
        )
    elif frameskip != wanted_skip:
        found.reject(
            "frameskip",
            f"an action lasted {short(frameskip)} frames, in task {task.name} {wanted_skip}",
        )
    if sticky is not None and (
        isinstance(sticky, bool) or not isinstance(sticky, (int, float)) or not 0 <= sticky < 1
    ):
        found.reject(
            "sticky", f"its chance of sticky actions is {short(sticky)}, not a number in [0, 1)"
        )
    elif sticky is None:
        found.note(
            "sticky", f"it does not say whether actions were sticky; {wanted_sticky:g} is assumed"
        )
    elif not math.isclose(float(sticky), wanted_sticky, abs_tol=1e-6):
        base = task.name.partition("?")[0]
        found.reject(
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
                found.reject(
                    "keyword:game", f"it is of the game {value}, task {task.name} of {wanted}"
                )
        elif name == "obs_type" and value == "grayscale" and task.env_kwargs.get("grey"):
            continue
        elif name not in ATARI_DEFAULTS:
            found.reject(
                f"keyword:{name}",
                f"it was made with {name}={short(value)}, which task {task.name} does not know",
            )
        elif value not in ATARI_DEFAULTS[name]:
            normal = ATARI_DEFAULTS[name][-1]
            found.reject(
                f"keyword:{name}",
                f"it was made with {name}={short(value)}, task {task.name} has {normal}",
            )
