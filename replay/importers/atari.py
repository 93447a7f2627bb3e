"""What importers must know of Atari: the buttons that other projects count, and frames of other sizes and colours.

Shape letters: T steps, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Integer, UInt8

from gato.task import ArraySpec, Task

MINIMAL_BUTTONS: Mapping[str, tuple[int, ...]] = {
    "pong": (0, 1, 3, 4, 11, 12),
    "breakout": (0, 1, 3, 4),
    "space_invaders": (0, 1, 3, 4, 11, 12),
    "freeway": (0, 2, 5),
}
"""By ROM: which of the 18 buttons a game reads. Others count actions among these: action 2 of Freeway is button 5."""


SCREEN = (210, 160, 3)
"""The emulator's frames."""


def minimal_buttons(task: Task) -> tuple[int, ...]:
    """The buttons of the task's game. ValueError where they are not known here."""
    rom = str(task.env_kwargs.get("rom", ""))
    if rom not in MINIMAL_BUTTONS:
        raise ValueError(
            f"task {task.name}: the buttons of {rom or task.env_id} are not known; they are of {', '.join(MINIMAL_BUTTONS)}"
        )
    return MINIMAL_BUTTONS[rom]


def to_all_buttons(
    actions_T: Integer[np.ndarray, " T"], buttons: tuple[int, ...], what: str
) -> Integer[np.ndarray, " T"]:
    """Actions that count the minimal buttons of a game, as the 18 that all games share. ValueError where one is outside."""
    if len(actions_T) and not 0 <= actions_T.min() <= actions_T.max() < len(buttons):
        raise ValueError(
            f"{what}: actions from {actions_T.min()} to {actions_T.max()}, but the game has {len(buttons)} buttons"
        )
    return np.asarray(buttons, np.int64)[actions_T]


def shrink(frames_THWC: UInt8[np.ndarray, "T H W C"], spec: ArraySpec) -> UInt8[np.ndarray, "T h w C"]:
    """Frames in the size of `spec`, shrunk by area as our Atari environment does it."""
    import cv2  # only here: most data sets need no resizing

    height, width = spec.shape[:2]
    out = np.empty((len(frames_THWC), *spec.shape), np.uint8)
    for place, frame in enumerate(frames_THWC):
        out[place] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return out


def may_shrink(shape: tuple[int, ...]) -> bool:
    """Whether frames of this shape are the emulator's own: shrunk twice, others would not be what the task shows."""
    return shape == SCREEN
