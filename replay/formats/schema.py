"""Schema: the task of a source, permanent keys, and arrays in the task's form.

Shape letters: T steps.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from gato.array_spec import ArraySpec, Kind
from gato.episode import BadEpisode
from gato.task import Task, find_task
from gato.text import text_to_bytes

NAME_BYTES = 120
"""Bytes of a data set's name in the keys of its episodes; the digest distinguishes cut names."""

DIGESTED_BYTES = 64 << 20
"""Bytes of a source that are digested; a smaller one is read whole."""
NUM_PIECES = 32
LEAST_PIECE_BYTES = 1 << 10


class Misfit(BadEpisode):
    """Data of another shape or type than the task's, so of another environment."""


def content_digest(*paths: Path) -> str:
    """12 hex digits of the files' content, independent of their location.

    Of a file above 64 MiB (of several: above 64 MiB over their number) they cover the size and 32
    pieces, evenly spread, the first and last bytes among them. A change of single bytes between
    those is not noticed; another data set is, and one that grew or was cut off.
    """
    if len(paths) == 1 and paths[0].stat().st_size <= DIGESTED_BYTES:
        with paths[0].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    digest = hashlib.sha256()
    piece_bytes = max(LEAST_PIECE_BYTES, DIGESTED_BYTES // len(paths) // NUM_PIECES)
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{size};".encode())
        with path.open("rb") as file:
            for piece in range(NUM_PIECES):
                file.seek(max(0, size - piece_bytes) * piece // (NUM_PIECES - 1))
                digest.update(file.read(piece_bytes))
                if size <= piece_bytes:
                    break
    return digest.hexdigest()[:12]


def episode_key(form: str, name: str, digest: str, index: int) -> str:
    """The key of an imported episode: the same at every import of the same data, so that a second
    import is a no-op.

    The part before the last colon is the stream; `index` counts its episodes, in order, from 0.
    """
    return f"{form}:{name.encode()[:NAME_BYTES].decode(errors='ignore')}:{digest}:{index}"


def file_digests(form: str, files: Iterable[Path], known: Callable[[str], bool]) -> dict[Path, str]:
    """The digest of each file. `known` hears of all of them before an episode is read: else a new
    file that stands before others would pass for a changed one of the same name."""
    digests = {file: content_digest(file) for file in files}
    for file, digest in digests.items():
        known(episode_key(form, file.stem, digest, 0))
    return digests


def guess_task(names: Iterable[str], tasks: Mapping[str, Task]) -> Task | None:
    """The task of the first name that contains one; `hopper_expert-v5` and
    `mujoco/hopper/expert-v0` both contain hopper."""
    for name in names:
        words = [word for word in re.split(r"[-_]", name) if word]
        parts = [part for part in name.split("/") if part]
        beginnings = ["-".join(words[:count]) for count in range(len(words), 0, -1)]
        for candidate in (
            name,
            *beginnings,
            *("/".join(parts[:count]) for count in range(len(parts), 0, -1)),
        ):
            try:
                return find_task(candidate, tasks)
            except ValueError:
                continue
    return None


def unknown_task(
    what: str, tasks: Mapping[str, Task], names: Iterable[str], hint: str = ""
) -> ValueError:
    """The error for a source whose task is not known, with the names that are nearest to its
    own."""
    lowered = [name.lower() for name in names if name]
    known = {
        alias.lower(): task.name for task in tasks.values() for alias in (task.name, *task.aliases)
    }
    shorts = {word for name in lowered for word in re.split(r"[-_/]", name)} | set(lowered)
    near = [
        known[n]
        for word in sorted(shorts, key=len, reverse=True)
        for n in get_close_matches(word, known, n=1, cutoff=0.75)
    ]
    nearest = (
        f"the nearest are {', '.join(dict.fromkeys(near[:3]))}"
        if near
        else "such as mujoco/hopper or atari/pong (docs/tasks.md has all)"
    )
    return ValueError(f"cannot tell the task of {what}{hint}; pass --task NAME: {nearest}")


def of_frame_size(task: Task, tasks: Mapping[str, Task], shape: tuple[int, ...]) -> Task:
    """The task of the same environment whose images have this shape, if there is one; otherwise
    `task`."""
    for other in (task, *tasks.values()):
        shapes = [spec.shape for spec in other.observations.values() if spec.kind is Kind.IMAGE]
        if other.env_id == task.env_id and shapes == [shape]:
            return other
    return task


def without_version(env_id: str) -> str:
    """`Hopper` of `Hopper-v5`."""
    return re.sub(r"-v\d+$", "", env_id)


def fit_array(
    values: Shaped[np.ndarray, "T ..."], spec: ArraySpec, what: str
) -> Shaped[np.ndarray, "T ..."]:
    """`values` in the dtype of `spec`; NaN and values outside of its bounds pass. Raises Misfit if
    they have another shape or dtype.

    Text comes as strings or UTF-8 bytes [T].
    """
    if spec.kind is Kind.TEXT and values.dtype.kind in "OSU" and values.ndim == 1:
        return text_to_bytes(
            [v.decode() if isinstance(v, bytes) else str(v) for v in values], spec.shape[0]
        )
    if values.shape[1:] != spec.shape:
        if spec.kind is Kind.IMAGE:
            raise Misfit(
                f"{what}: images of size {_size(values.shape[1:])}, expected {_size(spec.shape)};"
                " resize them first"
            )
        raise Misfit(f"{what}: shape {values.shape[1:]} in each step, expected {spec.shape}")
    wanted = {Kind.IMAGE: "u", Kind.CONTINUOUS: "fiu", Kind.DISCRETE: "iu", Kind.TEXT: "u"}[
        spec.kind
    ]
    if values.dtype.kind not in wanted or (spec.kind is Kind.IMAGE and values.dtype != spec.dtype):
        raise Misfit(f"{what}: dtype {values.dtype}, expected {spec.dtype}")
    # what 32 bits cannot hold becomes infinite, and is rejected as not finite
    with np.errstate(over="ignore"):
        return values.astype(spec.dtype, copy=False)


def one_number_a_step(values: Shaped[np.ndarray, "T ..."], what: str) -> Shaped[np.ndarray, " T"]:
    """Numbers [T], also of [T, 1], which D4RL's own loader squeezes. Raises Misfit if there are
    several a step, or no numbers."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise Misfit(f"{what}: {values.dtype} of shape {values.shape}, expected one number a step")
    return values


def check_lengths(
    what: str, num_steps: int, columns: Mapping[str, Shaped[np.ndarray, ...]]
) -> None:
    """Raises BadEpisode if a column has not one row for each step."""
    lengths = {name: len(values) for name, values in columns.items() if len(values) != num_steps}
    if lengths:
        raise BadEpisode(f"{what} has {num_steps} actions but {lengths}")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "none"
