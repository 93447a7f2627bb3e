"""The door: what is handed in becomes a checked record, or is refused with a reason that can be
counted."""

from __future__ import annotations

from collections.abc import Mapping

from gato.episode import BadEpisode, episode_from_bytes
from gato.task import Task
from replay.shards import shard_of
from replay.storage.record import MAGIC, Record, check_record, pack, record_from_bytes

MAX_REASON = 500
"""Letters of a reason; the episodes that are refused say what they like, at any length."""
KINDS = {
    "not an episode": "damaged", "damaged": "damaged", "not finite": "not finite", "shape": "wrong shape",
    "longer than the task": "too many steps", "cannot be believed": "rewards not believable", "dtype": "wrong dtype", "observes": "wrong observations", "outside": "values out of range", "too large": "too large",
}  # fmt: skip
"""A word of the reason, and the kind under which refusals are counted."""


class Refused(ValueError):
    """An episode that is not taken."""

    def __init__(self, kind: str, reason: str = "") -> None:
        super().__init__(f"{kind}: {reason[:MAX_REASON]}" if reason else kind)
        self.kind = kind


class Door:
    """Of one shard.

    door = Door(tasks, max_episode_bytes=1 << 30, shard=0, num_shards=1)
    record = door.checked(data)          # Refused where it is none of this shard's episodes
    """

    def __init__(
        self, tasks: Mapping[str, Task], *, max_episode_bytes: int, shard: int, num_shards: int
    ) -> None:
        self._tasks = tasks
        self._max_episode_bytes = max_episode_bytes
        self._shard, self._num_shards = shard, num_shards

    def checked(self, data: bytes) -> Record:
        """The record of what was sent, past all checks. Refused with the reason."""
        if len(data) > self._max_episode_bytes:
            raise Refused(
                "too large",
                f"an episode of {len(data):,} bytes, at most {self._max_episode_bytes:,} are taken;"
                " raise max_episode_bytes or cut it",
            )
        try:
            record = (
                record_from_bytes(data) if data[:4] == MAGIC else pack(episode_from_bytes(data))
            )
            task = self._tasks.get(record.header.task)
            if task is None:
                raise Refused("unknown task")
            record = check_record(record, task)
        except BadEpisode as problem:
            kind = next(
                (kind for word, kind in KINDS.items() if word in str(problem)), "bad episode"
            )
            raise Refused(kind, str(problem)) from problem
        home = shard_of(record.header.key, self._num_shards)
        if home != self._shard:  # here its number would be taken for another's
            raise Refused(
                "wrong shard", f"{record.header.key} is shard {home}'s, this is {self._shard}"
            )
        return record
