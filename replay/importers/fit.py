"""What every importer needs: which task some data is of, keys that stay, and arrays made to fit the task.

Shape letters: T steps.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from gato.task import ArraySpec, Kind, Task, find_task
from gato.text import text_to_bytes

NAME_BYTES = 120
"""Of a data set's name in the keys of its episodes; its digest tells apart what a cut name does not."""


DIGESTED_BYTES = 64 << 20
"""How much of a source is read to digest it; a smaller one is read whole."""
NUM_PIECES = 32
LEAST_PIECE_BYTES = 1 << 10


def content_digest(*paths: Path) -> str:
    """12 hex digits of the files' content: the same wherever they lie, others once the content has changed.

    Of a file above 64 MiB (of several: above 64 MiB over their number) they cover the size and 32 pieces, evenly spread,
    the first and last bytes among them. A change of single bytes between those is not seen; another data set is, and
    one that grew or was cut off.
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
    """The key of an imported episode: the same at every import of the same data, so that a second one is a no-op.

    All before the last colon names the stream; `index` counts its episodes, in order, from 0.
    """
    return f"{form}:{name.encode()[:NAME_BYTES].decode(errors='ignore')}:{digest}:{index}"


def guess_task(names: Iterable[str], tasks: Mapping[str, Task]) -> Task | None:
    """The task of the first name that says one; `hopper_expert-v5` and `mujoco/hopper/expert-v0` both say hopper."""
    for name in names:
        words = [word for word in re.split(r"[-_]", name) if word]
        parts = [part for part in name.split("/") if part]
        beginnings = ["-".join(words[:count]) for count in range(len(words), 0, -1)]
        for candidate in (name, *beginnings, *("/".join(parts[:count]) for count in range(len(parts), 0, -1))):
            try:
                return find_task(candidate, tasks)
            except ValueError:
                continue
    return None


def of_frame_size(task: Task, tasks: Mapping[str, Task], shape: tuple[int, ...]) -> Task:
    """The task of the same environment that shows images of this very shape, where there is one; else `task` itself."""
    for other in (task, *tasks.values()):
        shapes = [spec.shape for spec in other.observations.values() if spec.kind is Kind.IMAGE]
        if other.env_id == task.env_id and shapes == [shape]:
            return other
    return task


def without_version(env_id: str) -> str:
    """`Hopper` of `Hopper-v5`."""
    return re.sub(r"-v\d+$", "", env_id)


def fit_array(values: Shaped[np.ndarray, "T ..."], spec: ArraySpec, what: str) -> Shaped[np.ndarray, "T ..."]:
    """`values` in the dtype of `spec` and within its bounds. ValueError where they have another shape; NaN may pass.

    Text comes as strings or UTF-8 bytes [T].
    """
    if spec.kind is Kind.TEXT and values.dtype.kind in "OSU" and values.ndim == 1:
        return text_to_bytes([v.decode() if isinstance(v, bytes) else str(v) for v in values], spec.shape[0])
    if values.shape[1:] != spec.shape:
        if spec.kind is Kind.IMAGE:
            raise ValueError(
                f"{what}: images of size {_size(values.shape[1:])}, expected {_size(spec.shape)}; resize them first"
            )
        raise ValueError(f"{what}: shape {values.shape[1:]} in each step, expected {spec.shape}")
    wanted = {Kind.IMAGE: "u", Kind.CONTINUOUS: "fiu", Kind.DISCRETE: "iu", Kind.TEXT: "u"}[spec.kind]
    if values.dtype.kind not in wanted or (spec.kind is Kind.IMAGE and values.dtype != spec.dtype):
        raise ValueError(f"{what}: dtype {values.dtype}, expected {spec.dtype}")
    values = values.astype(spec.dtype, copy=False)
    if spec.bounds is not None:
        low, high = (np.broadcast_to(bound, (spec.size,)).reshape(spec.shape) for bound in spec.bounds)
        values = np.clip(values, low.astype(values.dtype), high.astype(values.dtype))
    return values


def check_lengths(what: str, num_steps: int, columns: Mapping[str, Shaped[np.ndarray, ...]]) -> None:
    """ValueError where a column has not one row for each step."""
    lengths = {name: len(values) for name, values in columns.items() if len(values) != num_steps}
    if lengths:
        raise ValueError(f"{what} has {num_steps} actions but {lengths}")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "none"
