"""Loads policies of Stable-Baselines3: a zip becomes a `Specialist`; its pickles are never loaded.

What a zip says is compared with lists. What is on no list, or contradicts the task, is rejected by
name or reported in a note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np

from actors.teachers.sb3.archive import Archive, read_archive
from actors.teachers.sb3.network import Network, network_of
from actors.teachers.sb3.spaces import Fit, compare_spaces
from actors.teachers.sb3.statistics import Statistics, find_statistics, read_statistics
from actors.teachers.sb3.zoo import ZooSettings, folders_beside, read_zoo
from actors.teachers.specialist import Specialist
from gato.array_spec import Kind
from gato.compatibility.environment import Comparison, Difference
from gato.task import Task

NOISE = 0.1
"""Standard deviation of a policy without one of its own, as a share of half an action's range:
TD3's exploration noise."""
NO_STATISTICS = "none"
"""Value of the option `vecnormalize`: observations are not normalised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options after the `?` of a policy's spec."""

    statistics: str | None = None
    """File of VecNormalize, or `none`; None: look for one."""
    activation: str | None = None
    allowed: frozenset[str] = frozenset()
    """Subjects of differences from the task that the user allows."""


def read_options(query: str, where: str) -> Options:
    """Parse `vecnormalize=FILE&activation=tanh&allow=observation-bounds,start`. Raises ValueError
    for any other option."""
    options: dict[str, str] = {}
    allowed: list[str] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in ("vecnormalize", "activation", "allow"):
            raise ValueError(
                f"unknown option {name!r} of sb3:{where}; there are vecnormalize=FILE (or none),"
                " activation=NAME and allow=DIFFERENCE"
            )
        if not value or name in options:
            raise ValueError(
                f"option {name} of sb3:{where} {'is given twice' if value else 'has no value'}"
            )
        if name == "allow":
            allowed += filter(None, map(str.strip, value.split(",")))
        else:
            options[name] = value
    return Options(
        statistics=options.get("vecnormalize"),
        activation=options.get("activation"),
        allowed=frozenset(allowed),
    )


def load_sb3(where: str, task: Task) -> Specialist:
    """Load the policy of `FILE.zip[?vecnormalize=FILE|none&activation=relu&allow=DIFFERENCE,...]`.

    Its record has `notes`: what was converted, allowed, found or is unknown, a line each.

    Raises:
        ValueError: if the file is not safe, may act differently here than in Stable-Baselines3, or
            was not made for this task.
    """
    name, _, query = where.partition("?")
    path, options = Path(name).expanduser(), read_options(query, where)
    archive = read_archive(path)
    network = network_of(archive, activation=options.activation, allowed=options.allowed)
    folders = folders_beside(path, task.env_id)
    zoo = read_zoo(folders)
    _require_fit(path, task, network, zoo)
    fit = compare_spaces(
        archive,
        task,
        zoo.described(str(path)),
        shown=network.shown,
        taken=network.taken,
        allowed=options.allowed,
    )
    comparison = _with_frames(fit.comparison, zoo, options.allowed)
    _require(comparison, name, task)
    statistics, found = _statistics(archive, network, options, folders, zoo)
    notes = [*comparison.notes, *network.notes, *zoo.notes, *found, *_name_notes(path, task, zoo)]
    used = {each.subject for each in comparison.differences if each.outcome == "allowed"} | {
        "policy-class"
    }
    notes += [
        f"noted: allow={subject} was not needed" for subject in sorted(options.allowed - used)
    ]
    return _specialist(archive, network, fit, statistics, task, tuple(notes), options)


def _require_fit(path: Path, task: Task, network: Network, zoo: ZooSettings) -> None:
    """Raises ValueError if the sizes of observation and action are not those of the task."""
    spec, action = next(iter(task.observations.values())), task.action
    if (
        spec.kind is not Kind.CONTINUOUS
        or len(task.observations) != 1
        or (action.kind is Kind.DISCRETE and action.shape)
    ):
        raise ValueError(
            f"task {task.name} shows {', '.join(task.observations)} and takes {action.kind} actions"
            f" of shape {action.shape}; a policy of Stable-Baselines3 is read for one array of"
            " numbers and for continuous actions or a single choice"
        )
    wanted = int(action.counts[0]) if action.kind is Kind.DISCRETE else action.size
    if (network.shown, network.taken) != (spec.size, wanted):
        frames, rest = divmod(network.shown, spec.size)
        hint = ""
        if zoo.frame_stack > 1 or (frames > 1 and not rest):
            hint = (
                f" (or it sees {max(zoo.frame_stack, frames)} frames at once, which is not played"
                " here)"
            )
        raise ValueError(
            f"{path} sees {network.shown} numbers and gives {network.taken}, task {task.name} shows"
            f" {spec.size} and takes {wanted}; it was trained in another environment, or in another"
            f" version of it{hint}"
        )


def _with_frames(comparison: Comparison, zoo: ZooSettings, allowed: frozenset[str]) -> Comparison:
    if zoo.frame_stack <= 1:
        return comparison
    text = f"it was trained with frame_stack={zoo.frame_stack}, which is not played here"
    outcome = "allowed" if "frame-stack" in allowed else "rejected"
    frames = Difference(subject="frame-stack", text=text, outcome=outcome)
    return Comparison(
        where=comparison.where,
        differences=(*comparison.differences, frames),
        scale_from=comparison.scale_from,
    )


