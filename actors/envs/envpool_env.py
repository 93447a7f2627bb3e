"""Atari games in EnvPool (extra `envpool`), equal to `actors.envs.atari` bit for bit.

MuJoCo tasks are rejected. EnvPool 1.2.5 contains MuJoCo 3.6.0, whose Ant moves differently from
that of 4.0.0. It also draws initial states from another generator, so the same seed would begin
another episode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from actors.envs.atari import noops_of
from actors.envs.env import Outcome
from gato.task import Task


def envpool_versions() -> dict[str, str]:
    return {"engine": f"envpool {version('envpool')}"}


@cache
def _seed_of(noops: int, max_noops: int) -> int:
    """EnvPool's first seed that begins with this many no-ops: it scales the first 32 bits of a
    Mersenne Twister."""
    for seed in range(100 * max_noops):
        first = int(np.random.RandomState(seed).randint(0, 2**32, dtype=np.uint32))
        if (first * max_noops >> 32) + 1 == noops:
            return seed
    raise AssertionError(f"no seed begins with {noops} of {max_noops} no-ops")


class EnvPoolGame:
    """One game in a thread of EnvPool. A pool accepts a seed only when it is made, so each episode
    has a pool of its own."""

    def __init__(self, task: Task) -> None:
        """Raises ValueError if EnvPool is not installed, does not have the game, or would play it
        differently."""
        try:
            envpool = import_module("envpool")
        except ImportError as problem:
            raise ValueError(
                f"EnvPool is not installed ({problem}); pip install -e '.[envpool]' in the"
                " project's folder"
            ) from problem
        options: Mapping[str, Any] = task.env_kwargs
        if task.family != "atari":
            raise ValueError(
                f"{task.name} is not played by EnvPool, whose physics and initial states differ;"
                " use backend 'loop' or 'process'"
            )
        if options["sticky"] or not options["max_noops"]:
            raise ValueError(
                f"{task.name}: EnvPool's sticky actions follow other seeds, and it always begins"
                f" with a no-op; got {dict(options)}, use backend 'loop' or 'process'"
            )
        if list(task.observations) != ["image"]:
            raise ValueError(
                f"{task.name}: EnvPool shows one frame here, not {len(task.observations)}; use"
                " backend 'loop' or 'process'"
            )
        self._id = task.env_id.removeprefix("ALE/")
        if self._id not in envpool.list_all_envs():
            raise ValueError(
                f"EnvPool has no {self._id} for {task.name}; use backend 'loop' or 'process'"
            )
        self._make: Callable[..., Any] = envpool.make_gymnasium
        self._max_noops, self._frameskip = int(options["max_noops"]), int(options["frameskip"])
        self._max_frames = task.max_steps * self._frameskip
        self._grey = bool(options.get("grey", False))
        self._height, self._width, _ = task.observations["image"].shape
        self._pool: Any = None
        self._frames = 0
        self._shown: dict[str, np.ndarray] = {}
        self._extras = {"ram": np.zeros(128, np.uint8)}

    def _image(self, frames: Shaped[np.ndarray, "1 C H W"]) -> dict[str, np.ndarray]:
        image = np.moveaxis(frames[0], 0, -1)
        self._shown = {
            "image": np.repeat(image, 3, axis=-1) if self._grey else np.ascontiguousarray(image)
        }
        return self._shown

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self._frames = noops_of(seed, self._max_noops)
        if self._pool is not None:
            self._pool.close()
        self._pool = self._make(
            self._id,
            num_envs=1,
            num_threads=1,
            seed=_seed_of(self._frames, self._max_noops),
            noop_max=self._max_noops,
            stack_num=1,
            frame_skip=self._frameskip,
            use_fire_reset=False,
            full_action_space=True,
            gray_scale=self._grey,
            img_height=self._height,
            img_width=self._width,
            use_inter_area_resize=True,
            reward_clip=False,
            episodic_life=False,
            repeat_action_probability=0.0,
            max_episode_steps=self._max_frames,
        )
        frames, info = self._pool.reset()
        self._extras = {"ram": info["ram"][0]}
        return self._image(frames)

    def begin(self, action: Shaped[np.ndarray, ...]) -> Callable[[], Outcome]:
        """Begin a step. Returns a function that waits for its end and returns the outcome."""
        self._pool.send(np.asarray(action, np.int32)[None], np.zeros(1, np.int32))
        return self._answer

    def _answer(self) -> Outcome:
        frames, rewards, terminated, _, info = self._pool.recv()
        self._extras = {"ram": info["ram"][0]}
        self._frames += self._frameskip
        cut = not terminated[0] and self._frames >= self._max_frames
        return self._image(frames), float(rewards[0]), bool(terminated[0]), bool(cut)

    def step(self, action: Shaped[np.ndarray, ...]) -> Outcome:
        return self.begin(action)()

    def extras(self) -> dict[str, np.ndarray]:
        return self._extras

    @property
    def steps_per_s(self) -> float:
        return 60.0 / self._frameskip

    def picture(self) -> UInt8[np.ndarray, "H W 3"]:
        """What the agent sees: EnvPool has no other screen."""
        return self._shown["image"].copy()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
