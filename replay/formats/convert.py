"""Conversion: the arrays of a source become a checked episode of its task. Actions are scaled, cut
and clipped, and each change is noted.

Shape letters: T steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from gato.array_spec import ArraySpec, Kind
from gato.compatibility.environment import Comparison
from gato.episode import BadEpisode, Episode, check_episode
from gato.task import Task
from replay.formats.schema import check_lengths, fit_array, one_number_a_step
from replay.storage.changes import Changes, Clipped

MOST_CLIPPED = 0.5
"""Share of action values outside of the bounds above which they are of another scale, and not
noise."""
MOST_WIDTHS = 10.0
"""Distance from a bound, in widths of the range, above which a value is not noise either."""
ALLOW_CLIPPING = "clipped-actions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Converter:
    """Builds the episodes of one source.

    converter = Converter(task=task, comparison=compare(described, task), allowed=options.allowed)
    episode = converter.episode(key=key, source="file:x", what="episode 3 of x", observations=...,
    actions=..., rewards=..., ...)
    """

    task: Task
    comparison: Comparison
    allowed: frozenset[str] = frozenset()

    def episode(
        self,
        *,
        key: str,
        source: str,
        what: str,
        observations: Mapping[str, Shaped[np.ndarray, "T ..."]],
        actions: Shaped[np.ndarray, "T ..."],
        rewards: Shaped[np.ndarray, "T ..."],
        terminated: bool,
        truncated: bool,
        info: Mapping[str, str],
        seed: int = 0,
        labels: Shaped[np.ndarray, "T ..."] | None = None,
        split_from: int = 0,
    ) -> Episode:
        """The episode in the task's form. If it has more steps than the task's limit, it is cut
        there, as an environment with that limit truncates it.

        Args:
            what: name of the episode in messages.
            observations: one before each action; those up to the task's limit are enough.
            split_from: rows of the unmarked run that this is a part of; 0: it is whole.

        Raises:
            BadEpisode: with the reason, if it contradicts the task.
        """
        task, steps = self.task, len(actions)
        if not steps:
            raise BadEpisode(f"{what} has no steps")
        enough = min(steps, task.max_steps)
        columns = {name: values for name, values in observations.items() if len(values) != enough}
        columns |= (
            {"rewards": rewards} if labels is None else {"rewards": rewards, "labels": labels}
        )
        check_lengths(what, steps, columns)
        kept = slice(0, task.max_steps)
        is_cut = steps > task.max_steps
        actions, outside = self._actions(actions[kept], f"actions of {what}")
        found = Episode(
            key=key,
            task=task.name,
            source=source,
            observations={
                name: fit_array(observations[name][kept], spec, f"{name} of {what}")
                for name, spec in task.observations.items()
            },
            actions=actions,
            rewards=_rewards(rewards[kept], f"rewards of {what}"),
            labels=None if labels is None else self._actions(labels[kept], f"labels of {what}")[0],
            terminated=terminated and not is_cut,
            truncated=truncated or is_cut,
            seed=seed,
            info={
                **info,
                **self.comparison.info,
                **Changes(
                    cut_from=steps if is_cut else 0,
                    split_from=split_from,
                    is_scaled=self.comparison.scale_from is not None,
                    clipped=outside,
                ).info,
            },
        )
        check_episode(found, task)
        return found

    def _actions(
        self, actions: Shaped[np.ndarray, "T ..."], what: str
    ) -> tuple[Shaped[np.ndarray, "T ..."], Clipped | None]:
        """Actions scaled and clipped to the task's bounds, and how many were clipped."""
        spec = self.task.action
        if spec.kind is not Kind.CONTINUOUS or not len(actions):
            return fit_array(actions, spec, what), None
        if self.comparison.scale_from is not None:
            flat = fit_array(actions, ArraySpec(kind=spec.kind, shape=spec.shape), what).reshape(
                len(actions), -1
            )
            actions = self.comparison.scale_actions(flat.astype(np.float64), spec).reshape(
                len(actions), *spec.shape
            )
        return clip_actions(
            fit_array(actions, spec, what), spec, what, may_clip_all=ALLOW_CLIPPING in self.allowed
        )


def clip_actions(
    actions: Shaped[np.ndarray, "T ..."], spec: ArraySpec, what: str, *, may_clip_all: bool
) -> tuple[Shaped[np.ndarray, "T ..."], Clipped | None]:
    """Actions clipped to their bounds, as environments do it. Raises BadEpisode if most are
    outside: they are of another scale."""
    assert spec.bounds is not None
    low, high = (np.broadcast_to(bound, (spec.size,)).reshape(spec.shape) for bound in spec.bounds)
    beyond = np.maximum(low - actions, actions - high)
    is_outside = beyond > 1e-5 * np.maximum(np.abs(low), np.abs(high))
    clipped = np.clip(actions, low.astype(actions.dtype), high.astype(actions.dtype))
    if not is_outside.any():
        return clipped, None
    count, furthest = int(is_outside.sum()), float(beyond[is_outside].max())
    share = count / actions.size
    is_far = (beyond > MOST_WIDTHS * (high - low)).any()
    if (share > MOST_CLIPPED or is_far) and not may_clip_all:
        raise BadEpisode(
            f"{what}: {share:.0%} of the values lie outside of the task's bounds, by up to"
            f" {furthest:.3g}: they are of another scale. Scale them first; if the environment"
            f" itself clipped them, add --allow {ALLOW_CLIPPING}"
        )
    return clipped, Clipped(values=actions.size, outside=count, furthest=furthest)


def _rewards(rewards: Shaped[np.ndarray, "T ..."], what: str) -> Shaped[np.ndarray, " T"]:
    # what 32 bits cannot hold becomes infinite, and is rejected as not finite
    with np.errstate(over="ignore"):
        return one_number_a_step(rewards, what).astype(np.float32)
