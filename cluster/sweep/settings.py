"""Which settings of a run a sweep can vary, and the settings of each trial."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cluster.runs.config import RunConfig
from cluster.runs.overrides import override
from cluster.sweep.space import Distribution, Value, fitted
from gato.serialization import to_plain

SchedulerName = Literal["asha", "pbt", "none"]
SWEEP_ROLE = 11
"""Distinguishes the generator of trials from those of other parts of a run."""
MOST_DRAWS = 200
NOT_TRAINING = "and what it sets does not change how a trial trains or acts"
FIXED: Mapping[str, str] = {
    "name": "it only names a run",
    "about": "it only describes a run",
    "tasks": "all trials play the same tasks; start one sweep for each",
    "data": "all trials train on the same episodes; start one sweep for each data set",
    "text": "it belongs to the tasks",
    "learner.num_updates": "trials are compared after the same updates; --updates sets them",
    "learner.publish_every": NOT_TRAINING,
    "learner.checkpoint_every": NOT_TRAINING,
    "learner.keep_checkpoints": NOT_TRAINING,
    "learner.report_every": NOT_TRAINING,
    "learner.num_threads": f"{NOT_TRAINING}; --cpus sets a trial's threads",
    "learner.num_learners": "a trial trains in one process",
    "learner.parallel": "a trial trains in one process",
    "learner.compile": NOT_TRAINING,
    "learner.activation_checkpointing": NOT_TRAINING,
    "learner.profile_updates": NOT_TRAINING,
    "model.normalise": "it is computed from the data",
    "initial_weights": "the model is theirs; start one sweep for each",
    "replay": "trials only read stored episodes; of replay, a sweep varies replay.mix",
    "actors": "trials have no workers; of actors, a sweep varies actors.evaluate",
}
"""Settings, or groups of them, that a sweep cannot vary, and why."""
VARIED = ("learner", "model", "replay.mix", "actors.evaluate", "seed")
"""What it can vary, unless `FIXED` has it."""
BETWEEN_UPDATES = ("learner", "replay.mix")
"""What a trial can change in the middle of its training: a checkpoint of another model, or of
another seed, cannot go on."""


def _within(path: str, groups: Sequence[str]) -> str | None:
    """The innermost of the groups that a setting is in."""
    found = [group for group in groups if path == group or path.startswith(f"{group}.")]
    return max(found, key=len, default=None)


def check_varied(config: RunConfig, path: str, scheduler: SchedulerName) -> object:
    """The value that a setting has now.

    Raises:
        ValueError: There is no such setting (the nearest is suggested), or a sweep, or this
            scheduler, cannot vary it.
    """
    group = _within(path, (*FIXED, *VARIED))
    if group is not None and group in FIXED:
        raise ValueError(f"a sweep cannot vary {path}: {FIXED[group]}")
    value = _value_of(config, path)
    if scheduler == "pbt" and _within(path, BETWEEN_UPDATES) is None:
        raise ValueError(
            f"pbt changes settings in the middle of a training, and {path} cannot change then;"
            f" it can vary {' and '.join(f'{g}.*' for g in BETWEEN_UPDATES)}; take --scheduler"
            " asha or none"
        )
    return value


def _value_of(config: RunConfig, path: str) -> object:
    plain: Any = to_plain(config)
    for name in path.split("."):
        if not isinstance(plain, dict) or name not in plain:
            override(config, [f"{path}=null"])  # raises ValueError, with the nearest name
            return None  # a new entry of a group whose names are tasks
        plain = plain[name]
    if isinstance(plain, dict):
        some = next(iter(plain), "NAME")
        raise ValueError(f"{path} is a group of settings; name one of it, such as {path}.{some}")
    return plain


def with_settings(config: RunConfig, settings: Mapping[str, Value]) -> RunConfig:
    """The run with the settings of a trial. Raises ValueError if they do not go together."""
    return override(config, as_words(settings))


def as_words(settings: Mapping[str, Value]) -> list[str]:
    """Settings as `gato start --set` takes them."""
    return [
        f"{path}={value if isinstance(value, str) else json.dumps(value)}"
        for path, value in settings.items()
    ]


def fitted_space(
    config: RunConfig, space: Mapping[str, Distribution], scheduler: SchedulerName
) -> dict[str, Distribution]:
    """The space with whole numbers where the run has them. Raises ValueError if a setting cannot be
    varied."""
    return {
        path: fitted(distribution, check_varied(config, path, scheduler))
        for path, distribution in space.items()
    }
