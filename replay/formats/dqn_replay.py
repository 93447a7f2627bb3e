"""The DQN replay data set: gzipped arrays of a million steps a checkpoint, streamed, so that one
episode is in memory.

Shape letters: N steps of a checkpoint, T steps of an episode, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gato.array_spec import Kind
from gato.compatibility.compare import compare
from gato.compatibility.environment import EnvDescription
from gato.episode import Episode
from gato.task import Task
from replay.formats.atari_frames import minimal_buttons, to_all_buttons
from replay.formats.convert import Converter
from replay.formats.dqn_checkpoint import (
    FORMAT,
    Checkpoint,
    Frames,
    Steps,
    find_checkpoints,
    frame_shape,
    read_steps,
)
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
    content_digest,
    episode_key,
    guess_task,
    of_frame_size,
    unknown_task,
)

CAPACITY_STEPS = 1_000_000
"""Of Dopamine's buffer. A checkpoint is written when a full one lacks its last step, whose row is
then an old one."""
PADDING_STEPS = 3
"""Steps of zeros that Dopamine's buffer has before each episode, so that the first frame can be
stacked."""
CONVENTIONS = "DQN replay: rewards clipped to [-1, 1], sticky actions 0.25, every 4th frame"


def holds_dqn_replay(path: Path) -> bool:
    """Whether a folder, or its `replay_logs`, holds checkpoints of this form."""
    return path.is_dir() and bool(find_checkpoints(path))


def read_dqn_replay(
    path: Path,
    tasks: Mapping[str, Task],
    task: Task | None = None,
    *,
    known: Known = nothing_known,
    options: ImportOptions = NO_OPTIONS,
) -> Reading:
    """The episodes of a run's folder. Raises ValueError at once if they do not fit the task.

    for episode in read_dqn_replay(Path("dqn/Pong/1/replay_logs"), tasks, known=store.known):
        ...

    Without `task`, a folder's name must contain the game; the task is the one that shows 84x84 grey
    frames (`atari84/pong`). Actions, which count a game's own buttons, become those of all 18. An
    episode that runs on into the next checkpoint is cut there. Rewards are clipped to [-1, 1] and a
    quarter of the actions was repeated (sticky): `info` says so. If all of a checkpoint's episodes
    are known, none of its frames are read; otherwise those before the first new one are skipped.
    """
    checkpoints = find_checkpoints(path)
    if not checkpoints:
        raise ValueError(f"{path} holds no checkpoints of the DQN replay data set; {FORMAT}")
    found = task or guess_task(
        [folder.name for folder in (path.absolute(), *path.absolute().parents)], tasks
    )
    if found is None:
        names = [folder.name for folder in (path.absolute(), *path.absolute().parents)][:3]
        raise unknown_task(
            str(path), tasks, names, " from the names of its folders, which say the game"
        )
    shape = frame_shape(checkpoints[0])
    fitting = of_frame_size(found, tasks, (*shape, 3))
    if task not in (None, fitting):
        raise ValueError(
            f"the frames of {path} are those of task {fitting.name}, not of {found.name}; pass that"
            " --task"
        )
    found = fitting
    specs = [(name, spec) for name, spec in found.observations.items() if spec.kind is Kind.IMAGE]
    if len(found.observations) != 1 or len(specs) != 1 or specs[0][1].shape != (*shape, 3):
        wanted = {name: spec.shape for name, spec in found.observations.items()}
        raise ValueError(
            f"{path} shows grey frames of {shape[0]}x{shape[1]}, task {found.name} {wanted}; "
            "pass a task that shows such frames, in three channels"
        )
    comparison = compare(
        EnvDescription(
            where=str(path), env_id=found.env_id, kwargs={"frameskip": 4},
            # The data set exists only with these conventions, so they are noted and not rejected.
            sticky=float(found.env_kwargs.get("sticky", 0.0)), traits=(CONVENTIONS,),
        ),
        found, defaults=options.defaults, allowed=options.allowed,
    )  # fmt: skip
    comparison.require()
    plan = _Plan(
        converter=Converter(task=found, comparison=comparison, allowed=options.allowed),
        image=specs[0][0],
        buttons=minimal_buttons(found),
        name=_stream_name(path),
    )
    notes = [
        *comparison.notes,
        f"assumed: actions count the game's own {len(plan.buttons)} buttons",
    ]
    return Reading(
        _episodes(checkpoints, plan, known), total=None, report=Report(task=found.name, notes=notes)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is known before the first episode is read."""

    converter: Converter
    image: str
    buttons: tuple[int, ...]
    name: str


