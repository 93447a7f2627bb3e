"""Alphabets: which characters the texts of a data set have, so that a run that cannot write one of
them says so before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actors.tasks.options import named, split_name
from actors.tasks.resolve import resolve_task
from actors.tasks.text_encoder import unknown_in
from gato.array_spec import Kind
from gato.episode import Episode
from gato.task import TEXT, Task
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
        self._longest_shown: dict[str, dict[str, str]] = {
            task: dict(known.get("longest_shown", {})) for task, known in before.items()
        }
        """By task and observation."""

    def add(self, episode: Episode, task: Task) -> None:
        """Count an episode; one of a task that writes no text has none."""
        if not task.writes_text:
            return
        known = self._example.setdefault(task.name, {})
        for row in episode.actions:
            text = bytes_to_text(row)
            self._longest[task.name] = _longer(self._longest.get(task.name, ""), text)
            for character in set(text) - known.keys():
                if len(known) < MOST_CHARACTERS:
                    known[character] = _around(text, character)
        shown = self._longest_shown.setdefault(task.name, {})
        for name, spec in task.observations.items():
            if spec.kind is Kind.TEXT:
                for row in episode.observations[name]:
                    shown[name] = _longer(shown.get(name, ""), bytes_to_text(row))

    def to_json(self) -> dict[str, Any]:
        """All counts, for the constructor."""
        return {
            task: {
                "characters": known,
                "longest": self._longest.get(task, ""),
                "longest_shown": self._longest_shown.get(task, {}),
            }
            for task, known in self._example.items()
        }


def _longer(one: str, other: str) -> str:
    """The text of more bytes; the first of equals."""
    return other if len(other.encode()) > len(one.encode()) else one


def _around(text: str, character: str) -> str:
    """What stands around the first place of a character."""
    at = text.index(character)
    return text[max(0, at - 40) : at + 40]


def require_writable(name: str, alphabets: Mapping[str, Any], encoder: TextEncoder) -> None:
    """Raises ValueError if a text of data set `name` has a character that the encoder does not
    know: no model could write it."""
    for task, known in alphabets.items():
        characters = known["characters"]
        # In its text as well: some characters are composed with the one before, as an accent.
        alone = unknown_in(encoder, list(characters))
        missing = [c for c in alone if unknown_in(encoder, [characters[c]])]
        if missing:
            example = characters[missing[0]]
            raise ValueError(
                f"an answer of data set {name} is outside of the text model's vocabulary:"
                f" {example!r} of {task} has {_listed(missing)}, which it has no piece for; give a"
                " model with byte fallback, or --text bytes"
            )


def cut_notes(alphabets: Mapping[str, Any], encoder: TextEncoder) -> Iterable[str]:
    """A line for each text of a task of which the longest has more tokens than there is room
    for."""
    for name, known in alphabets.items():
        task = resolve_task(name)
        if not task.writes_text:
            continue
        written = "text" if task.family == TEXT else "answer"
        longest = {written: (known["longest"], task.action.num_tokens)} | {
            shown: (text, task.observations[shown].num_tokens)
            for shown, text in known.get("longest_shown", {}).items()
        }
        for what, (text, room) in longest.items():
            tokens = len(encoder.encode(text))
            if tokens > room:
                base, options = split_name(name)
                wider = named(base, {**options, f"{what}_tokens": str(tokens)})
                yield (
                    f"{name}: the longest {what} has {tokens} tokens and is cut after {room};"
                    f" import it with --task '{wider}' to keep it"
                )


def _listed(characters: Sequence[str]) -> str:
    shown = ", ".join(repr(character) for character in characters[:3])
    return shown + (f" and {len(characters) - 3} more" if len(characters) > 3 else "")
