"""What a shell is offered for the value of an argument: names of runs, data sets, tasks and
presets."""

from __future__ import annotations


def run_names(incomplete: str) -> list[str]:
    """Runs here, by folder; only names that `gato` takes, for a shell reads what is printed."""
    from cluster.runs.folder import NAME, runs_root

    names = (file.parent.name for file in runs_root().glob("*/run.json"))
    return sorted(name for name in names if NAME.fullmatch(name) and name.startswith(incomplete))


def replay_names(incomplete: str) -> list[str]:
    """Runs and data sets here."""
    from cluster.runs.folder import NAME, runs_root

    names = (file.parent.name for file in runs_root().glob("data/*/about.json"))
    sets = sorted(name for name in names if NAME.fullmatch(name) and name.startswith(incomplete))
    return [*run_names(incomplete), *sets]


def preset_names(incomplete: str) -> list[str]:
    """The presets of `gato start`."""
    from cluster.runs.presets import RUNS

    return [name for name in RUNS if name.startswith(incomplete)]


def config_names(incomplete: str) -> list[str]:
    """Runs here, and presets."""
    return [*run_names(incomplete), *preset_names(incomplete)]


def task_names(incomplete: str) -> list[str]:
    """Tasks of the catalogue, by their whole names or by what follows the slash."""
    from actors.tasks.catalog import TASKS

    whole = [name for name in TASKS if name.startswith(incomplete)]
    short = dict.fromkeys(name.rpartition("/")[2] for name in TASKS)
    return whole or [name for name in short if name.startswith(incomplete)]
