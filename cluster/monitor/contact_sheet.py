"""A contact sheet: some frames of an episode in one picture, each with its step, for a person to
look at.

Shape letters: N frames, H height, W width.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

NUM_FRAMES = 24
COLUMNS = 6
MIN_FRAME_PIXELS = 160
"""Smaller frames are enlarged, by whole numbers, to about this width."""
GAP = 4
LABEL_PIXELS = 16
SUFFIXES = (".png", ".jpg", ".jpeg")


def shown_steps(num_steps: int) -> list[int]:
    """Steps that are shown: the first, the last, and what lies evenly between."""
    return sorted(
        {round(step) for step in np.linspace(0, num_steps - 1, min(NUM_FRAMES, num_steps)).tolist()}
    )


def sheet(
    frames_NHWC: UInt8[np.ndarray, "N H W 3"], steps: list[int]
) -> UInt8[np.ndarray, "height width 3"]:
    """The picture."""
    import cv2

    num, height, width, _ = frames_NHWC.shape
    scale = max(1, round(MIN_FRAME_PIXELS / width))
    frames = frames_NHWC.repeat(scale, axis=1).repeat(scale, axis=2)
    columns = min(COLUMNS, num)
    cell_height, cell_width = height * scale + LABEL_PIXELS + GAP, width * scale + GAP
    picture = np.full(
        (-(-num // columns) * cell_height + GAP, columns * cell_width + GAP, 3), 32, np.uint8
    )
    for place, (frame, step) in enumerate(zip(frames, steps, strict=True)):
        top, left = place // columns * cell_height + GAP, place % columns * cell_width + GAP
        cv2.putText(
            picture,
            str(step),
            (left, top + 12),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.42,
            (230, 230, 230),
            1,
            cv2.LINE_AA,
        )
        top += LABEL_PIXELS
        picture[top : top + height * scale, left : left + width * scale] = frame
    return picture


def save_sheet(file: Path, frames_NHWC: UInt8[np.ndarray, "N H W 3"], steps: list[int]) -> None:
    """Write the picture. ValueError where the file's name is none of a picture."""
    import imageio.v3 as imageio

    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{file} must end in one of {', '.join(SUFFIXES)}")
    if not file.absolute().parent.is_dir():
        raise ValueError(
            f"there is no folder {file.absolute().parent} to write {file.name} to; make it, or name"
            " another"
        )
    imageio.imwrite(file, sheet(frames_NHWC, steps))
