"""JAT data sets: Parquet with an episode a row, of MuJoCo, Atari or BabyAI, read without the
`datasets` library.

Shape letters: T steps, H height, W width, C channels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Shaped, UInt8
from PIL import Image

from gato.array_spec import ArraySpec, Kind
from gato.compatibility.compare import compare
from gato.compatibility.environment import EnvDescription
from gato.episode import BadEpisode, Episode
from gato.task import Task
from gato.text import text_to_bytes
from replay.formats import parquet
from replay.formats.atari_frames import minimal_buttons, to_all_buttons
from replay.formats.convert import Converter
from replay.formats.reader import NO_OPTIONS, ImportOptions, Known, Reading, Report, nothing_known
from replay.formats.schema import Misfit, fit_array, of_frame_size, without_version

FORMAT = (
    "a JAT file holds rewards, continuous_actions or discrete_actions, and some of continuous_,"
    " discrete_, text_ and image_observations, one row an episode"
)
VERSION = re.compile(r"-v(\d+)$")
STACKED = 4
"""Frames in the channels of one image."""
DAMAGE = (pa.ArrowException, OSError, SyntaxError, TypeError)
"""What pyarrow and Pillow raise for bytes that are not what they should be."""
KINDS = {f"{kind}_observations": kind for kind in Kind}
ACTIONS = {"continuous_actions": Kind.CONTINUOUS, "discrete_actions": Kind.DISCRETE}
CONVENTIONS = (
    "JAT: MuJoCo of Gymnasium v4; Atari without sticky actions, an episode may be one life"
)


def read_jat(
    path: Path,
    tasks: Mapping[str, Task],
    task: Task | None = None,
    *,
    known: Known = nothing_known,
    options: ImportOptions = NO_OPTIONS,
) -> Reading:
    """The episodes of a JAT file or of a folder of such. ValueError, at once, where they do not fit
    the task.

    for episode in read_jat(Path("mujoco-hopper"), tasks, known=store.known):
        ...

    Without `task`, the name of a file or folder must tell it (`mujoco-hopper`, `atari-pong`). Of
    frames of four grey channels the newest is kept, grey in all three, and the task is the one that
    shows such frames (`atari84/pong`). Actions of Atari count a game's own buttons, unless there
    are more. JAT does not say how an episode ended: one shorter than the task's `max_steps` is
    taken as terminated.
    """
    files = parquet.find_files(path)
    names = parquet.column_names(path)
    seen = {name: kind for name, kind in KINDS.items() if name in names}
    if not set(ACTIONS) & set(names) or not seen or "rewards" not in names:
        raise ValueError(f"{path} has columns {', '.join(names)}; {FORMAT}")
    _require_lists(path, files)
    found = parquet.task_of(
        path, files, tasks, task, "JAT's are such as mujoco-hopper and atari-pong"
    )
    if task is None:  # JAT's robots are of Gymnasium v4, whatever a file is called
        found = next((other for other in tasks.values() if other.env_id == _v4(found)), found)
    if not parquet.num_rows(files):
        raise ValueError(f"{path} is empty: it holds no episodes")
    if "image_observations" in seen:
        fitting = of_frame_size(found, tasks, _frame_shape(files, path))
        if task not in (None, fitting):
            raise ValueError(
                f"the frames of {path} are those of task {fitting.name}, not of {found.name}; pass"
                " that --task"
            )
        found = fitting
    plan = _plan(path, found, names, seen, files, options)
    columns = [*plan.columns.values(), plan.actions, "rewards"]
    parquet.require_fit(
        parquet.rows(files, "jat", columns, nothing_known), partial(_episode, plan), path
    )
    rows = parquet.rows(files, "jat", columns, known)
    return Reading(
        parquet.attempts(rows, partial(_episode, plan)),
        total=parquet.num_rows(files),
        report=Report(task=plan.converter.task.name, notes=[*plan.notes]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What was found out about the files before their episodes are read."""

    converter: Converter
    path: Path
    columns: Mapping[str, str]
    """The column of each observation of the task."""
    actions: str
    buttons: tuple[int, ...] | None
    notes: Sequence[str]


def _require_lists(path: Path, files: list[Path]) -> None:
    """ValueError if a row is a step and not an episode."""
    for name, kind in parquet.column_types(files[0]).items():
        if name in (*KINDS, *ACTIONS, "rewards") and not (
            pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
        ):
            raise ValueError(
                f"{path} has one {kind} a row in {name}: its rows are steps, but a JAT file has an"
                " episode a row, each column a list over its steps; group the rows by episode"
            )


