"""Runs read from their folders, to be compared."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.control.run_journal import journal_of
from cluster.monitor.compare import ComparedRun, Group, compare
from cluster.monitor.curves import Axis, Curves, read_curves
from cluster.monitor.scores import read_scales
from cluster.runs.folder import RunFolder, find_run
from gato.serialization import to_plain


def curves_of(folder: RunFolder) -> Curves:
    """The evaluations of a run as they stand. Raises ValueError if it has no journal here."""
    with journal_of(folder) as journal:
        return read_curves(journal, folder.name, read_scales(folder.path))


def compared_run(name: str) -> ComparedRun:
    """A run by its name. Raises ValueError if there is none, or a file of it is damaged."""
    folder = find_run(name)
    settings = to_plain(folder.config())
    return ComparedRun(curves=curves_of(folder), settings=settings)


def compare_runs(names: Sequence[str], axis: Axis = "updates") -> list[Group]:
    """Runs by name, in groups of equal settings.

    Raises:
        ValueError: A run is not there, is named twice, or has no evaluation.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is named twice; name each run once")
    runs = [compared_run(name) for name in names]
    empty = [run.name for run in runs if not run.curves.tasks]
    if empty:
        raise ValueError(
            f"{', '.join(empty)} has no evaluation yet; leave it out, or wait for its first"
        )
    return compare(runs, axis=axis)
