"""Clips: the first episode of the first row as a small film, recorded while it is played.

player = Filming(player, envs, caption="1.20")
for episode in play(envs, player, seeds, ...): ...
clip = player.clip()
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from actors.envs.env import NoPictureError
from actors.envs.vector import VectorEnv
from actors.players.player import Player, TimeStep
from gato.metrics import Evaluation

Picture = UInt8[np.ndarray, "H W 3"]
MOST_PICTURES_PER_S = 25.0
MOST_S = 180.0
"""Longest clip, in seconds of the world that it shows."""
MOST_BITS_PER_S = "200k"
"""Of MP4: with `MOST_S` a clip is at most 4.5 MB; clips of games and robots are below 1 MB."""
MOST_GIF_PICTURES = 300
BAR_PIXELS = 24
SMALLEST_WIDTH = 320
"""A smaller picture is enlarged, each pixel to a square: the caption needs the room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One filmed episode, or the problem why there is none."""

    data: bytes = b""
    suffix: str = ""
    """.mp4, or .gif if no ffmpeg is installed."""
    seconds: float = 0.0
    """Its length, at the speed of the world that it shows."""
    steps: int = 0
    """Number of steps that it shows: all of the episode, or its beginning."""
    problem: str = ""


class ClipFolder:
    """A folder with the newest clip of each task: <task>.mp4, and what it shows as <task>.json.
    Files are replaced atomically."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.files: dict[str, Path] = {}
        """Clips written so far, by task."""
        self.problems: dict[str, str] = {}
        """Why a task has no clip, by task."""

    def keep(self, clip: Clip, evaluation: Evaluation) -> str:
        """Write the clip. Returns a message if there is none, once for each task; else an empty
        string."""
        task = evaluation.task
        if clip.problem or evaluation.failed:
            said = self.problems.get(task)
            self.problems[task] = clip.problem or f"the evaluation of {task} failed"
            return "" if said else self.problems[task]
        file = self._path / f"{task}{clip.suffix}"
        facts = {
            "task": task,
            "file": file.name,
            "version": str(evaluation.version),
            "learner_step": evaluation.learner_step,
            "return": evaluation.returns[0],
            "shown_steps": clip.steps,
            "shown_s": clip.seconds,
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        for path, data in (
            (file, clip.data),
            (self._path / f"{task}.json", json.dumps(facts).encode()),
        ):
            part = path.with_name(path.name + ".part")
            part.write_bytes(data)
            os.replace(part, path)
        self.files[task] = file
        return ""


class Mp4:
    """H.264, encoded while pictures are added. The constructor raises ImportError or RuntimeError
    if imageio-ffmpeg or its ffmpeg is missing."""

    suffix = ".mp4"
    is_full = False
    """It can hold any number of pictures."""

    def __init__(self, height: int, width: int, pictures_per_s: float) -> None:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
        self._folder = tempfile.TemporaryDirectory(prefix="gato-clip-")
        self._path = Path(self._folder.name) / "clip.mp4"
        options = ["-preset", "veryfast", "-crf", "26", "-threads", "1", "-movflags", "+faststart"]
        self._writer = imageio_ffmpeg.write_frames(
            str(self._path),
            (width, height),
            fps=pictures_per_s,  # pyright: ignore[reportArgumentType]
            codec="libx264",
            pix_fmt_out="yuv420p",
            macro_block_size=2,
            ffmpeg_log_level="error",
            quality=None,  # pyright: ignore[reportArgumentType]
            output_params=[*options, "-maxrate", MOST_BITS_PER_S, "-bufsize", MOST_BITS_PER_S],
        )
        self._send(None)

    def _send(self, picture: Picture | None) -> None:
        """Raises OSError if ffmpeg has ended, or cannot write."""
        try:
            self._writer.send(picture)
        except OSError as problem:
            self._folder.cleanup()
            raise OSError(f"ffmpeg stopped: {str(problem).splitlines()[0]}") from problem

    def add(self, picture: Picture) -> None:
        self._send(np.ascontiguousarray(picture))

    def develop(self) -> bytes:
        """The file's content. Raises OSError if ffmpeg wrote nothing."""
        self._writer.close()
        try:
            data = self._path.read_bytes()
        finally:
            self._folder.cleanup()
        if not data:
            raise OSError("ffmpeg wrote an empty film")
        return data


class Gif:
    """A GIF, written by Pillow alone: larger than MP4, so only the beginning of an episode."""

    suffix = ".gif"

    def __init__(self, height: int, width: int, pictures_per_s: float) -> None:
        del height, width
        self._picture_ms = round(1000 / pictures_per_s)
        self._pictures: list[Image.Image] = []

    @property
    def is_full(self) -> bool:
        return len(self._pictures) >= MOST_GIF_PICTURES

    def add(self, picture: Picture) -> None:
        self._pictures.append(Image.fromarray(picture).quantize(64))

    def develop(self) -> bytes:
        out = BytesIO()
        first, *others = self._pictures
        first.save(
            out, "gif", save_all=True, append_images=others, duration=self._picture_ms, loop=0
        )
        return out.getvalue()


def new_film(height: int, width: int, pictures_per_s: float) -> Mp4 | Gif:
    """An MP4 if this machine can write one, else a GIF."""
    try:
        return Mp4(height, width, pictures_per_s)
    except (ImportError, RuntimeError):
        return Gif(height, width, pictures_per_s)


def framed(picture: Picture, text: str) -> UInt8[np.ndarray, "framed_H framed_W 3"]:
    """The picture, large enough and with even sides, above a bar with the text."""
    larger = -(-SMALLEST_WIDTH // picture.shape[1])
    picture = picture.repeat(larger, axis=0).repeat(larger, axis=1)
    height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    bar = np.full((BAR_PIXELS, width, 3), 24, np.uint8)
    cv2.putText(bar, text, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (230, 230, 230), 1, cv2.LINE_AA)
    return np.concatenate([picture[:height, :width], bar])


class Filming:
    """Acts as `player` does, and films the first episode of row 0: one picture before each step,
    at most `MOST_PICTURES_PER_S`."""

    def __init__(self, player: Player, envs: VectorEnv, *, caption: str) -> None:
        self._player = player
        self._envs = envs
        self._caption = caption
        self._every = max(1, round(envs.steps_per_s / MOST_PICTURES_PER_S))
        self._begun = self._rolling = False
        self._film: Mp4 | Gif | None = None
        self._problem = "nothing was played"
        self._steps, self._pictures, self._return = 0, 0, 0.0

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        if step.is_first[0]:  # film from the first episode's beginning to the second's
            self._rolling, self._begun = not self._begun, True
        if self._rolling:
            self._shoot(float(step.rewards[0]))
        return self._player.act(step)

    def _shoot(self, reward: float) -> None:
        self._return += reward
        if self._steps % self._every == 0:
            text = (
                f"{self._envs.task.name}  {self._caption}  step {self._steps}  return"
                f" {self._return:.1f}"
            )
            try:
                picture = framed(self._envs.picture(0), text)
                self._film = self._film or new_film(
                    *picture.shape[:2], self._envs.steps_per_s / self._every
                )
                self._film.add(picture)
            except NoPictureError as problem:  # the film so far is kept
                self._rolling, self._problem = False, str(problem)
                return
            except OSError as problem:
                self._fails(problem)
                return
            self._pictures += 1
        self._steps += 1
        is_full = self._film is not None and self._film.is_full
        self._rolling = not is_full and self._steps < MOST_S * self._envs.steps_per_s

    def _fails(self, problem: OSError) -> None:
        """Give up the film; the episodes go on."""
        self._rolling, self._film = False, None
        where = os.environ.get("TMPDIR", "/tmp")  # tempfile may raise if it has no folder
        self._problem = (
            f"{self._envs.task.name} cannot be filmed: {problem}; see that there is room in {where}"
        )

    def clip(self) -> Clip:
        """The clip; call it once, after the last episode."""
        data = b""
        try:
            data = self._film.develop() if self._film else b""
        except OSError as problem:
            self._fails(problem)
        if self._film is None:
            return Clip(problem=self._problem)
        seconds = self._pictures * self._every / self._envs.steps_per_s
        return Clip(
            data=data,
            suffix=self._film.suffix,
            seconds=round(seconds, 2),
            steps=self._steps,
        )
