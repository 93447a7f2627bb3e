"""JAT data sets: Parquet with an episode a row, of MuJoCo, Atari or BabyAI, read without the
`datasets` library.

Shape letters: T steps, H height, W width, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Shaped

from gato.array_spec import ArraySpec, Kind
from gato.compatibility.compare import compare
from gato.compatibility.environment import EnvDescription
from gato.episode import BadEpisode, Episode
from gato.task import Task
from gato.text import text_to_bytes
from replay.formats import parquet
from replay.formats.atari_frames import minimal_buttons, to_all_buttons
from replay.formats.convert import Converter
from replay.formats.jat_columns import array_of, frames_of, list_of
from replay.formats.reader import NO_OPTIONS, ImportOptions, Known, Reading, Report, nothing_known
from replay.formats.schema import Misfit, fit_array, of_frame_size, without_version

FORMAT = (
    "a JAT file holds rewards, continuous_actions or discrete_actions, and some of continuous_,"
    " discrete_, text_ and image_observations, one row an episode"
)
VERSION = re.compile(r"-v(\d+)$")
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
    """The episodes of a JAT file or of a folder of such. Raises ValueError at once if they do not
    fit the task.

    for episode in read_jat(Path("mujoco-hopper"), tasks, known=store.known):
        ...

    Without `task`, the name of a file or folder must tell it (`mujoco-hopper`, `atari-pong`). Of
    frames of four grey channels the newest is kept, grey in all three, and the task is the one that
    shows such frames (`atari84/pong`). Actions of Atari count a game's own buttons, unless there
    are more. JAT does not store how an episode ended: one shorter than the task's `max_steps`
    counts as terminated.
    """
    files = parquet.find_files(path)
    names = parquet.column_names(path)
    kinds = {name: kind for name, kind in KINDS.items() if name in names}
    if not set(ACTIONS) & set(names) or not kinds or "rewards" not in names:
        raise ValueError(f"{path} has columns {', '.join(names)}; {FORMAT}")
    _require_lists(path, files)
    found = parquet.task_of(
        path, files, tasks, task, "JAT's are such as mujoco-hopper and atari-pong"
    )
    if task is None:  # JAT's robots are of Gymnasium v4, whatever a file is called
        found = next((other for other in tasks.values() if other.env_id == _v4(found)), found)
    if not parquet.num_rows(files):
        raise ValueError(f"{path} is empty: it holds no episodes")
    if "image_observations" in kinds:
        fitting = of_frame_size(found, tasks, _frame_shape(files, path))
        if task not in (None, fitting):
            raise ValueError(
                f"the frames of {path} are those of task {fitting.name}, not of {found.name}; pass"
                " that --task"
            )
        found = fitting
    plan = _plan(path, found, names, kinds, files, options)
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
    """What is known of the files before their episodes are read."""

    converter: Converter
    path: Path
    columns: Mapping[str, str]
    """The column of each observation of the task."""
    actions: str
    buttons: tuple[int, ...] | None
    notes: Sequence[str]


def _require_lists(path: Path, files: list[Path]) -> None:
    """Raises ValueError if a row is a step and not an episode."""
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
    kinds: Mapping[str, Kind],
    files: list[Path],
    options: ImportOptions,
) -> _Plan:
    columns: dict[str, str] = {}
    for key, spec in task.observations.items():
        rivals = [other for other, its in task.observations.items() if its.kind is spec.kind]
        column = f"{spec.kind}_observations"
        if column not in kinds or len(rivals) > 1:
            wanted = {name: str(its.kind) for name, its in task.observations.items()}
            raise ValueError(
                f"{path} shows {', '.join(kinds)}, one of each kind; task {task.name} observes"
                f" {wanted}"
            )
        columns[key] = column
    actions = f"{task.action.kind}_actions"
    if actions not in names:
        there = next(name for name in ACTIONS if name in names)
        raise ValueError(f"{path} has {there}, task {task.name} takes {task.action.kind} ones")
    is_game = task.family == "atari"
    description = EnvDescription(
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
    comparison = compare(description, task, defaults=options.defaults, allowed=options.allowed)
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
    """The version of a robot in JAT's data, unless a file's name has another; empty for other
    environments."""
    named = [match[1] for file in files if (match := VERSION.search(file.stem))]
    return f"{without_version(task.env_id)}-v{(*named, '4')[0]}" if task.family == "mujoco" else ""


def _episode(plan: _Plan, row: parquet.Row) -> Episode:
    task, what = plan.converter.task, row.where
    try:
        actions = array_of(row, plan.actions)
        rewards = array_of(row, "rewards")
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
            [str(text) for text in list_of(row, plan.columns[key]).to_pylist()], spec.shape[0]
        )
    if spec.kind is Kind.IMAGE:
        return fit_array(frames_of(list_of(row, plan.columns[key]), what), spec, what)
    values = array_of(row, plan.columns[key])
    if values.shape[1:] != spec.shape:
        raise Misfit(
            f"{what}: {values.shape[1:]} in each step, task {task.name} ({task.env_id}) shows"
            f" {spec.shape}; JAT is of Gymnasium v4, where some robots show less (Ant-v4: 27,"
            " Ant-v5: 105)"
        )
    return fit_array(values, spec, what)


def _frame_shape(files: list[Path], path: Path) -> tuple[int, ...]:
    """Of the first frame that can be read. Raises ValueError if there is none."""
    problem: Exception | None = None
    for row in islice(
        parquet.rows(files, "jat", ["image_observations"], nothing_known), parquet.LOOKED_AT
    ):
        try:
            if not row.problem:
                what = f"image_observations of {path}"
                return frames_of(list_of(row, "image_observations")[:1], what)[0].shape
        except (*DAMAGE, ValueError) as found:
            problem = problem or found
    raise ValueError(f"{path} is damaged: {problem or 'none of its frames can be read'}")
