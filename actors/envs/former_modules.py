"""Former names of our modules: what runs, checkpoints and data sets recorded of them stays
valid."""

from __future__ import annotations

from collections.abc import Mapping

FORMER: Mapping[str, str] = {
    "actors.babyai": "actors.envs.babyai",
    "actors.legacy_gym": "actors.envs.legacy_gym",
}
"""Today's module by its former name. Recorded are ids of environments (`actors.babyai:gato/...`),
teachers (`python:actors.babyai:act`) and entry points in Gymnasium's specs."""


def current(reference: str) -> str:
    """`actors.envs.babyai:act` of `actors.babyai:act`; every other reference as it is."""
    module, colon, name = reference.partition(":")
    return f"{FORMER.get(module, module)}{colon}{name}"


def former(reference: str) -> tuple[str, ...]:
    """The other names that `reference` (`module:name`) was recorded under."""
    module, colon, name = reference.partition(":")
    return tuple(f"{old}{colon}{name}" for old, new in FORMER.items() if new == module)
