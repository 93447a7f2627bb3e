"""Ingest: the bytes that a writer sent become a checked record, or are rejected with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from gato.array_spec import ArraySpec
from gato.episode import MAX_STEPS, BadEpisode, check_arrays, check_key
from gato.task import Task
from replay.shards import shard_of
from replay.storage.header import DamagedEpisode, Header
from replay.storage.record import Record, chunk_steps, open_value, record_from_bytes

MAX_REASON = 500
"""Characters of a reason. A rejected episode may contain texts of any length."""
MAX_VERSION = 1 << 53
"""Epochs and numbers of versions are below, so that they and their differences fit the index's
columns."""
REWARDS = ("<f4", ())
"""dtype and shape of one step of the rewards."""
KINDS = {
    "not an episode": "damaged",
    "damaged": "damaged",
    "not finite": "not finite",
    "is not UTF-8": "text not UTF-8",
    "shape": "wrong shape",
    "longer than the task": "too many steps",
    "cannot be believed": "rewards not believable",
    "dtype": "wrong dtype",
    "observes": "wrong observations",
    "outside": "values out of range",
    "too large": "too large",
}
"""A word of the reason, and the kind under which such episodes are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """The answer to a writer."""

    status: Literal["stored", "duplicate", "rejected", "wait"]
    """stored: durable, as the setting `durability` says. duplicate: stored before. rejected: see
    `reason`. wait: writers are held back; send it again."""
    reason: str = ""


class Rejected(ValueError):
    """An episode that replay does not accept."""

    def __init__(self, kind: str, reason: str = "") -> None:
        super().__init__(f"{kind}: {reason[:MAX_REASON]}" if reason else kind)
        self.kind = kind


class Ingest:
    """The checks of one shard, on everything that is inserted. It has no state.

    ingest = Ingest(tasks, max_episode_bytes=1 << 30, shard=0, num_shards=1)
    record = ingest.record(data)
    """

    def __init__(
        self, tasks: Mapping[str, Task], *, max_episode_bytes: int, shard: int, num_shards: int
    ) -> None:
        self._tasks = tasks
        self._max_episode_bytes = max_episode_bytes
        self._shard, self._num_shards = shard, num_shards

    def record(self, data: bytes) -> Record:
        """Parse and check a record.

        The header is parsed once and its key split once; checksums, sizes and values are checked
        on the arrays. It takes the memory of one chunk besides `data`, whatever the header claims.

        Returns:
            The record with its return recomputed from the rewards; its values are views of `data`.

        Raises:
            Rejected: if it is too large, damaged, of another shard, or contradicts its task.
        """
        if len(data) > self._max_episode_bytes:
            raise Rejected(
                "too large",
                f"an episode of {len(data):,} bytes, expected at most {self._max_episode_bytes:,};"
                " raise max_episode_bytes or cut it",
            )
        try:
            record = record_from_bytes(data)
            task = self._tasks.get(record.header.task)
            if task is None:
                raise Rejected("unknown task")
            record = check_record(record, task)
        except BadEpisode as problem:
            kind = next(
                (kind for word, kind in KINDS.items() if word in str(problem)), "bad episode"
            )
            raise Rejected(kind, str(problem)) from problem
        home = shard_of(record.key, self._num_shards)
        if home != self._shard:  # this shard would take its number for that of another episode
            raise Rejected(
                "wrong shard",
                f"{record.header.key} belongs to shard {home}, this is shard {self._shard}",
            )
        return record