def _stream_name(path: Path) -> str:
    """`Pong-1` of `dqn/Pong/1/replay_logs`."""
    parts = [part for part in path.absolute().parts if part != "replay_logs"]
    return "-".join(parts[-2:])


def _episodes(checkpoints: list[Checkpoint], plan: _Plan, known: Known) -> Iterator[Attempt | None]:
    for checkpoint in checkpoints:
        steps = read_steps(checkpoint)
        num_steps = len(steps.actions) - (len(steps.actions) == CAPACITY_STEPS)
        ends = [int(last) + 1 for last in np.flatnonzero(steps.terminals[:num_steps])]
        ends = [*ends, num_steps] if ends[-1:] != [num_steps] and num_steps else ends
        digest = content_digest(*checkpoint.files.values())
        # not the folder's name: data that was moved is the same data
        name = f"{plan.converter.task.name}.{checkpoint.number}"
        keys = [episode_key("dqn", name, digest, index) for index in range(len(ends))]
        wanted = [not known(key) for key in keys]
        if not any(wanted):
            yield from (None for _ in keys)
            continue
        yield from _read(checkpoint, plan, steps, list(zip(keys, ends, wanted, strict=True)))


def _read(
    checkpoint: Checkpoint, plan: _Plan, steps: Steps, spans: list[tuple[str, int, bool]]
) -> Iterator[Attempt | None]:
    """The episodes of a checkpoint: key, one past its last step, and whether it is wanted."""
    frames = Frames(checkpoint.files["observation"], num_steps=len(steps.actions))
    try:
        start = 0
        for key, stop, is_wanted in spans:
            what = f"checkpoint {checkpoint.number} of {plan.name}, steps {start} to {stop}"
            make = partial(_episode, checkpoint, plan, steps, frames, key, what, start, stop)
            yield Attempt(what=what, make=make) if is_wanted else None
            start = stop
    finally:
        frames.close()


def _episode(
    checkpoint: Checkpoint,
    plan: _Plan,
    steps: Steps,
    stream: Frames,
    key: str,
    what: str,
    start: int,
    stop: int,
) -> Episode | None:
    """None for padding before an episode."""
    frames = stream.read(start, min(stop, start + PADDING_STEPS + plan.converter.task.max_steps))
    blank_T = [
        not (frame.any() or steps.actions[start + step] or steps.rewards[start + step])
        for step, frame in enumerate(frames[:PADDING_STEPS])
    ]
    padding = [*blank_T, False].index(False)
    first = start + padding
    if first == stop:
        return None
    terminated = bool(steps.terminals[stop - 1])
    info = {
        "conventions": CONVENTIONS,
        "actions": f"the {len(plan.buttons)} buttons of the game, as those of all 18",
        "file": checkpoint.files["observation"].name,
    }
    if start == 0 and checkpoint.number > 0:
        info["begins"] = "where the checkpoint before was written: as a rule in the midst of a game"
    return plan.converter.episode(
        key=key,
        source=f"file:{plan.name}",
        what=what,
        observations={plan.image: frames[padding:][: plan.converter.task.max_steps]},
        actions=to_all_buttons(steps.actions[first:stop], plan.buttons, f"actions of {what}"),
        rewards=steps.rewards[first:stop],
        terminated=terminated,
        truncated=not terminated,
        info=info,
    )
