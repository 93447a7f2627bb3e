"""Atari games, straight from the emulator.

One step is 4 frames. The agent sees the pixelwise maximum of the last two frames, resized by area:
64x80 RGB, or 84x84 grey in all three channels (`grey`), as public data sets hold it. There are
always 18 actions, rewards are not clipped, a lost life does not end the episode, and sticky actions
are off. With `frames` above 1 it sees the images of so many steps, the oldest first; before the
first step they are all the same. The emulator is deterministic, so each episode begins with 1 to 30
no-ops, by its seed.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping
from typing import Any

import ale_py
import ale_py.roms
import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from gato.task import Task

cv2.setNumThreads(1)


def noops_of(seed: int, max_noops: int) -> int:
    """Number of no-op frames that an episode begins with: 1 to `max_noops`, or 0 if that is 0."""
    return int(np.random.default_rng(seed).integers(1, max_noops + 1)) if max_noops else 0


class AtariEnv:
    """An Atari game, straight from the emulator."""

    def __init__(self, task: Task) -> None:
        options: Mapping[str, Any] = task.env_kwargs
        self._max_frames = task.max_steps * int(options["frameskip"])
        self._frameskip = int(options["frameskip"])
        self._max_noops = int(options["max_noops"])
        self._sticky = float(options["sticky"])
        self._grey = bool(options.get("grey", False))
        if self._frameskip < 1 or not 0.0 <= self._sticky < 1.0:
            raise ValueError(
                f"task {task.name}: frameskip {self._frameskip} must be at least 1 and sticky"
                f" {self._sticky} in [0, 1)"
            )
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rom = ale_py.roms.get_rom_path(str(options["rom"]))
        if rom is None:
            raise ValueError(
                f"no ROM {options['rom']!r} for task {task.name}; ale-py carries its own, install"
                " it again"
            )
        self._rom = str(rom)
        self._names = sorted(task.observations)
        height, width, _ = task.observations[self._names[0]].shape
        self._size = (width, height)
        self._images: deque[np.ndarray] = deque(maxlen=len(self._names))
        self._num_frames = 0
        # Always 18: an action that a game does not have (fire in Skiing and LostLuggage) counts as
        # a no-op.
        self._actions = [ale_py.Action(number) for number in range(18)]
        self._load(0)
        screen = self._ale.getScreenDims()  # 210 x 160, but up to 250 high
        self._frames = np.zeros((2, *screen) if self._grey else (2, *screen, 3), np.uint8)

    def _load(self, seed: int) -> None:
        self._ale.setFloat("repeat_action_probability", self._sticky)
        self._ale.setInt("random_seed", seed % 2**31)
        self._ale.loadROM(self._rom)

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        if self._sticky:
            self._load(seed)  # the emulator reads its seed when the game is loaded
        self._ale.reset_game()
        noops = noops_of(seed, self._max_noops)
        for _ in range(noops):
            self._ale.act(self._actions[0])
        self._num_frames = noops
        self._look(1)
        self._frames[0] = self._frames[1]
        self._images.extend([self._image()] * len(self._names))
        return self._shown()

    def _look(self, place: int) -> None:
        """Copy the emulator's screen: `place` 0 is the frame before the last, 1 the last."""
        if self._grey:
            self._ale.getScreenGrayscale(self._frames[place])
        else:
            self._ale.getScreenRGB(self._frames[place])

    def _shown(self) -> dict[str, np.ndarray]:
        return dict(zip(self._names, self._images, strict=True))

    def _image(self) -> np.ndarray:
        image = cv2.resize(self._frames.max(axis=0), self._size, interpolation=cv2.INTER_AREA)
        return np.repeat(image[..., None], 3, axis=-1) if self._grey else image

    def step(
        self, action: Shaped[np.ndarray, ...]
    ) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        # Repeat the action for `frameskip` frames; only the last two are looked at.
        reward, done_frames = 0.0, 0
        for frame in range(self._frameskip):
            reward += self._ale.act(self._actions[int(action)])
            done_frames += 1
            if self._ale.game_over():
                break
            if frame >= self._frameskip - 2:
                self._look(frame - self._frameskip + 2)
        self._num_frames += done_frames
        terminated = self._ale.game_over()
        if terminated:
            self._look(1)
        if self._frameskip == 1:
            # There is no frame before it to take the maximum with.
            self._frames[0] = self._frames[1]
        self._images.append(self._image())
        return (
            self._shown(),
            reward,
            terminated,
            not terminated and self._num_frames >= self._max_frames,
        )

    def extras(self) -> dict[str, np.ndarray]:
        return {"ram": np.asarray(self._ale.getRAM(), np.uint8)}

    @property
    def steps_per_s(self) -> float:
        return 60.0 / self._frameskip

    def picture(self) -> UInt8[np.ndarray, "210 160 3"]:
        return self._ale.getScreenRGB()

    def close(self) -> None: ...
