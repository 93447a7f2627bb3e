"""Minari data sets: a folder, or an id under MINARI_DATASETS_PATH, whose environment must be the
task's own version.

Shape letters: T steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from gato.array_spec import ArraySpec, Kind
from gato.compatibility.compare import compare
from gato.episode import BadEpisode, Episode
from gato.task import Task
from replay.formats.atari_frames import (
    MINIMAL_BUTTONS,
    may_shrink,
    minimal_buttons,
    shrink,
    to_all_buttons,
)
from replay.formats.convert import Converter
from replay.formats.minari.folder import find_folder
from replay.formats.minari.metadata import Metadata, description_of, paths_of, read_metadata
from replay.formats.minari.spaces import Conversion, conversion_of
from replay.formats.minari.storage import Column, MinariStorage, Record, shape_of
from replay.formats.reader import (
    NO_OPTIONS,
    Attempt,
    ImportOptions,
    Known,
    Reading,
    Report,
    nothing_known,
)
from replay.formats.schema import (
    check_lengths,
    content_digest,
    episode_key,
    fit_array,
    guess_task,
    unknown_task,
)

BLOCK_STEPS = 128
"""Steps that are decoded at once."""


def read_minari(
    path_or_id: str | Path,
    tasks: Mapping[str, Task],
    task: Task | None = None,
    *,
    known: Known = nothing_known,
    options: ImportOptions = NO_OPTIONS,
) -> Reading:
    """The episodes of a Minari data set (HDF5, Arrow or Parquet). Raises ValueError at once if it
    contradicts its task.

    read_minari(Path("datasets/mujoco/hopper/expert-v0"), tasks)
    read_minari("minari:mujoco/hopper/expert-v0", tasks, known=store.known)

    Without `task`, the data set's environment or its id must tell it. Atari's own frames are shrunk
    by area to the task's, and actions that count a game's own buttons become those of all 18:
    `info` says so.
    """
    folder = find_folder(path_or_id)
    about = read_metadata(folder)
    found = task or guess_task([about.made_for, about.env_id, about.dataset_id], tasks)
    if found is None:
        raise unknown_task(
            about.dataset_id,
            tasks,
            [about.env_id, about.dataset_id],
            f" (environment {about.env_id or 'not stated'})",
        )
    paths = paths_of(about, found)
    comparison = compare(
        description_of(about, found, paths),
        found,
        defaults=options.defaults,
        allowed=options.allowed,
    )
    comparison.require()
    fitting = _fitting(about, found, paths)
    converter = Converter(task=found, comparison=comparison, allowed=options.allowed)
    report = Report(task=found.name, notes=[*comparison.notes, *fitting.notes])
    storage = MinariStorage(folder, about.data_format, about.observation_space)
    stored = storage.indices()
    wanted = [index for index in stored if index < about.num_episodes]
    if len(wanted) < len(stored):
        report.left_out.append(
            f"metadata.json counts {about.num_episodes:,} episodes, the files hold {len(stored):,}:"
            " those behind are not read; correct total_episodes to read them"
        )
    if len(wanted) < about.num_episodes:
        report.left_out.append(
            f"metadata.json counts {about.num_episodes:,} episodes, of which the files hold"
            f" {len(wanted):,}: the others are missing"
        )
    return Reading(
        _episodes(folder, storage, about, wanted, fitting, converter, known),
        total=len(wanted),
        report=report,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitting:
    """Where in a data set the task's arrays are."""

    paths: Mapping[str, str]
    """Where in the data set each observation of the task is."""
    conversions: Mapping[str, Conversion]
    """Of each observation, and of `actions`."""
    buttons: tuple[int, ...] | None
    """The game's buttons, if actions count these; None if they count the task's."""
    info: Mapping[str, str]
    notes: Sequence[str]


def _fitting(about: Metadata, task: Task, paths: Mapping[str, str]) -> _Fitting:
    """Raises ValueError if the spaces of the data set are not those of the task: before anything
    large is read."""
    info = {"env_id": about.env_id or "not stated", "file": about.dataset_id}
    kwargs = about.env_spec.get("kwargs")
    notes: list[str] = []
    if kwargs:
        info["env_kwargs"] = json.dumps(kwargs, sort_keys=True, default=str)
    unread = sorted(set(about.spaces) - set(paths.values()))
    if unread:
        notes.append(f"not read: {', '.join(unread)}, which task {task.name} does not show")
    conversions: dict[str, Conversion] = {}
    for key, spec in task.observations.items():
        space = about.spaces[paths[key]]
        conversions[key] = _conversion(about, task, key, space, spec)
        shape = shape_of(space)
        if spec.kind is Kind.IMAGE and may_shrink(shape) and shape != spec.shape:
            info["frames"] = f"{_size(shape)} shrunk by area to {_size(spec.shape)}"
            notes.append(f"converted: frames, {info['frames']}")
    buttons = _buttons(about, task)
    if buttons:
        info["actions"] = f"the {len(buttons)} buttons of the game, as those of all 18"
        notes.append(f"converted: actions count {info['actions']}")
    else:
        conversions["actions"] = _conversion(
            about, task, "actions", about.action_space, task.action
        )
    converted = [
        f"{name}: {conversion.text}" for name, conversion in conversions.items() if conversion.text
    ]
    if converted:
        info["arrays"] = "; ".join(converted)
        notes.append(f"converted: {info['arrays']}")
    return _Fitting(paths=paths, conversions=conversions, buttons=buttons, info=info, notes=notes)


