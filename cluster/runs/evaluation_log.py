"""The episodes of an evaluation, kept one by one as they end, so that an evaluation that was ended
goes on."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from gato.acting.config import ActingConfig
from gato.episode import Episode
from gato.serialization import to_plain

FOLDER = "evaluations"
"""In a run's folder: a file for each checkpoint."""


@dataclass(frozen=True, slots=True)
class Played:
    """An episode that was kept."""

    episode_return: float
    success: bool | None
    """Whether it solved the task; None if its environment does not say."""


@final
class EvaluationLog:
    """A file with a line of JSON for each episode.

    log = EvaluationLog(run / "evaluations" / "step-000000100.jsonl", checkpoint)
    log.known("mujoco/hopper", acting)     # {seed: Played}
    log.add(episode, acting)

    An episode counts only for the checkpoint and the way of acting that it was played with.
    """

    def __init__(self, file: Path, checkpoint: Path, *, resume: bool) -> None:
        """Args:
        file: Made if it is missing.
        checkpoint: The folder of what is evaluated.
        resume: Go on with the file. If not, begin a new one; the old one is renamed.

        Raises:
            ValueError: The folder cannot be written.
        """
        self.file = file
        self._checkpoint = (checkpoint / "checkpoint.json").read_bytes()
        try:
            file.parent.mkdir(exist_ok=True)
            if file.is_file() and not resume:
                os.replace(file, file.with_suffix(".before.jsonl"))
            self._rows = _rows_in(file)
            self._out = file.open("a", encoding="utf-8")
        except OSError as problem:
            raise ValueError(
                f"cannot write {file} ({problem.strerror}), which keeps each episode; make its"
                " folder writable"
            ) from problem
        if file.stat().st_size and not file.read_bytes().endswith(b"\n"):
            self._out.write("\n")  # a line was cut off when its process was killed

    def known(self, task: str, acting: ActingConfig) -> dict[int, Played]:
        """The episodes that are in the file, by seed."""
        name = self._id(acting)
        return {
            row["seed"]: Played(row["return"], row.get("success"))
            for row in self._rows
            if row["task"] == task and row["of"] == name
        }

    def add(self, episode: Episode, acting: ActingConfig) -> None:
        """Append an episode; it outlives a kill of this process."""
        row = {
            "task": episode.task,
            "seed": episode.seed,
            "return": episode.episode_return,
            "success": episode.success,
            "steps": episode.num_steps,
            "of": self._id(acting),
        }
        self._out.write(json.dumps(row) + "\n")
        self._out.flush()

    def close(self) -> None:
        self._out.close()

    def _id(self, acting: ActingConfig) -> str:
        """Names checkpoint and settings: a later checkpoint may have the same folder."""
        settings = json.dumps(to_plain(acting), sort_keys=True).encode()
        return f"{zlib.crc32(self._checkpoint + settings):08x}"


def _rows_in(file: Path) -> list[dict[str, Any]]:
    """The whole lines; damaged ones are left out, and played again."""
    if not file.is_file():
        return []
    rows: list[dict[str, Any]] = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            if {"task", "seed", "return", "of"} <= row.keys():
                rows.append(row)
        except (ValueError, AttributeError):
            continue
    return rows