def check_record(record: Record, task: Task) -> Record:
    """Check the header and all values of a record against its task.

    Returns:
        The record with its return recomputed from the rewards.

    Raises:
        BadEpisode: with the reason.
    """
    header = record.header
    # 1. The header alone: cheap, and everything below relies on it.
    _check_texts_and_version(header)
    check_key(header.key)
    if not 1 <= header.steps <= MAX_STEPS:
        raise BadEpisode(
            f"episode {header.key} has {header.steps} steps, expected 1 to {MAX_STEPS}"
        )
    specs = {f"o/{name}": spec for name, spec in task.observations.items()}
    shown = {name for name in header.columns if name.startswith("o/")}
    if shown != set(specs):
        raise BadEpisode(
            f"episode {header.key} observes {sorted(n[2:] for n in shown)}, task {task.name}"
            f" {sorted(task.observations)}"
        )
    specs |= {"actions": task.action, "labels": task.action}
    # 2. Each column: its layout before any memory is taken, then its values.
    arrays: dict[str, np.ndarray] = {}
    num_values = 0
    for index, (name, (dtype, shape)) in enumerate(header.columns.items()):
        spec = specs.get(name)
        expected = REWARDS if spec is None else (spec.dtype.str, spec.shape)
        _check_layout(header, name, (dtype, shape), expected)
        num_values += -(-header.steps // chunk_steps(dtype, shape, header.steps))
        if num_values > len(record.values):
            raise BadEpisode(
                f"episode {header.key} claims {header.steps} steps, it is damaged or a value is"
                " missing"
            )
        arrays[name] = _column(record, index, name, spec)
    if num_values != len(record.values) or not {"actions", "rewards"} <= set(arrays):
        raise BadEpisode(
            f"episode {header.key} is damaged: it has {sorted(arrays)} in {len(record.values)}"
            " values"
        )
    # 3. All columns together: limits of the task, bounds of actions, rewards and return.
    episode_return = check_arrays(
        header.key,
        task,
        observations={name[2:]: arrays[name] for name in shown},
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        labels=arrays.get("labels"),
    )
    return replace(record, header=replace(header, episode_return=episode_return))


def _column(
    record: Record, index: int, name: str, spec: ArraySpec | None
) -> Shaped[np.ndarray, "T ..."]:
    """One column [T, *shape], every checksum compared. Of a column in several chunks, only the
    first step of the last chunk is in memory, repeated."""
    header = record.header
    dtype, shape = header.columns[name]
    each = chunk_steps(dtype, shape, header.steps)
    num_chunks = -(-header.steps // each)
    try:
        opened = open_value(record.values[index, 0], dtype, shape, min(each, header.steps))
        if num_chunks == 1:
            return opened
        for chunk in range(num_chunks):
            if chunk:
                steps = min(each, header.steps - chunk * each)
                opened = open_value(record.values[index, chunk], dtype, shape, steps)
            # Each chunk is checked here, so that one step may stand for all of them below.
            problem = spec.problem_with(opened, name) if spec else None
            if problem:
                raise BadEpisode(
                    f"episode {header.key} of {header.task}: {problem} of chunk {chunk}"
                )
    except (DamagedEpisode, KeyError) as problem:
        raise BadEpisode(
            f"episode {header.key} of {header.task}: {name} is damaged: {problem}"
        ) from problem
    return np.broadcast_to(opened[:1, ...], (header.steps, *shape))


def _check_texts_and_version(header: Header) -> None:
    try:
        "".join(
            [header.key, header.task, header.source, *header.info, *header.info.values()]
        ).encode()
    except UnicodeEncodeError as problem:
        raise BadEpisode(
            f"episode {header.key!r} is damaged: a text of its header is not UTF-8: {problem}"
        ) from problem
    if header.version is not None and not all(0 <= part < MAX_VERSION for part in header.version):
        raise BadEpisode(f"episode {header.key} is damaged: its version is {header.version}")


def _check_layout(
    header: Header,
    name: str,
    layout: tuple[str, tuple[int, ...]],
    expected: tuple[str, tuple[int, ...]],
) -> None:
    """Reject a column whose dtype or shape differs from the task's, before memory is taken for it.

    dtypes are compared as they are written: NumPy accepts texts that are no dtype of numbers.
    """
    if expected is REWARDS and name != "rewards":
        raise BadEpisode(
            f"episode {header.key} is damaged: it has a column {name}, which task {header.task}"
            " does not have"
        )
    for what, given, wanted in zip(("dtype", "shape"), layout, expected, strict=True):
        if given != wanted:
            raise BadEpisode(
                f"episode {header.key} of {header.task}: {name} has {what} {given} in each step,"
                f" expected {wanted}"
            )
