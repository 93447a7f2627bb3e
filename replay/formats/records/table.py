"""Parquet with text, or with images and text, one row a document or an image: captions, questions
and their answers, plain text. JAT's oscar, wikipedia, conceptual-captions and ok-vqa are of this
form.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gato.array_spec import Kind
from gato.episode import BadEpisode, Episode
from gato.task import CAPTIONS, TEXT, VQA, Task
from gato.text import plain_text
from replay.formats import parquet
from replay.formats.reader import FindTask, Known, Reading, Report, nothing_known
from replay.formats.records.build import fit_image, image_files, records_episode
from replay.formats.records.passages import cut_passages
from replay.formats.records.split import FEW, Split, is_test_file, number_of

IMAGES = ("image", "images", "img")
QUESTIONS = ("question", "questions")
ANSWERS = ("multiple_choice_answer", "answer", "answers")
TEXTS = ("text", "texts", "caption", "captions")
ASKED = re.compile(r"\s*(?:Q|Question):\s*(?P<question>.+)\s(?:A|Answer):\s*(?P<answer>.+)", re.S)
"""A question and its answer in one text, as JAT's ok-vqa has them. The last "A:" begins the
answer."""


def holds_records(names: Collection[str]) -> bool:
    """Whether a Parquet file with these columns holds text or images with text."""
    has_answers = bool(_first(QUESTIONS, names)) and bool(_first(ANSWERS, names))
    return "rewards" not in names and (has_answers or bool(_first(TEXTS, names)))


def _first(wanted: Sequence[str], names: Collection[str]) -> str:
    return next((name for name in wanted if name in names), "")


def read_table(
    path: Path, task: Task | None, *, name: str, known: Known, find_task: FindTask
) -> Reading:
    """The records of a Parquet file, or of all in a folder.

    Raises:
        ValueError: at once, if the columns are not of a form that is read, or of another task.
    """
    files, names = parquet.find_files(path), parquet.column_names(path)
    plan = _Columns(
        image=_first(IMAGES, names),
        question=_first(QUESTIONS, names) if _first(ANSWERS, names) else "",
        text=(_first(QUESTIONS, names) and _first(ANSWERS, names)) or _first(TEXTS, names),
    )
    total = parquet.num_rows(files)
    if not total:
        raise ValueError(f"{path} is empty: it holds no rows")
    family = _family(plan, files)
    task = task or find_task(f"{family}/{name}")
    if task.family != family:
        raise ValueError(
            f"{path} holds {_SAYS[family]}; task {task.name} is of family {task.family!r}; pass"
            f" --task {family}/NAME"
        )
    tests = {file for file in files if is_test_file(file, path)}
    has_test = 0 < len(tests) < len(files)
    unread = sorted(set(names) - set(plan.names))
    report = Report(
        task=task.name,
        notes=[
            f"columns {', '.join(plan.names)}"
            + (f"; not read: {', '.join(unread)}" * bool(unread)),
            "held out for evaluations: "
            + (
                "the files named test or validation"
                if has_test
                else f"one {'image' if plan.image else 'row'} in 20"
            ),
        ],
    )
    is_few = not has_test and total <= FEW
    split = Split(_numbers(plan, files) if is_few else ())
    held_out = partial(_held_out, tests if has_test else None, split)
    make = partial(_episode, plan, task, name, path, held_out)
    rows = parquet.rows(files, family, plan.names, known)
    return Reading(parquet.attempts(rows, make), total=total, report=report)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """The columns that are read; empty for those that are not there."""

    image: str
    question: str
    text: str

    @property
    def names(self) -> list[str]:
        return [name for name in (self.image, self.question, self.text) if name]


_SAYS = {
    VQA: "questions about images",
    CAPTIONS: "images with captions",
    TEXT: "plain text",
}


def _family(plan: _Columns, files: Sequence[Path]) -> str:
    """The family of the records, by the columns and the first row that can be read."""
    if plan.question and not plan.image:
        raise ValueError(
            f"{files[0]} holds questions ({plan.question}) without images; expected a column"
            f" {' or '.join(IMAGES)} with them"
        )
    if not plan.image:
        return TEXT
    if plan.question:
        return VQA
    for row in islice(parquet.rows(files, "look", [plan.text], nothing_known), parquet.LOOKED_AT):
        with suppress(BadEpisode):  # a bad row is counted when all are read
            texts = [] if row.problem else _strings(_value(row, plan.text), row.where, plan.text)
            if texts:
                return VQA if all(map(ASKED.fullmatch, texts)) else CAPTIONS
    return CAPTIONS


def _held_out(
    tests: Collection[Path] | None, split: Split, row: parquet.Row, content: bytes
) -> bool:
    return split.holds_out(number_of(content)) if tests is None else row.file in tests


def _numbers(plan: _Columns, files: Sequence[Path]) -> Iterator[int]:
    """Of each row, for the split; a bad row has none."""
    column = plan.image or plan.text
    for row in parquet.rows(files, "look", [column], nothing_known):
        with suppress(BadEpisode, pa.ArrowException):
            if not row.problem:
                yield number_of(_content(plan, _value(row, column), row.where))


def _content(plan: _Columns, value: Any, what: str) -> bytes:
    """What decides whether a row is held out: its images, or else its texts."""
    if plan.image:
        return b"".join(image_files(value, what))
    return "\0".join(_strings(value, what, plan.text)).encode(errors="replace")


def _value(row: parquet.Row, column: str) -> Any:
    try:
        return row.values.column(column)[0].as_py()
    except UnicodeDecodeError as problem:
        raise BadEpisode(
            f"{row.where}: {column} is not UTF-8: {problem.reason} at byte {problem.start}"
        ) from problem


def _strings(value: Any, what: str, column: str) -> list[str]:
    """A text, or a list of texts."""
    values = value if isinstance(value, list) else [value]
    if value is None or not all(isinstance(text, str) for text in values):
        raise BadEpisode(f"{what}: {column} is not text")
    return values


def _answer(value: Any, what: str, column: str) -> str:
    """The answer to one question: the one that is given most often, if several people answered."""
    values = value if isinstance(value, list) else [value]
    said = [each.get("answer") if isinstance(each, Mapping) else each for each in values]
    if not said:
        raise BadEpisode(f"{what}: {column} is empty, expected an answer")
    texts = _strings(said, what, column)
    most = Counter(map(plain_text, texts)).most_common(1)[0][0]
    return next(text for text in texts if plain_text(text) == most)


def _episode(
    plan: _Columns,
    task: Task,
    name: str,
    path: Path,
    held_out: partial[bool],
    row: parquet.Row,
) -> Episode:
    what = row.where
    try:
        value = _value(row, plan.text)
        questions = None
        if plan.question:
            asked = _value(row, plan.question)
            questions = _strings(asked, what, plan.question)
            # One question has one answer, however many people gave one.
            answers = (
                _strings(value, what, plan.text)
                if isinstance(asked, list)
                else [_answer(value, what, plan.text)]
            )
        else:
            answers = _strings(value, what, plan.text)
        if task.family == VQA and questions is None:
            questions, answers = _split(answers, what)
        content = _content(plan, _value(row, plan.image or plan.text), what)
        if task.family == TEXT:
            answers = [p for t in answers for p in cut_passages([t], task.action.shape[0])]
            if len(answers) > task.max_steps:
                raise BadEpisode(
                    f"{what} has {len(answers):,} passages, more than {task.max_steps:,}; save a"
                    " text that is so long as a .txt file, which is read in parts"
                )
        images = None
        if plan.image:
            spec = next(s for s in task.observations.values() if s.kind is Kind.IMAGE)
            files = image_files(_value(row, plan.image), what)
            images = np.stack([fit_image(data, spec, f"{what}: {plan.image}") for data in files])
    except pa.ArrowException as problem:
        raise BadEpisode(f"{what} is damaged: {problem}") from problem
    return records_episode(
        task,
        key=row.key,
        name=name,
        is_held_out=held_out(row, content),
        what=what,
        images=images,
        questions=questions,
        answers=answers,
        info={"file": parquet.shown(row.file, path)},
    )


def _split(texts: Sequence[str], what: str) -> tuple[list[str], list[str]]:
    found = [ASKED.fullmatch(text) for text in texts]
    pairs = [(match["question"], match["answer"]) for match in found if match is not None]
    if len(pairs) < len(texts):
        raise BadEpisode(f"{what}: a text that is no question with its answer (Q: ... A: ...)")
    return [question for question, _ in pairs], [answer for _, answer in pairs]
