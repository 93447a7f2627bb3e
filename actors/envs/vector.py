"""A vector environment: N copies of one task stepped together; the caller resets each row.

Shape letters: N rows, one environment each.
"""

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
    Succeeding,
)
from actors.envs.provenance import versions_of
from gato.acting.return_to_go import FLOAT32_MAX
from gato.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """The result of a step of N rows; zeros and False in rows that did not play."""

    rewards: Float[np.ndarray, " N"]
    terminated: Bool[np.ndarray, " N"]
    truncated: Bool[np.ndarray, " N"]
    """False in rows that are terminated."""
    broken: Mapping[int, str]
    """The reason, by row, of environments that broke in this step."""


def _in_turn(env: Env, action: Shaped[np.ndarray, ...]) -> Callable[[], Outcome]:
    return lambda: env.step(action)


class VectorEnv:
    """N environments of one task. Rows that do not play keep their last observation; an environment
    that broke is made again when its row is reset.

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
        """Vectorise `envs`, which are all of `task`.

        Args:
            make: Makes one again after it broke. Without it a broken one is just reset.
            begin: Begins a step of one and returns a function that waits for its outcome. All rows
                are begun before the first is waited for, so environments in other processes work
                in parallel.
            versions: What each episode records of the environment; default `versions_of(task)`.
        """
        self.task = task
        self.versions: Mapping[str, str] = versions or versions_of(task)
        self._envs = envs
        self._make = make
        self._begin = begin
        self._whole: set[int] = set()
        self._broken: set[int] = set()
        self._steps = np.zeros(len(envs), np.int64)
        self._extras_like: dict[str, tuple[int, ...]] | None = None
        """Shapes of the extras by name, as they were first."""
        self.observations: dict[str, np.ndarray] = {
            name: np.zeros((len(envs), *spec.shape), spec.dtype)
            for name, spec in task.observations.items()
        }

    def __len__(self) -> int:
        return len(self._envs)

    def _take(self, row: int, observation: Mapping[str, np.ndarray]) -> None:
        """Keep a row's observation. Raises ValueError if it or the extras do not fit."""
        if observation.keys() != self.task.observations.keys():
            raise ValueError(
                f"it shows {sorted(observation)}, its task says {sorted(self.task.observations)}"
            )
        for name, values in observation.items():
            problem = self.task.observations[name].problem_with(values[None], name)
            if problem:
                # The spec checks several steps; here there is one.
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
        """Begin an episode in one row; `observations` then shows its first observation.

        Raises:
            EnvFailedError: if the environment raised; the row must be reset again.
        """
        self._steps[row] = 0
        try:
            if row in self._broken:
                self._make_again(row)
            self._take(row, self._envs[row].reset(seed))
            self._whole.add(row)
        except (Exception, SystemExit) as problem:
            self._mark_broken(row)
            raise EnvFailedError(
                f"{self.task.name} broke at reset with seed {seed}: {problem!r}"
            ) from problem

    def _mark_broken(self, row: int) -> None:
        self._whole.discard(row)
        self._broken.add(row)

    def _make_again(self, row: int) -> None:
        if self._make is not None:
            with suppress(Exception, SystemExit):  # it is broken, and its end may be too
                self._envs[row].close()
            self._envs[row] = self._make()
        self._broken.discard(row)

    def try_step(
        self, actions: Shaped[np.ndarray, "N ..."], rows: Bool[np.ndarray, " N"]
    ) -> Stepped:
        """Step the rows that play.

        Args:
            actions: [N, *shape of the action]; those of other rows are not used.
            rows: The rows that play.

        Returns:
            Their results. A row whose environment broke is in `broken`, and must be reset before
            it plays again; the other rows are not affected.
        """
        rewards, broken = np.zeros(len(self), np.float32), dict[int, str]()
        terminated, truncated = np.zeros(len(self), np.bool_), np.zeros(len(self), np.bool_)
        # Begin all steps, then wait for each: environments in other processes work in parallel.
        begun = {
            row: self._begin(self._envs[row], actions[row]) for row in np.flatnonzero(rows).tolist()
        }
        for row, finish in begun.items():
            try:
                observation, reward, ended, cut = finish()
                if not abs(float(reward)) <= FLOAT32_MAX:
                    raise ValueError(f"the environment returned reward {reward}")
                self._take(row, observation)
                rewards[row], terminated[row] = float(reward), bool(ended)
            except (Exception, SystemExit) as problem:
                self._mark_broken(row)
                broken[row] = repr(problem)
                continue
            self._steps[row] += 1
            # At the task's limit the episode is truncated, whatever the environment says.
            truncated[row] = not ended and (cut or self._steps[row] >= self.task.max_steps)
        return Stepped(rewards=rewards, terminated=terminated, truncated=truncated, broken=broken)

    def step(
        self, actions: Shaped[np.ndarray, "N ..."], rows: Bool[np.ndarray, " N"]
    ) -> tuple[Float[np.ndarray, " N"], Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
        """Step the rows that play.

        Returns:
            Rewards, terminated and truncated, each [N].

        Raises:
            EnvFailedError: if an environment broke; it names the task and the step.
        """
        stepped = self.try_step(actions, rows)
        for row, reason in stepped.broken.items():
            raise EnvFailedError(f"{self.task.name} broke at step {self._steps[row]}: {reason}")
        return stepped.rewards, stepped.terminated, stepped.truncated

    def extras(self) -> dict[str, Shaped[np.ndarray, "N ..."]]:
        """What only teachers may look at, such as `ram` [N, 128] of Atari games. Zeros in rows that
        broke or never began."""
        shown = {row: self._envs[row].extras() for row in sorted(self._whole)}
        first = next(iter(shown.values()), {})
        nothing = {name: np.zeros_like(values) for name, values in first.items()}
        return {
            name: np.stack([shown.get(row, nothing)[name] for row in range(len(self))])
            for name in first
        }

    def success(self, row: int) -> bool | None:
        """Whether a row's present episode was solved so far; None if its environment does not
        say."""
        env = self._envs[row]
        return env.success if isinstance(env, Succeeding) else None

    @property
    def steps_per_s(self) -> float:
        """Steps per second of the world that they show."""
        env = self._envs[0]
        return env.steps_per_s if isinstance(env, Pictured) else DEFAULT_STEPS_PER_S

    def picture(self, row: int) -> UInt8[np.ndarray, "H W 3"]:
        """Draw the present state of a row. Raises NoPictureError if it cannot be drawn."""
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
        """Close all environments; may be called again.

        Raises:
            EnvFailedError: after all were closed, if one raised that had not broken before.
        """
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