def _plan(
    path: Path,
    task: Task,
    names: Sequence[str],
    seen: Mapping[str, Kind],
    files: list[Path],
    options: ImportOptions,
) -> _Plan:
    columns: dict[str, str] = {}
    for key, spec in task.observations.items():
        rivals = [other for other, its in task.observations.items() if its.kind is spec.kind]
        column = f"{spec.kind}_observations"
        if column not in seen or len(rivals) > 1:
            wanted = {name: str(its.kind) for name, its in task.observations.items()}
            raise ValueError(
                f"{path} shows {', '.join(seen)}, one of each kind; task {task.name} observes"
                f" {wanted}"
            )
        columns[key] = column
    actions = f"{task.action.kind}_actions"
    if actions not in names:
        there = next(name for name in ACTIONS if name in names)
        raise ValueError(f"{path} has {there}, task {task.name} takes {task.action.kind} ones")
    is_game = task.family == "atari"
    said = EnvDescription(
        where=str(path),
        env_id=task.env_id if is_game else _v4(task, files),
        sticky=0.0 if is_game else None,
        kwargs={"frameskip": 4} if is_game else {},
        traits=(
            CONVENTIONS,
            (
                "JAT does not say how an episode ended: one shorter than the limit is taken as"
                " terminated"
            ),
        ),
    )
    comparison = compare(said, task, defaults=options.defaults, allowed=options.allowed)
    comparison.require()
    notes = list(comparison.notes)
    buttons = None
    if is_game:
        buttons = minimal_buttons(task)
        most = parquet.largest(files, actions)
        buttons = None if most is not None and most >= len(buttons) else buttons
        counted = f"the game's own {len(buttons)}" if buttons else "all 18"
        largest = "not stated" if most is None else most
        notes.append(f"assumed: actions count {counted} buttons (the largest is {largest})")
    unread = sorted(set(names) - {*columns.values(), actions, "rewards"})
    if unread:
        notes.append(f"not read: {', '.join(unread)}")
    return _Plan(
        converter=Converter(task=task, comparison=comparison, allowed=options.allowed),
        path=path,
        columns=columns,
        actions=actions,
        buttons=buttons,
        notes=notes,
    )


def _v4(task: Task, files: Sequence[Path] = ()) -> str:
    """The version of a robot that JAT's data is of, unless a file's name says another; of other
    environments nothing is known."""
    named = [match[1] for file in files if (match := VERSION.search(file.stem))]
    return f"{without_version(task.env_id)}-v{(*named, '4')[0]}" if task.family == "mujoco" else ""


def _episode(plan: _Plan, row: parquet.Row) -> Episode:
    task, what = plan.converter.task, row.where
    try:
        actions = _array(row, plan.actions)
        rewards = _array(row, "rewards")
        if plan.buttons:
            actions = to_all_buttons(actions, plan.buttons, f"actions of {what}")
        observations = {
            key: _observation(row, plan, key, f"{plan.columns[key]} of {what}")
            for key in plan.columns
        }
        actions = actions.reshape(len(actions), *_flat(actions, task.action))
    except DAMAGE as problem:
        raise BadEpisode(f"{what} is damaged: {problem}") from problem
    truncated = len(actions) >= task.max_steps
    return plan.converter.episode(
        key=row.key,
        source=f"file:{plan.path.stem}",
        what=what,
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminated=not truncated,
        truncated=truncated,
        info={
            "conventions": CONVENTIONS,
            "file": parquet.shown(row.file, plan.path),
            "ended": "not stated; told by its length",
        },
    )


def _flat(actions: np.ndarray, spec: ArraySpec) -> tuple[int, ...]:
    """The shape of one step: actions of one number come with and without a dimension of their
    own."""
    return spec.shape if actions.size == len(actions) * spec.size else actions.shape[1:]


def _observation(row: parquet.Row, plan: _Plan, key: str, what: str) -> Shaped[np.ndarray, "T ..."]:
    task = plan.converter.task
    spec = task.observations[key]
    if spec.kind is Kind.TEXT:
        return text_to_bytes(
            [str(text) for text in _list(row, plan.columns[key]).to_pylist()], spec.shape[0]
        )
    if spec.kind is Kind.IMAGE:
        return fit_array(_frames(_list(row, plan.columns[key]), what), spec, what)
    values = _array(row, plan.columns[key])
    if values.shape[1:] != spec.shape:
        raise Misfit(
            f"{what}: {values.shape[1:]} in each step, task {task.name} ({task.env_id}) shows"
            f" {spec.shape}; JAT is of Gymnasium v4, where some robots show less (Ant-v4: 27,"
            " Ant-v5: 105)"
        )
    return fit_array(values, spec, what)


