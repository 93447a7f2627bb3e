"""Values of keywords as JSON or a saved state holds them: equal, a number of steps, in short."""

from __future__ import annotations

import json
import math
from typing import Any

RENDERING = frozenset(
    {"render_mode", "width", "height", "camera_id", "camera_name", "default_camera_config",
    "max_geom", "visual_options",
     "render_fps", "screen_size", "disable_env_checker", "autoreset", "apply_api_compatibility"}
)  # fmt: skip
"""Keywords that change what is drawn, not what is played."""


def whole(value: Any) -> int | None:
    """A number of steps: a whole number above 0, perhaps as a float or as text. None if it is
    anything else."""
    try:
        number = (
            float(value)
            if isinstance(value, (int, float, str)) and not isinstance(value, bool)
            else math.nan
        )
    except (ValueError, OverflowError):
        return None
    return int(number) if number > 0 and number < 1e15 and number == int(number) else None


def equal(value: Any, other: Any) -> bool:
    """Whether two values are equal; lists and tuples of equal values are."""
    if isinstance(value, (int, float)) and isinstance(other, (int, float)):
        return value == other or (abs(value) < 1e300 and math.isclose(value, other, rel_tol=1e-9))
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(value) == len(other) and all(map(equal, value, other))
    return bool(value == other)


def short(value: Any) -> str:
    """A value as JSON of at most 60 characters."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
