"""Extras: packages that a run's tasks and data sets need, named together when several are
missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

EXTRAS: Mapping[str, str] = {
    "metaworld": "metaworld",
    "dm-control": "dm_control",
    "minigrid": "minigrid",
    "easy-vqa": "easy_vqa",
}
"""The package of each extra that tasks or data sets need."""


def extra_of(name: str) -> str:
    """The extra that the task or the data set called `name` needs; empty if it needs none."""
    prefix = name.partition("/")[0].partition(":")[0]
    return prefix if prefix in EXTRAS else ""


def require_extras(names: Iterable[str]) -> None:
    """Raises ValueError with one command if more than one extra is missing that tasks or data sets
    of these names need. A single one is named where it is used."""
    wanted = dict.fromkeys(filter(None, map(extra_of, names)))
    missing = [extra for extra in wanted if find_spec(EXTRAS[extra]) is None]
    if len(missing) > 1:
        packages = ", ".join(EXTRAS[extra] for extra in missing)
        raise ValueError(
            f"packages that are not installed: {packages}; pip install -e"
            f" '.[{','.join(missing)}]' -c constraints.txt in the project's folder"
        )