def _require(comparison: Comparison, name: str, task: Task) -> None:
    """Raises ValueError with every difference that contradicts the task."""
    if comparison.rejected:
        texts = "; ".join(each.text for each in comparison.rejected)
        subjects = ",".join(dict.fromkeys(each.subject for each in comparison.rejected))
        raise ValueError(
            f"{comparison.where} contradicts task {task.name}: {texts}. Give a policy of the task's"
            " own environment; if you know that it is the same, add it as an option:"
            f" sb3:{name}?allow={subjects}"
        )


def _statistics(
    archive: Archive, network: Network, options: Options, folders: list[Path], zoo: ZooSettings
) -> tuple[Statistics | None, list[str]]:
    """The statistics that observations are normalised by, and notes. Raises ValueError if they are
    needed and not found."""
    path = archive.path
    if options.statistics == NO_STATISTICS:
        return None, ["allowed: observations are not normalised, as vecnormalize=none says"]
    if options.statistics is not None:
        named = Path(options.statistics).expanduser()
        statistics = read_statistics(named)
        if statistics is None:
            return None, [
                f"noted: {named} normalises rewards only, so observations are seen as they are"
            ]
        if statistics.mean.shape != (network.shown,):
            raise ValueError(
                f"{named} has statistics of shape {statistics.mean.shape}, {path} sees"
                f" {network.shown} numbers"
            )
        return statistics, []
    # Algorithms with a replay buffer store this entry in any case: it tells something only for the
    # others.
    says = (
        bool(archive.data["_last_original_obs"])
        if network.is_on_policy and "_last_original_obs" in archive.data
        else None
    )
    says = zoo.normalises if says is None else says
    how = (
        f"say where its statistics are, or that there are none: sb3:{path}?vecnormalize=FILE or"
        " ?vecnormalize=none"
    )
    found = find_statistics(path, folders, network.shown)
    notes = list(found.notes)
    if found.path is None:
        if says:
            raise ValueError(f"{path} was trained behind VecNormalize; {how}")
        if says is None:
            notes.append(
                f"noted: {path.name} does not say whether it was trained behind VecNormalize, and"
                " no statistics lie next to it; if it was, add ?vecnormalize=FILE, if not,"
                " ?vecnormalize=none"
            )
        return None, notes
    if says is False:
        return None, [
            *notes,
            (
                f"noted: {found.path} is not used, since {path.name} says that it was trained"
                " without VecNormalize; if it was with it, name the file by ?vecnormalize=FILE"
            ),
        ]
    what = "normalises rewards only, so observations are seen as they are"
    if found.statistics is not None:
        what = "normalises its observations; if it was trained without it, add ?vecnormalize=none"
    return found.statistics, [
        *notes,
        f"noted: {found.path} was found next to {path.name} and {what}",
    ]


def _name_notes(path: Path, task: Task, zoo: ZooSettings) -> list[str]:
    """A note if the file is named after another environment, which need not mean anything."""
    match = re.search(r"(?:^|[-_])([A-Z]\w*-v\d+)", path.stem)
    if zoo.env_id or match is None or match[1] == task.env_id.rpartition("/")[2]:
        return []
    return [f"noted: {path.name} is named after {match[1]}, task {task.name} is {task.env_id}"]


def _specialist(
    archive: Archive,
    network: Network,
    fit: Fit,
    statistics: Statistics | None,
    task: Task,
    notes: tuple[str, ...],
    options: Options,
) -> Specialist:
    """The network with the scale of its observations and the bounds of its actions. Raises
    ValueError if it needs bounds and has none."""
    shown, taken = network.shown, network.taken
    low, high = fit.action_bounds or (np.full(taken, -1.0), np.full(taken, 1.0))
    if network.squash and fit.has_open_bounds:
        raise ValueError(
            f"{archive.path} scales its actions to their bounds, and declares none; save the policy"
            " again"
        )
    about: dict[str, object] = {
        "task": task.name,
        "env_id": task.env_id,
        "algorithm": (
            f"Stable-Baselines3 {archive.readable('policy_class').get('__module__', '')}".strip()
        ),
        "env_steps": archive.data.get("num_timesteps"),
        "file": str(archive.path),
        "activation": network.activation,
        "squash": network.squash,
        "output_clip": network.output_clip,
        "observation_clip": statistics.clip if statistics else np.inf,
        "action_low": low,
        "action_high": high,
        "notes": list(notes),
        "allowed": sorted(options.allowed),
    }
    if fit.comparison.scale_from is not None:
        about |= dict(zip(("played_low", "played_high"), task.action.bounds or (), strict=True))
    spread = np.maximum(NOISE * (high - low) / 2, np.finfo(np.float32).tiny)
    arrays: Mapping[str, np.ndarray] = {
        "obs_mean": statistics.mean if statistics else np.zeros(shown, np.float32),
        "obs_std": statistics.std if statistics else np.ones(shown, np.float32),
        "log_std": (
            np.log(spread).astype(np.float32) if network.log_std is None else network.log_std
        ),
    }
    return Specialist({**network.arrays, **arrays}, about)
