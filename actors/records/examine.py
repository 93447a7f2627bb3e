"""Examination: a player answers held-out records, each an episode of one step.

Shape letters: N records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Shaped

from actors.envs.env import EnvFailedError
from actors.players.player import Player, TimeStep
from actors.records.marks import BITS, BYTES, GIVEN, KIND, WANTED, kind_of
from actors.records.source import RecordSource
from gato.array_spec import Kind
from gato.episode import AGENT, SUCCESS, Episode
from gato.scaling import scale
from gato.sequence import Window
from gato.task import CAPTIONS, TEXT, VQA, Task
from gato.text import bytes_to_text, plain_text
from gato.version import Version

MOST_RECORDS = 2048
"""Held-out records of a task that an evaluator keeps in memory."""
ROWS = 32
"""Records that are answered together."""


@runtime_checkable
class Examinee(Player, Protocol):
    """A player that also says how likely a text is to it."""

    def text_bits(
        self,
        observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
        texts: Shaped[np.ndarray, "N b"],
    ) -> Float[np.ndarray, " N"]:
        """Bits of each text after its observations."""
        ...

    def measured_bytes(self, texts: Shaped[np.ndarray, "N b"]) -> Int[np.ndarray, " N"]:
        """Bytes of each text that `text_bits` covers."""
        ...


class Examiner:
    """Examines players on the held-out records of tasks, which it asks for once, unless an
    evaluation is of more records than there ever were."""

    def __init__(self, source: RecordSource) -> None:
        self._source = source
        self._records: dict[str, Window] = {}
        self._asked: dict[str, int] = {}

    def examine(
        self,
        task: Task,
        player: Player,
        seeds: Sequence[int],
        *,
        version: Version | None,
        beat: Callable[[], None],
    ) -> Iterator[Episode]:
        """See `examine`. Raises EnvFailedError if nothing is held out, or the player does not tell
        how likely a text is."""
        if not isinstance(player, Examinee):
            raise EnvFailedError(
                f"records of {task.name} need actors.inference=worker: an inference process does"
                " not tell how likely a text is"
            )
        most = max(MOST_RECORDS, len(seeds))
        if self._asked.get(task.name, 0) < most:
            found = self._source.held_out(task.name, most)
            if found is None:
                raise EnvFailedError(
                    f"no record of {task.name} is held out to evaluate on; import data that has a"
                    " test split, or more of it"
                )
            self._records[task.name] = found
            self._asked[task.name] = most
        return examine(task, self._records[task.name], player, seeds, version=version, beat=beat)


def examine(
    task: Task,
    records: Window,
    player: Examinee,
    seeds: Sequence[int],
    *,
    version: Version | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Iterator[Episode]:
    """Ask one record for each seed, `seed` modulo their number; yield what was answered.

    The return of an answer or a caption is 1 if it is exactly what was recorded, else 0. That of a
    passage is the negative of its bits per byte; that of a robot's action the negative of its mean
    distance from the recorded one, on a scale of 2 from bound to bound.

    Args:
        records: One a step: what is shown, and what was recorded for it.
        player: Of `ROWS` rows.
        beat: Called after each group of records.
    """
    number = len(records.actions)
    for start in range(0, len(seeds), ROWS):
        asked = seeds[start : start + ROWS]
        # A last group with fewer records is filled up with its first; those answers are not used.
        which = np.array(
            [seed % number for seed in asked] + [asked[0] % number] * (ROWS - len(asked))
        )
        shown = {name: values[which] for name, values in records.observations.items()}
        wanted = records.actions[which]
        answers = wanted
        if task.family != TEXT:
            rows = TimeStep.first(shown, seeds=[*asked, *[asked[0]] * (ROWS - len(asked))])
            answers = player.act(rows)
        notes: list[dict[str, str]] = [{} for _ in asked]
        if task.writes_text:
            bits, sizes = player.text_bits(shown, wanted), player.measured_bytes(wanted)
            for note, bit, size in zip(notes, bits.tolist(), sizes.tolist(), strict=False):
                note |= {BITS: repr(bit), BYTES: str(size)}
        for place, seed in enumerate(asked):
            score, said = _score(task, answers[place], wanted[place], notes[place])
            yield Episode(
                key=f"{task.name}.{seed}",
                task=task.name,
                source=AGENT,
                observations={name: values[place : place + 1] for name, values in shown.items()},
                actions=answers[place : place + 1],
                rewards=np.array([score], np.float32),
                terminated=True,
                truncated=False,
                seed=seed,
                version=version,
                info=notes[place] | said,
            )
        beat()


def _score(
    task: Task,
    answer: Shaped[np.ndarray, ...],
    wanted: Shaped[np.ndarray, ...],
    note: Mapping[str, str],
) -> tuple[float, dict[str, str]]:
    """The return of one record, and what its info says of the answer."""
    if task.family == TEXT:
        return -float(note[BITS]) / max(1, int(note[BYTES])), {}
    if task.family in (VQA, CAPTIONS):
        given, right = bytes_to_text(answer), bytes_to_text(wanted)
        is_right = plain_text(given) == plain_text(right)
        kind = kind_of(right) if task.family == VQA else "exact"
        return float(is_right), {
            KIND: kind,
            WANTED: right,
            GIVEN: given,
            SUCCESS: "yes" if is_right else "no",
        }
    if task.action.kind is Kind.CONTINUOUS:
        pair = np.stack([answer, wanted]).reshape(2, -1)
        given, right = scale(pair, task.action)
        return -float(np.abs(given - right).mean()), {}
    return float((answer == wanted).all()), {}
