"""What a file, a zip or a saved state says of its environment, and its differences from a task.

Shape letters: T steps, n elements of an action or of an observation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from gato.array_spec import ArraySpec
from gato.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvFacts:
    """What is known of a task's environment where it is installed."""

    keywords: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """By name, with their default values."""
    entry_point: str = ""
    """`module:Class`; empty: not known."""
    former_entry_points: tuple[str, ...] = ()
    """What older data sets call the same class."""


EnvDefaults = Callable[[Task], EnvFacts]
Bounds = tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]
"""Low and high of each element of an array, row-major: [n] each."""


def no_defaults(task: Task) -> EnvFacts:
    """Nothing is known of the environment's keywords, so each that is named is rejected."""
    del task
    return EnvFacts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapper:
    """One layer around an environment."""

    name: str
    entry_point: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvDescription:
    """What a source says of the environment that it was recorded or trained in. Empty or None: it
    does not say.

    EnvDescription(where="mujoco/hopper/expert-v0", env_id="Hopper-v5", kwargs={"frame_skip": 4},
                   wrappers=(Wrapper(name="TimeLimit", kwargs={"max_episode_steps": 1000}),))
    """

    where: str
    """What the source is called in messages."""
    env_id: str = ""
    entry_point: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    wrappers: tuple[Wrapper, ...] = ()
    max_steps: int | None = None
    action_bounds: Bounds | None = None
    """Low and high of each element of a continuous action, row-major."""
    observation_bounds: Mapping[str, Bounds] = field(default_factory=dict[str, Bounds])
    """By the task's name of the observation; only of continuous ones."""
    sticky: float | None = None
    """Chance that an Atari game repeats the last action, if it is known from other than a
    keyword."""
    converts_versions: bool = False
    """Whether the format only ever held robots of mujoco-py (v0 to v3), which then become those of
    the task's version."""
    traits: tuple[str, ...] = ()
    """What else is known of the format, such as clipped rewards; each becomes a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference between a source and the task."""

    subject: str
    """What `--allow` accepts: `wrapper:NAME`, `keyword:NAME`, `version`, `sticky`, ..."""
    text: str
    outcome: Literal["rejected", "converted", "noted", "allowed"]


class Differences:
    """Collects differences; what the user allows is not rejected."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed
        self.found: list[Difference] = []

    def reject(self, subject: str, text: str) -> None:
        """Add a contradiction, which is rejected unless the user allows its subject."""
        outcome = "allowed" if subject in self._allowed else "rejected"
        self.found.append(Difference(subject=subject, text=text, outcome=outcome))

    def convert(self, subject: str, text: str) -> None:
        """Add a difference that a conversion removes."""
        self.found.append(Difference(subject=subject, text=text, outcome="converted"))

    def note(self, subject: str, text: str) -> None:
        """Add something that the user should know and that changes nothing."""
        self.found.append(Difference(subject=subject, text=text, outcome="noted"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All differences between a source and a task."""

    where: str
    differences: tuple[Difference, ...] = ()
    scale_from: Bounds | None = None
    """Bounds that continuous actions are scaled from, to the task's; None: they are not scaled."""

    @property
    def rejected(self) -> tuple[Difference, ...]:
        """The differences that contradict the task."""
        return tuple(each for each in self.differences if each.outcome == "rejected")

    @property
    def notes(self) -> list[str]:
        """Lines for the user: conversions, what was allowed, what is not stated."""
        said = {"noted": "", "converted": "converted: ", "allowed": "allowed: "}
        return [
            said[each.outcome] + each.text
            for each in self.differences
            if each.outcome != "rejected"
        ]

    @property
    def info(self) -> dict[str, str]:
        """What is stored with each episode of the source."""
        kinds = {"converted": "converted", "allowed": "allowed", "noted": "noted"}
        texts = {name: [d.text for d in self.differences if d.outcome == name] for name in kinds}
        return {kinds[name]: "; ".join(found) for name, found in texts.items() if found}

    def require(self) -> None:
        """Raises ValueError if the source contradicts the task; it names every contradiction and
        the options that allow them."""
        if self.rejected:
            options = " ".join(dict.fromkeys(f"--allow {each.subject}" for each in self.rejected))
            raise ValueError(
                f"{self.where} contradicts the task:"
                f" {'; '.join(each.text for each in self.rejected)}. Give data of the task's own"
                f" environment; if you know that it is the same, add {options}"
            )

    def scale_actions(
        self, actions_Tn: Float[np.ndarray, "T n"], spec: ArraySpec
    ) -> Float[np.ndarray, "T n"]:
        """Continuous actions, each step flat, from the source's bounds to the task's."""
        assert self.scale_from is not None
        assert spec.bounds is not None
        return rescaled(actions_Tn, self.scale_from, full_bounds(spec.bounds, spec.size))


def rescaled(
    values_Tn: Float[np.ndarray, "T n"], of: Bounds, to: Bounds
) -> Float[np.ndarray, "T n"]:
    """Scale values from the bounds `of` to the bounds `to`, element by element. Bounds that are
    equal map to the lower bound of `to`."""
    (low, high), (to_low, to_high) = of, to
    width = np.where(high > low, high - low, 1.0)
    return to_low + (values_Tn - low) / width * (to_high - to_low)


def full_bounds(bounds: Bounds, size: int) -> Bounds:
    """Bounds of each of `size` elements, in 64 bits."""
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), (size,)) for bound in bounds)
    return low, high
