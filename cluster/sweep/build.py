"""Build a sweep from what a user gives, and check it before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.control.build_run import (
    change_config,
    make_config,
    require_weights,
    scales_of,
    with_paths_of,
)
from cluster.monitor.scores import Scale, read_scales
from cluster.runs.config import RunConfig
from cluster.runs.config_file import config_from_plain
from cluster.runs.config_text import is_config_file, read_plain
from cluster.runs.data import datasets
from cluster.runs.folder import RunFolder, runs_root
from cluster.runs.presets import FOLLOW_TASKS, find_run_config
from cluster.runs.replay_location import Place, find_place
from cluster.runs.resolve import check_fits, tasks_of
from cluster.sweep.plan import SweepConfig
from cluster.sweep.settings import SchedulerName, as_words, with_settings
from cluster.sweep.space import Distribution, of_values, parse, parse_entry

OVER = "over"
"""Of a sweep's file: what is varied, beside the settings of a run."""
NO_DATA = (
    "a sweep trains on stored episodes; give --data NAME, of gato record, gato import or a run"
    " that has ended"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What `gato sweep start` was given."""

    base: str
    """A preset, or a file."""
    name: str | None
    data: Sequence[str]
    over: Sequence[str]
    settings: Sequence[str]
    scheduler: SchedulerName
    reduction: int | None
    trials: int
    updates: int | None
    evaluate_every: int | None
    episodes: int
    seed: int | None
    cpus: int
    gpus: int


def make_sweep(asked: Asked) -> SweepConfig:
    """The sweep that was asked for.

    `stores` is empty where there are several data sets: they are merged into the sweep's folder.

    Raises:
        ValueError: A name, a file, a setting or a combination of them is wrong.
    """
    base, space = _base(asked.base)
    space |= _space(asked.over)
    settings = [*asked.settings, *_short(asked)]
    for path in (setting.partition("=")[0] for setting in settings):
        if path in space:
            raise ValueError(f"{path} is both set and varied; leave out --set or --over of it")
    if asked.reduction is not None and asked.scheduler != "asha":
        raise ValueError(f"--reduction is asha's, and the scheduler is {asked.scheduler}")
    names = [name for entry in asked.data for name in entry.split(",")] or list(base.data)
    source = _source(names)
    config = change_config(
        base,
        name=asked.name,
        tasks=source.tasks,
        data=[data.name for data in source.sets],
        settings=settings,
        fit=FOLLOW_TASKS.get(asked.base),
    )
    scales = source.scales or scales_of(
        config, datasets.mean_returns(source.sets, config.replay.mix.min_expert_fraction)
    )
    if not scales and len(config.tasks) > 1:
        raise ValueError(
            f"none of {', '.join(config.tasks)} has reference returns, so trials have no score over"
            " all of them; sweep one of these tasks, or give a task references (docs/tasks.md)"
        )
    updates = config.learner.num_updates
    words = (
        ()
        if is_config_file(asked.base)
        else (
            asked.base,
            *(word for data in source.sets for word in ("--data", data.name)),
            *(("--tasks", ",".join(source.tasks)) if source.tasks is not None else ()),
            *(word for setting in settings for word in ("--set", setting)),
        )
    )
    sweep = SweepConfig(
        name=config.name,
        base=config,
        words=words,
        over={path: distribution.text for path, distribution in space.items()},
        scheduler=asked.scheduler,
        reduction=asked.reduction or 3,
        trials=asked.trials,
        evaluate_every=asked.evaluate_every or max(1, updates // 6),
        episodes=asked.episodes,
        stores=tuple(str(folder.resolve()) for folder in source.stores),
        scales=scales,
        cpus=asked.cpus,
        gpus=asked.gpus,
    )
    _ = sweep.space  # raises ValueError for a setting that cannot be varied
    return sweep


def check_trials(sweep: SweepConfig, trials: Sequence[Mapping[str, Any]]) -> None:
    """Raises ValueError, which names the settings, where those of a trial do not fit the tasks."""
    for settings in trials:
        config = with_settings(sweep.base, settings)
        try:
            check_fits(config, tasks_of(config))
        except ValueError as problem:
            said = ", ".join(f"{path}={value}" for path, value in settings.items())
            raise ValueError(f"with {said}: {problem}") from problem


def _base(text: str) -> tuple[RunConfig, dict[str, Distribution]]:
    """The run to start from, and what its file varies."""
    if not is_config_file(text):
        config = find_run_config(text)
        require_weights(config, {"preset": text})
        return config, {}
    file = Path(text)
    plain = read_plain(file)
    over = plain.pop(OVER, {})
    try:
        if not isinstance(over, dict):
            raise ValueError(
                f"{OVER}: expected a mapping of settings to distributions, got {over!r}"
            )
        space = {str(path): _of_file(str(path), value) for path, value in over.items()}
        config = with_paths_of(config_from_plain(plain), file)
        require_weights(config, plain)
        return config, space
    except ValueError as problem:
        raise ValueError(f"{file}: {problem}") from problem


def _of_file(path: str, value: object) -> Distribution:
    """A distribution in a file: as text, or a list of values."""
    if isinstance(value, list):
        return of_values(path, value)
    if not isinstance(value, str):
        raise ValueError(
            f"{OVER}.{path}: expected a text such as log:1e-4:3e-3, or a list, got {value!r}"
        )
    return parse(path, value)


def _space(entries: Sequence[str]) -> dict[str, Distribution]:
    space: dict[str, Distribution] = {}
    for path, distribution in map(parse_entry, entries):
        if path in space:
            raise ValueError(f"--over {path} is given twice; give each setting once")
        space[path] = distribution
    return space


def _short(asked: Asked) -> list[str]:
    """The options that are short for settings, as settings."""
    given = {"learner.num_updates": asked.updates, "seed": asked.seed}
    return [f"{path}={value}" for path, value in given.items() if value is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where the stored episodes are."""

    stores: Sequence[Path]
    sets: Sequence[datasets.DataSet]
    """Empty if it is a run's replay."""
    tasks: Sequence[str] | None = None
    """None: those of the data sets."""
    scales: Mapping[str, Scale] | None = None


def _source(names: Sequence[str]) -> _Source:
    if not names:
        raise ValueError(NO_DATA)
    runs = [name for name in names if (runs_root() / name / "run.json").is_file()]
    if runs and len(names) > 1:
        raise ValueError(
            f"{runs[0]} is a run, whose replay is read alone; give it without"
            f" {', '.join(name for name in names if name != runs[0])}"
        )
    if runs:
        place = find_place(runs[0])
        place.require_idle()
        assert place.run is not None
        return _of_run(place, place.run)
    sets = [datasets.find(name) for name in dict.fromkeys(names)]
    stores = [sets[0].path / "episodes"] if len(sets) == 1 else []
    return _Source(stores=stores, sets=sets)


def _of_run(place: Place, run: RunFolder) -> _Source:
    return _Source(
        stores=place.folders, sets=(), tasks=run.config().tasks, scales=read_scales(run.path)
    )


def best_config(sweep: SweepConfig, settings: Mapping[str, Any]) -> RunConfig:
    """The run that a trial's settings make: what `gato start` takes."""
    return replace(with_settings(sweep.base, settings), name=sweep.base.name)


def start_words(sweep: SweepConfig, settings: Mapping[str, Any]) -> list[str]:
    """The words of `gato start` for a trial's settings; empty where the base is a file, or where
    they mean another run than the trial's: other settings follow from the varied ones there."""
    if not sweep.words:
        return []
    varied = [word for setting in as_words(settings) for word in ("--set", setting)]
    preset, *words = [*sweep.words, *varied]
    options = list(zip(words[::2], words[1::2], strict=True))
    tasks = [value for option, value in options if option == "--tasks"]
    try:
        made = make_config(
            preset,
            name=sweep.base.name,
            tasks=tasks[0].split(",") if tasks else None,
            data=[value for option, value in options if option == "--data"],
            settings=[value for option, value in options if option == "--set"],
        )
    except ValueError:  # a data set has been removed
        return []
    return ["gato", "start", preset, *words] if made == best_config(sweep, settings) else []
