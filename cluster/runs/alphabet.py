"""Alphabets: which characters the texts of a data set have, so that a run that cannot write one of
them says so before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actors.tasks.resolve import resolve_task
from actors.tasks.text_encoder import unknown_in
from gato.episode import Episode
from gato.task import Task
from gato.text import TextEncoder, bytes_to_text

MOST_CHARACTERS = 8192
"""Of one task; those beyond are not kept."""


class Alphabets:
    """Counts the characters of what is to be written, by task.

    alphabets = Alphabets(about.get("alphabets", {}))
    alphabets.add(episode, task)
    about["alphabets"] = alphabets.to_json()
    """

    def __init__(self, before: Mapping[str, Any]) -> None:
        """`before`: what an earlier import of the same data set kept."""
        self._example: dict[str, dict[str, str]] = {
            task: dict(known["characters"]) for task, known in before.items()
        }
        """By task and character, the first text that has it."""
        self._longest: dict[str, str] = {task: known["longest"] for task, known in before.items()}

    def add(self, episode: Episode, task: Task) -> None:
        """Count an episode; one of a task that writes no text has none."""
        if not task.writes_text:
            return
        known = self._example.setdefault(task.name, {})
        for row in episode.actions:
            text = bytes_to_text(row)
            if len(text.encode()) > len(self._longest.get(task.name, "").encode()):
                self._longest[task.name] = text
            for character in set(text) - known.keys():
                if len(known) < MOST_CHARACTERS:
                    known[character] = text[:80]

    def to_json(self) -> dict[str, Any]:
        """All counts, for the constructor."""
        return {
            task: {"characters": known, "longest": self._longest.get(task, "")}
            for task, known in self._example.items()
        }


def require_writable(name: str, alphabets: Mapping[str, Any], encoder: TextEncoder) -> None:
    """Raises ValueError if a text of data set `name` has a character that the encoder does not
    know: no model could write it."""
    for task, known in alphabets.items():
        characters = known["characters"]
        missing = unknown_in(encoder, list(characters))
        if missing:
            example = characters[missing[0]]
            raise ValueError(
                f"an answer of data set {name} is outside of the text model's vocabulary:"
                f" {example!r} of {task} has {_listed(missing)}, which it has no piece for; give a"
                " model with byte fallback, or --text bytes"
            )


def cut_notes(alphabets: Mapping[str, Any], encoder: TextEncoder) -> Iterable[str]:
    """A line for each task whose longest text has more tokens than the task has room for."""
    for name, known in alphabets.items():
        task = resolve_task(name)
        tokens = len(encoder.encode(known["longest"]))
        if task.writes_text and tokens > task.action.num_tokens:
            yield (
                f"{name}: texts of more than {task.action.num_tokens} tokens are cut, the longest"
                f" has {tokens}; import it with --task"
                f" '{name.partition('?')[0]}?answer_tokens={tokens}' to keep them"
            )


def _listed(characters: Sequence[str]) -> str:
    shown = ", ".join(repr(character) for character in characters[:3])
    return shown + (f" and {len(characters) - 3} more" if len(characters) > 3 else "")
