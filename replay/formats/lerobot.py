"""LeRobot data sets, version 3: Parquet files hold one step a row and many episodes each. Camera
images are stored in the Parquet files, or in separate MP4 files.

Shape letters: T steps, n elements, H height, W width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, UInt8

from gato.array_spec import Kind
from gato.episode import HELD_OUT, BadEpisode, Episode, check_episode
from gato.task import LEROBOT, Task
from gato.text import text_to_bytes
from replay.formats.reader import Attempt, FindTask, Known, Reading, Report
from replay.formats.records.build import fit_image, image_files
from replay.formats.records.split import is_nth
from replay.formats.schema import content_digest, episode_key
from replay.formats.video import read_video

OBSERVATION, ACTION, INSTRUCTION = "observation.", "action", "task"
CAMERAS = ("image", "video")
"""Types of features that are pictures."""
NUMBERS = ("float", "int", "uint", "bool")
"""What types of features begin with that are numbers."""
DIGITS = 4
"""Significant digits of the bounds of an action in the name of its task; they are rounded away
from what was recorded."""


def holds_lerobot(path: Path) -> bool:
    """Whether a folder is a LeRobot data set."""
    return (path / "meta" / "info.json").is_file()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Info:
    """What meta/ says of a data set."""

    path: Path
    fps: float
    data_path: str
    video_path: str
    arrays: Mapping[str, int]
    """Columns of observed numbers, with their number of elements."""
    cameras: Mapping[str, str]
    """Columns or videos of cameras, with their type."""
    left_out: Sequence[str]
    """Observed features of other types, and how many episodes meta/episodes lacks."""
    action_size: int
    episodes: Sequence[Mapping[str, Any]]
    """Rows of meta/episodes, in order."""
    tasks: Mapping[int, str]
    """Instructions by their index."""


def read_lerobot(
    path: Path, task: Task | None, *, name: str, known: Known, find_task: FindTask
) -> Reading:
    """The episodes of a LeRobot data set. One in 20 is held out for evaluations.

    Raises:
        ValueError: at once, if it is of another version, or lacks a file or a feature.
    """
    info = _read_info(path)
    if task is None:
        task = find_task(_task_name(info, name))
    if task.family != LEROBOT or task.action.size != info.action_size:
        raise ValueError(
            f"{path} has actions of {info.action_size} numbers, which task {task.name} does not"
            " take; leave out --task"
        )
    total = len(info.episodes)
    held_out = sum(is_nth(index, total) for index in range(total))
    notes = [
        f"LeRobot v3 at {info.fps:g} steps a second; cameras: {', '.join(info.cameras) or 'none'}",
        "rewards are not recorded: each episode returns 1;"
        f" {held_out} of {total} are held out for evaluations",
    ]
    return Reading(
        _attempts(info, task, name, known),
        total=total,
        report=Report(task=task.name, notes=notes, left_out=list(info.left_out)),
    )


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ValueError(f"{file} is damaged: {problem}") from problem


def _table(file: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(file, columns=columns)
    except (pa.ArrowException, OSError) as problem:
        raise ValueError(f"{file} is damaged: {' '.join(str(problem).split())}") from problem


def _read_info(path: Path) -> _Info:
    file = path / "meta" / "info.json"
    plain = _json(file)
    version = str(plain.get("codebase_version", "none"))
    if not version.startswith("v3"):
        raise ValueError(
            f"{path} is of LeRobot's format {version}, expected v3.x; convert it with LeRobot's"
            " own convert_dataset_v21_to_v30"
        )
    features = plain["features"]
    sizes = {key: math.prod(about["shape"]) for key, about in features.items()}
    if ACTION not in features:
        raise ValueError(f"{file} has no feature {ACTION!r}; it has {', '.join(features)}")
    observed = {k: a for k, a in features.items() if k.startswith(OBSERVATION)}
    rows: list[Mapping[str, Any]] = []
    for episodes in sorted((path / "meta" / "episodes").rglob("*.parquet")):
        table = _table(episodes)
        kept = [name for name in table.column_names if not name.startswith("stats/")]
        rows += table.select(kept).to_pylist()
    if not rows:
        raise ValueError(f"{path} holds no episodes: meta/episodes has no rows")
    left_out = [k for k, a in observed.items() if not a["dtype"].startswith((*NUMBERS, *CAMERAS))]
    said = int(plain.get("total_episodes", len(rows)))
    if said > len(rows):
        left_out.append(f"{said - len(rows)} of {said} episodes, which meta/episodes lacks")
    return _Info(
        path=path,
        fps=float(plain["fps"]),
        data_path=plain["data_path"],
        video_path=plain.get("video_path") or "",
        arrays={k: sizes[k] for k, a in observed.items() if a["dtype"].startswith(NUMBERS)},
        cameras={k: a["dtype"] for k, a in observed.items() if a["dtype"] in CAMERAS},
        left_out=left_out,
        action_size=sizes[ACTION],
        episodes=sorted(rows, key=lambda row: row["episode_index"]),
        tasks=_instructions(path / "meta" / "tasks.parquet"),
    )


def _instructions(file: Path) -> dict[int, str]:
    """Instructions by index: the text is the frame's own index, or a column."""
    table = _table(file).to_pydict()
    texts = next((values for name, values in table.items() if name != "task_index"), [])
    return dict(zip(table["task_index"], map(str, texts), strict=True))