def _list(row: parquet.Row, name: str) -> Any:
    """What a row has in a column, one entry a step."""
    column = row.values.column(name)
    if column.null_count or not len(column[0].values):
        raise BadEpisode(f"{row.where} has nothing in {name}")
    return column[0].values


def _array(row: parquet.Row, name: str) -> np.ndarray:
    """A list of numbers, or of lists of as many numbers each, of one row."""
    return _numbers(_list(row, name), f"{name} of {row.file.name}")


def _numbers(values: Any, what: str) -> np.ndarray:
    """Nested lists as an array: the lists of each level must be of one length."""
    shape = [len(values)]
    while (
        pa.types.is_list(values.type)
        or pa.types.is_large_list(values.type)
        or pa.types.is_fixed_size_list(values.type)
    ):
        lengths = np.unique(
            pc.call_function("list_value_length", [values]).to_numpy(zero_copy_only=False)
        )
        if len(lengths) != 1 or not lengths[0] >= 1:
            raise ValueError(
                f"{what}: lists of {lengths.tolist()} numbers, expected as many in each step"
            )
        shape.append(int(lengths[0]))
        values = values.flatten()
    if values.null_count:
        raise BadEpisode(f"{what}: {values.null_count} of its values are missing")
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _frame_shape(files: list[Path], path: Path) -> tuple[int, ...]:
    """Of the first frame that can be read. ValueError if there is none."""
    problem: Exception | None = None
    for row in islice(
        parquet.rows(files, "jat", ["image_observations"], nothing_known), parquet.LOOKED_AT
    ):
        try:
            if not row.problem:
                what = f"image_observations of {path}"
                return _frames(_list(row, "image_observations")[:1], what)[0].shape
        except (*DAMAGE, ValueError) as found:
            problem = problem or found
    raise ValueError(f"{path} is damaged: {problem or 'none of its frames can be read'}")


def _frames(values: Any, what: str) -> UInt8[np.ndarray, "T H W 3"]:
    """Images, as files in the file or as nested lists, in three channels; of four, which are the
    last four frames, the last."""
    if pa.types.is_struct(values.type):
        values = values.field("bytes")
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        if values.null_count:
            raise ValueError(f"{what}: images kept outside of the file; embed them first")
        images = (np.asarray(Image.open(io.BytesIO(image.as_buffer()))) for image in values)
        return _filled(images, len(values), what)
    frames = _numbers(values, what)
    if frames.ndim == 4 and frames.shape[1] == STACKED != frames.shape[3]:
        frames = np.moveaxis(frames, 1, 3)
    if frames.dtype.kind not in "iu" or not 0 <= frames.min() <= frames.max() <= 255:
        raise ValueError(f"{what}: {frames.dtype} values, expected whole numbers from 0 to 255")
    return _filled((frame.astype(np.uint8) for frame in frames), len(frames), what)


def _filled(
    images: Iterator[np.ndarray], num_steps: int, what: str
) -> UInt8[np.ndarray, "T H W 3"]:
    """All images in one array, so that they are not held twice."""
    first = _rgb(next(images), what)
    out = np.empty((num_steps, *first.shape), np.uint8)
    out[0] = first
    for step, image in enumerate(images, start=1):
        frame = _rgb(image, what)
        if frame.shape != first.shape:
            raise ValueError(f"{what}: images of shape {first.shape} and of {frame.shape}")
        out[step] = frame
    return out


def _rgb(frame: np.ndarray, what: str) -> UInt8[np.ndarray, "H W 3"]:
    if (
        frame.dtype != np.uint8
        or frame.ndim not in (2, 3)
        or (frame.ndim == 3 and frame.shape[2] not in (1, 3, STACKED))
    ):
        raise ValueError(
            f"{what}: an image of shape {frame.shape} and {frame.dtype}, expected 84x84x4 of uint8"
        )
    if frame.ndim == 3 and frame.shape[2] == 3:
        return frame
    return np.repeat((frame if frame.ndim == 2 else frame[..., -1])[..., None], 3, axis=-1)