def _conversion(
    about: Metadata, task: Task, name: str, space: Mapping[str, Any], spec: ArraySpec
) -> Conversion:
    try:
        # A game is shown in colour unless its task says otherwise; other environments' grey is what
        # their adapter repeats.
        may_be_grey = task.family != "atari" or bool(task.env_kwargs.get("grey"))
        return conversion_of(space, spec, name, task.name, may_be_grey=may_be_grey)
    except ValueError as problem:
        raise ValueError(f"{about.dataset_id} {problem}") from problem


def _buttons(about: Metadata, task: Task) -> tuple[int, ...] | None:
    """The game's own buttons, if the data set's actions count those; None if they count the
    task's."""
    num_actions = about.action_space.get("n")
    known_game = task.family == "atari" and str(task.env_kwargs.get("rom")) in MINIMAL_BUTTONS
    if (
        not known_game
        or num_actions == task.action.num_values
        or (about.env_spec.get("kwargs") or {}).get("full_action_space")
    ):
        return None
    buttons = minimal_buttons(task)
    return (
        buttons if num_actions == len(buttons) and not about.action_space.get("start", 0) else None
    )


def _episodes(
    folder: Path,
    storage: MinariStorage,
    about: Metadata,
    wanted: Sequence[int],
    fitting: _Fitting,
    converter: Converter,
    known: Known,
) -> Iterator[Attempt | None]:
    name = about.dataset_id
    try:
        digest = content_digest(*storage.content_files())
    except OSError as error:
        raise ValueError(f"{folder} is damaged: {error}") from error
    with storage.opened() as read:
        for index in wanted:
            key = episode_key("minari", name, digest, index)
            what = f"episode {index} of {name}"
            make = partial(_episode, read, index, key, what, f"file:{name}", fitting, converter)
            yield None if known(key) else Attempt(what=what, make=make)


def _episode(
    read: Callable[[int], Record],
    index: int,
    key: str,
    what: str,
    source: str,
    fitting: _Fitting,
    converter: Converter,
) -> Episode:
    record, task = read(index), converter.task
    actions = record.actions
    if fitting.buttons:
        actions = to_all_buttons(actions, fitting.buttons, f"actions of {what}")
    else:
        actions = fitting.conversions["actions"](actions)
    if (
        not fitting.buttons
        and actions.ndim == 2
        and actions.size == len(actions) * task.action.size
    ):
        # Arrow keeps all elements of a step in a row
        actions = actions.reshape(-1, *task.action.shape)
    flags = {"terminations": record.terminations, "truncations": record.truncations}
    check_lengths(what, len(actions), {"rewards": record.rewards, **flags})
    for name_of_flag, values in flags.items():
        if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
            raise BadEpisode(f"{what}: {name_of_flag} hold more than yes and no")
        if np.any(values[:-1]):
            raise BadEpisode(
                f"{what}: {name_of_flag} before its last step, so it is more than one episode"
            )
    ends = [bool(values[-1]) if len(values) else False for values in flags.values()]
    kept = min(len(actions), task.max_steps)
    seed = record.attributes.get("seed")
    return converter.episode(
        key=key,
        source=source,
        what=what,
        observations={
            key: _read(
                record.observations[fitting.paths[key]],
                len(actions),
                kept,
                spec,
                f"{key} of {what}",
                convert,
            )
            for key, spec in task.observations.items()
            for convert in (fitting.conversions[key],)
        },
        actions=actions,
        rewards=np.asarray(record.rewards),
        terminated=ends[0],
        truncated=ends[1] or not ends[0],
        labels=None if record.labels is None else record.labels[:-1],
        seed=int(seed) if isinstance(seed, (int, np.integer)) else 0,
        info=fitting.info,
    )


def _read(
    column: Column, num_steps: int, kept: int, spec: ArraySpec, what: str, convert: Conversion
) -> Shaped[np.ndarray, "T ..."]:
    """The observations before each action, as the task shows them, decoded block by block; only the
    first `kept`."""
    if column.length != num_steps + 1:
        raise BadEpisode(
            f"{what}: {column.length} observations and {num_steps} actions; expected one more"
        )
    out = np.empty((kept, *spec.shape), spec.dtype)
    for start in range(0, kept, BLOCK_STEPS):
        stop = min(start + BLOCK_STEPS, kept)
        block = convert(column.rows(start, stop))
        if spec.kind is Kind.IMAGE and block.dtype == np.uint8 and block.shape[1:] != spec.shape:
            block = shrink(block, spec) if may_shrink(block.shape[1:]) else block
        out[start:stop] = fit_array(block, spec, what)
    return out


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