def _task_name(info: _Info, name: str) -> str:
    """The name that says what this robot shows and takes, with bounds of the recorded actions."""
    low, high = np.full(info.action_size, np.inf), np.full(info.action_size, -np.inf)
    for file in sorted({_data_file(info, row) for row in info.episodes}):
        actions = _numbers(_table(file, [ACTION])[ACTION], info.action_size, file.name)
        actions = actions[np.isfinite(actions).all(axis=1)]  # the others cost their episode
        if len(actions):
            low, high = np.minimum(low, actions.min(0)), np.maximum(high, actions.max(0))
    bounds = ",".join(
        f"{_away(a, up=False):g}:{_away(b, up=True):g}" for a, b in zip(low, high, strict=True)
    )
    shows = ",".join(
        [f"{_short(key)}:{size}" for key, size in info.arrays.items()]
        + [_short(key) for key in info.cameras]
    )
    return f"{LEROBOT}/{name}?action={quote(bounds, safe=':,')}&shows={shows}"


def _short(key: str) -> str:
    return key.removeprefix(OBSERVATION)


def _away(value: float, *, up: bool) -> float:
    """`value` in a few digits, rounded up or down."""
    if value == 0.0 or not math.isfinite(value):
        return value
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - DIGITS + 1)
    units = round(value / unit, 3)  # what is recorded has the rounding error of 32 bits
    return (math.ceil(units) if up else math.floor(units)) * unit


def _data_file(info: _Info, row: Mapping[str, Any]) -> Path:
    return info.path / info.data_path.format(
        chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
    )


def _numbers(column: Any, size: int, what: str) -> Float[np.ndarray, "T n"]:
    """A column of numbers, or of lists of `size` numbers."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_nested(values.type):
        values = values.flatten()
    flat = values.to_numpy(zero_copy_only=False).astype(np.float32)
    if flat.size != len(column) * size:
        raise BadEpisode(
            f"{what}: {flat.size} numbers in {len(column)} steps, expected {size} each"
        )
    return flat.reshape(len(column), size)


def _attempts(info: _Info, task: Task, name: str, known: Known) -> Iterator[Attempt | None]:
    digest = content_digest(
        info.path / "meta" / "info.json", *sorted({_data_file(info, r) for r in info.episodes})
    )
    opened: dict[Path, pa.Table] = {}
    for index, row in enumerate(info.episodes):
        key = episode_key(LEROBOT, name, digest, index)
        is_held_out = is_nth(index, len(info.episodes))
        make = partial(_episode, info, task, row, key, name, is_held_out, opened)
        what = f"episode {row['episode_index']} of {info.path.name}"
        yield None if known(key) else Attempt(what=what, make=make)


def _episode(
    info: _Info,
    task: Task,
    row: Mapping[str, Any],
    key: str,
    name: str,
    is_held_out: bool,
    opened: dict[Path, pa.Table],
) -> Episode:
    what = f"episode {row['episode_index']} of {info.path.name}"
    file = _data_file(info, row)
    if file not in opened:  # one file in memory: episodes come in its order
        opened.clear()
        opened[file] = _table(file)
    table = opened[file]
    steps = table.filter(_is_of(table, row))
    number = len(steps)
    if number != row["length"]:
        raise BadEpisode(f"{what} has {number} steps in {file.name}, meta says {row['length']}")
    actions = _numbers(steps[ACTION], info.action_size, f"{ACTION} of {what}")
    shown: dict[str, np.ndarray] = {
        _short(column): _numbers(steps[column], size, f"{column} of {what}")
        for column, size in info.arrays.items()
    }
    for column, kind in info.cameras.items():
        spec = task.observations[_short(column)]
        assert spec.kind is Kind.IMAGE
        if kind == "video":
            shown[_short(column)] = _film(info, row, column, spec.shape, number, what)
        else:
            files = image_files(steps[column].to_pylist(), f"{what}: {column}")
            shown[_short(column)] = np.stack(
                [fit_image(data, spec, f"{what}: {column}") for data in files]
            )
    named = [int(index) for index in steps["task_index"].to_pylist()]
    unknown = sorted(set(named) - info.tasks.keys())
    if unknown:
        raise BadEpisode(f"{what} is of task {unknown[0]}, which meta/tasks.parquet does not have")
    said = [info.tasks[index] for index in named]
    shown[INSTRUCTION] = text_to_bytes(said, task.observations[INSTRUCTION].shape[0])
    episode = Episode(
        key=key,
        task=task.name,
        source=f"{HELD_OUT if is_held_out else 'file'}:{name}",
        observations=shown,
        actions=actions,
        rewards=np.full(number, 1.0 / number, np.float32),
        terminated=True,
        truncated=False,
        seed=0,
        info={"file": str(file.relative_to(info.path)), "instruction": said[0][:200]},
    )
    check_episode(episode, task)
    return episode


def _is_of(table: pa.Table, row: Mapping[str, Any]) -> Any:
    """Which steps of a file are of an episode."""
    return pc.call_function("equal", [table["episode_index"], pa.scalar(row["episode_index"])])


def _film(
    info: _Info,
    row: Mapping[str, Any],
    column: str,
    shape: Sequence[int],
    number: int,
    what: str,
) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames of one episode in a camera's film, which holds several."""
    about = f"videos/{column}"
    file = info.path / info.video_path.format(
        video_key=column,
        chunk_index=row[f"{about}/chunk_index"],
        file_index=row[f"{about}/file_index"],
    )
    frames = read_video(
        file, begin_s=float(row[f"{about}/from_timestamp"]), fps=info.fps, number=number,
        size=(shape[0], shape[1]),
    )  # fmt: skip
    if len(frames) != number:
        raise BadEpisode(
            f"{what} has {number} steps, its film {file.name} has {len(frames)} frames of them"
        )
    return frames
