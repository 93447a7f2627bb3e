"""Finds and reads VecNormalize's statistics, by which a policy's observations were normalised.

VecNormalize is saved as a pickle, which is read as data (`actors.teachers.safe_pickle`), or it is
converted to an .npz first.

Shape letters: obs numbers of an observation.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from actors.teachers.safe_pickle import numbers_of, read_inert
from actors.teachers.sb3.archive import DAMAGED, TooLargeError, member

CONVERT = (
    "python -c \"import pickle, numpy as np; v = pickle.load(open('vecnormalize.pkl', 'rb'));"
    " np.savez('vecnormalize.npz', mean=v.obs_rms.mean, var=v.obs_rms.var, epsilon=v.epsilon,"
    ' clip=v.clip_obs)"'
)
"""A command for the machine where Stable-Baselines3 is installed and the file is trusted."""
MOST_STATISTICS_BYTES = 2**26
"""Largest file, and largest array in an .npz, unpacked: 64 MiB; real ones have some kilobytes."""
NAMES = ("vecnormalize.pkl", "vec_normalize.pkl", "vecnormalize.npz", "vec_normalize.npz")
"""Names of the file, of RL-Zoo and of other users of Stable-Baselines3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Observations are normalised by (x - mean) / std, and clipped to [-clip, clip]."""

    mean: Float[np.ndarray, " obs"]
    std: Float[np.ndarray, " obs"]
    clip: float


def read_statistics(path: Path) -> Statistics | None:
    """VecNormalize's statistics of observations, from its pickle or from an .npz made of it.

    Returns:
        None if it normalises rewards only.

    Raises:
        ValueError: if there is no such file, or it is damaged, too large, of several arrays, or not
            safe to read.
    """
    if not path.is_file():
        raise ValueError(
            f"no statistics in {path}; give VecNormalize's file, or convert it: {CONVERT}"
        )
    try:
        if path.stat().st_size > MOST_STATISTICS_BYTES:
            raise TooLargeError(
                f"it has {path.stat().st_size:,} bytes, at most {MOST_STATISTICS_BYTES:,} are read:"
                " it is not a file of statistics"
            )
        return _of_npz(path) if path.suffix == ".npz" else _of_pickle(path)
    except TooLargeError as problem:
        raise ValueError(f"{path} is not read: {problem}") from problem
    except _SeveralError as problem:
        raise ValueError(
            f"{path} is not read: {problem}; a policy is read here for observations that are one"
            " array"
        ) from problem
    except DAMAGED as problem:
        raise ValueError(
            f"{path} is not read: {problem}. It may run programs; where you trust it, convert it in"
            f" its own environment and give the .npz: {CONVERT}"
        ) from problem


class _SeveralError(Exception):
    """The file has statistics of a Dict of observations."""


def _of_npz(path: Path) -> Statistics:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            member(archive, info.filename, MOST_STATISTICS_BYTES, path)
    with np.load(path) as held:
        mean, var, epsilon, clip = (
            numbers_of(held[name]) for name in ("mean", "var", "epsilon", "clip")
        )
    return _checked(mean, var, epsilon, clip)


def _of_pickle(path: Path) -> Statistics | None:
    with path.open("rb") as file:
        held = read_inert(file.read())
    norm_obs = numbers_of(held.norm_obs)
    keys = getattr(held, "norm_obs_keys", None)
    if keys is not None:
        raise _SeveralError(
            f"it normalises the parts {', '.join(map(str, keys))} of a Dict of observations"
        )
    if not norm_obs.any():
        return None  # newer versions have no obs_rms then
    rms = held.obs_rms
    if isinstance(rms, dict):
        raise _SeveralError(
            f"it normalises the parts {', '.join(map(str, rms))} of a Dict of observations"
        )
    return _checked(*map(numbers_of, (rms.mean, rms.var, held.epsilon, held.clip_obs)))


def _checked(
    mean: np.ndarray, var: np.ndarray, epsilon: np.ndarray, clip: np.ndarray
) -> Statistics:
    """The statistics. Raises ValueError if the numbers cannot be statistics."""
    if mean.shape != var.shape or not (np.isfinite(mean).all() and np.isfinite(var).all()):
        raise ValueError(
            f"mean of shape {mean.shape} and variance of shape {var.shape} are not statistics"
        )
    if epsilon.shape or clip.shape or not ((var + epsilon > 0).all() and clip > 0):
        raise ValueError(
            "its variance, epsilon and clip must be single positive numbers, or arrays of them"
        )
    std = np.sqrt(var + epsilon).astype(np.float32)
    return Statistics(
        mean=mean.reshape(-1).astype(np.float32), std=std.reshape(-1), clip=float(clip)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Statistics that lie next to a policy; None if there are none."""

    path: Path | None = None
    statistics: Statistics | None = None
    notes: tuple[str, ...] = ()


def find_statistics(policy: Path, folders: Sequence[Path], shown: int) -> Found:
    """Find the file of statistics for a policy, next to it or in one of `folders`.

    Files with the policy's own name come before those of the folder.

    Args:
        shown: Size of the policy's observation; files of another size are only noted.

    Raises:
        ValueError: if several files of the same rank differ, or one cannot be read.
    """
    step = re.fullmatch(r"(.+)_(\d+)_steps", policy.stem)
    own = [policy.with_name(f"{policy.stem}_vecnormalize{suffix}") for suffix in (".pkl", ".npz")]
    own += [policy.with_name(f"{step[1]}_vecnormalize_{step[2]}_steps.pkl")] if step else []
    own += [policy.parent / policy.stem / name for name in NAMES]
    shared = [folder / name for folder in folders for name in NAMES]
    notes: list[str] = []
    for rank in (own, shared):
        fitting: list[tuple[Path, Statistics | None]] = []
        for path in dict.fromkeys(path for path in rank if path.is_file()):
            try:
                statistics = read_statistics(path)
            except ValueError as problem:
                raise ValueError(
                    f"{problem}. It lies next to {policy.name}; if that was not trained behind it,"
                    " say so: ?vecnormalize=none"
                ) from problem
            if statistics is not None and statistics.mean.shape != (shown,):
                notes.append(
                    f"noted: {path} has statistics of {len(statistics.mean)} numbers, {policy.name}"
                    f" sees {shown}: it is not used"
                )
            else:
                fitting.append((path, statistics))
        if len({_digest(statistics) for _, statistics in fitting}) > 1:
            raise ValueError(
                f"several statistics lie next to {policy}:"
                f" {', '.join(str(path) for path, _ in fitting)}; say which is its own:"
                " ?vecnormalize=FILE, or ?vecnormalize=none"
            )
        if fitting:
            return Found(path=fitting[0][0], statistics=fitting[0][1], notes=tuple(notes))
    return Found(notes=tuple(notes))


def _digest(statistics: Statistics | None) -> object:
    return statistics and (statistics.mean.tobytes(), statistics.std.tobytes(), statistics.clip)
