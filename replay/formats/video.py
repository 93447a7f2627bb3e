"""Frames of a film, scaled as they are read.

Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from gato.episode import BadEpisode


def read_video(
    file: Path, *, begin_s: float, fps: float, number: int, size: tuple[int, int]
) -> UInt8[np.ndarray, "T H W 3"]:
    """At most `number` frames from `begin_s` on, scaled as a whole to `size` (height, width), with
    black bars where the sides have another ratio.

    Raises:
        ValueError: if the package that decodes films is not installed.
        BadEpisode: if the film is not there, or cannot be read.
    """
    if find_spec("imageio_ffmpeg") is None:
        raise ValueError(
            "films need the package imageio-ffmpeg, which is not installed; pip install -e"
            " '.[video]' -c constraints.txt in the project's folder"
        )
    import imageio_ffmpeg  # an extra

    # It says of each film that it is scaled, which is what was asked for.
    logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)
    if not file.is_file():
        raise BadEpisode(f"film {file.name} is not there")
    height, width = size
    fitted = (
        f"scale={width}:{height}:force_original_aspect_ratio=decrease,"
        f"pad={width}:{height}:(ow-iw)/2:(oh-ih)/2"
    )
    # Half a frame earlier: a time that was rounded up must not lose the first one.
    begin_s = max(0.0, begin_s - 0.5 / fps)
    frames = np.zeros((number, height, width, 3), np.uint8)
    count = 0
    try:
        film = imageio_ffmpeg.read_frames(
            str(file),
            pix_fmt="rgb24",
            input_params=["-ss", f"{begin_s:.6f}"],
            output_params=["-vf", fitted, "-frames:v", str(number)],
        )
        next(film)  # what it says of itself
        for frame in film:
            frames[count] = np.frombuffer(frame, np.uint8).reshape(height, width, 3)
            count += 1
            if count == number:
                break
        film.close()
    except (OSError, RuntimeError, ValueError, StopIteration) as problem:
        raise BadEpisode(
            f"film {file.name} cannot be read: {' '.join(str(problem).split())[:200]}"
        ) from problem
    return frames[:count]
