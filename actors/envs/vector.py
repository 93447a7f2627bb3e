"""A vector environment: N copies of one task stepped together; the caller resets each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from actors.envs.env import (
    DEFAULT_STEPS_PER_S,
    Env,
    EnvFailedError,
    NoPictureError,
    Outcome,
    Pictured,
)
from actors.envs.provenance import versions_of
from gato.task import Task

FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """What a step of N rows came to; nothing in rows that did not play."""

    rewards: Float[np.ndarray, " N"]
    terminated: Bool[np.ndarray, " N"]
    truncated: Bool[np.ndarray, " N"]
    """Never where terminated: then nothing comes after."""
    broken: Mapping[int, str]
    """Why, by row."""


def _in_turn(env: Env, action: Shaped[np.ndarray, ...]) -> Callable[[], Outcome]:
    return lambda: env.step(action)


class VectorEnv:
    """N environments of one task. Rows that do not play keep their last observation; one that broke
    is made anew when it is reset.

    envs = make_envs(task, 2)
    envs.reset_row(0, 7)
    rewards, terminated, truncated = envs.step(actions, np.array([True, False]))
    """

    def __init__(
        self,
        task: Task,
        envs: list[Env],
        *,
        make: Callable[[], Env] | None = None,
        begin: Callable[[Any, Shaped[np.ndarray, ...]], Callable[[], Outcome]] = _in_turn,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        """`make` makes one anew (without it a broken one is just reset); `begin` begins a step of
        one, and its result waits for the end: environments that work beside each other do so
        between the two."""
        self.task = task
        self.versions: Mapping[str, str] = versions or versions_of(task)
        self._envs = envs
        self._make = make
        self._begin = begin
        self._whole: set[int] = set()
        self._broken: set[int] = set()
        self._steps = np.zeros(len(envs), np.int64)
        self._extras_like: dict[str, tuple[int, ...]] | None = None
        """Shapes of what teachers may look at, by name, as it was shown first."""
        self.observations: dict[str, np.ndarray] = {
            name: np.zeros((len(envs), *spec.shape), spec.dtype)
            for name, spec in task.observations.items()
        }

    def __len__(self) -> int:
        return len(self._envs)

    def _take(self, row: int, observation: Mapping[str, np.ndarray]) -> None:
        """ValueError where an observation is outside of its spec."""
        if observation.keys() != self.task.observations.keys():
            raise ValueError(
                f"it shows {sorted(observation)}, its task says {sorted(self.task.observations)}"
            )
        for name, values in observation.items():
            problem = self.task.observations[name].problem_with(values[None], name)
            if problem:
                # of the one step that it was shown
                raise ValueError(problem.removesuffix(" at step 0"))
            self.observations[name][row] = values
        extras = {name: np.shape(values) for name, values in self._envs[row].extras().items()}
        if self._extras_like is None:
            self._extras_like = extras
        if extras != self._extras_like:
            shapes = extras, self._extras_like
            now, first = (
                ", ".join(f"{name} {shape}" for name, shape in each.items()) or "nothing"
                for each in shapes
            )
            raise ValueError(
                f"info of teacher was {first} at first and is {now}; give the same at reset and in"
                " each step"
            )

    def reset_row(self, row: int, seed: int) -> None:
        """Begin an episode in one row; `observations` then shows its first."""
        self._steps[row] = 0
        try:
            if row in self._broken:
                self._make_anew(row)
            self._take(row, self._envs[row].reset(seed))
            self._whole.add(row)
        except (Exception, SystemExit) as problem:
            self._breaks(row)
            raise EnvFailedError(
                f"{self.task.name} broke at reset with seed {seed}: {problem!r}"
            ) from problem

    def _breaks(self, row: int) -> None:
        self._whole.discard(row)
        self._broken.add(row)

    def _make_anew(self, row: int) -> None:
        if self._make is not None:
            with suppress(Exception, SystemExit):  # it is broken, and may be at its end too
                self._envs[row].close()
            self._envs[row] = self._make()
        self._broken.discard(row)

    def try_step(
        self, actions: Shaped[np.ndarray, "N ..."], rows: Bool[np.ndarray, " N"]
    ) -> Stepped:
        """A step of the rows that play. One that breaks is named, and must be reset before it plays
        again."""
        rewards, broken = np.zeros(len(self), np.float32), dict[int, str]()
        terminated, truncated = np.zeros(len(self), np.bool_), np.zeros(len(self), np.bool_)
        begun = {
            row: self._begin(self._envs[row], actions[row]) for row in np.flatnonzero(rows).tolist()
        }
        for row, finish in begun.items():
            try:
                observation, reward, ended, cut = finish()
                if not abs(float(reward)) <= FLOAT32_MAX:
                    raise ValueError(f"it paid {reward}")
                self._take(row, observation)
                rewards[row], terminated[row] = float(reward), bool(ended)
            except (Exception, SystemExit) as problem:
                self._breaks(row)
                broken[row] = repr(problem)
                continue
            self._steps[row] += 1
            truncated[row] = not ended and (cut or self._steps[row] >= self.task.max_steps)
        return Stepped(rewards=rewards, terminated=terminated, truncated=truncated, broken=broken)

    def step(
        self, actions: Shaped[np.ndarray, "N ..."], rows: Bool[np.ndarray, " N"]
    ) -> tuple[Float[np.ndarray, " N"], Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
        """Rewards, terminated, truncated of the rows that play; EnvFailedError names task and step
        where one breaks."""
        stepped = self.try_step(actions, rows)
        for row, reason in stepped.broken.items():
            raise EnvFailedError(f"{self.task.name} broke at step {self._steps[row]}: {reason}")
        return stepped.rewards, stepped.terminated, stepped.truncated

    def extras(self) -> dict[str, Shaped[np.ndarray, "N ..."]]:
        """What only teachers may look at: for Atari `ram` [N, 128]. Zeros in rows that never began
        or broke."""
        shown = {row: self._envs[row].extras() for row in sorted(self._whole)}
        first = next(iter(shown.values()), {})
        nothing = {name: np.zeros_like(values) for name, values in first.items()}
        return {
            name: np.stack([shown.get(row, nothing)[name] for row in range(len(self))])
            for name in first
        }

    @property
    def steps_per_s(self) -> float:
        """In the world that they show."""
        env = self._envs[0]
        return env.steps_per_s if isinstance(env, Pictured) else DEFAULT_STEPS_PER_S

    def picture(self, row: int) -> UInt8[np.ndarray, "H W 3"]:
        """What a row looks like now. NoPictureError where it cannot be drawn."""
        env = self._envs[row]
        if not isinstance(env, Pictured):
            raise NoPictureError(
                f"{self.task.name} cannot be drawn: {type(env).__name__} has no picture()"
            )
        try:
            picture = np.asarray(env.picture())
            if (
                picture.dtype != np.uint8
                or picture.ndim != 3
                or picture.shape[2] != 3
                or not picture.size
            ):
                raise ValueError(
                    f"its picture is {picture.dtype} {picture.shape}, expected uint8 [height,"
                    " width, 3]"
                )
        except Exception as problem:
            raise NoPictureError(
                f"{self.task.name} cannot be drawn: {problem or type(problem).__name__}"
            ) from problem
        return picture

    def close(self) -> None:
        """May be called again. EnvFailedError where one that was whole breaks at its end, after all
        were closed."""
        problems: list[BaseException] = []
        for row, env in enumerate(self._envs):
            try:
                env.close()
            except (Exception, SystemExit) as problem:
                problems += [problem] if row not in self._broken else []
        if problems:
            raise EnvFailedError(
                f"{self.task.name} broke when it was closed: {problems[0]!r}"
            ) from problems[0]
