"""Questions about images in a folder, as the package easy-vqa has them.

train/ and test/ each hold questions.json, a list of [question, answer, number of the image], and
images/NUMBER.png; answers.txt beside them, where there is one, has every answer on a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gato.episode import BadEpisode, Episode
from gato.task import VQA, Task
from replay.formats.reader import Attempt, FindTask, Known, Reading, Report
from replay.formats.records.build import fit_image, records_episode
from replay.formats.records.split import FEW, Split, number_of
from replay.formats.schema import content_digest, episode_key

EASY_VQA = "easy-vqa"
"""The name that stands for the package's own data."""
PACKAGE = "easy_vqa"
SPLITS = ("train", "test")


def holds_questions(path: Path) -> bool:
    """Whether a folder has this form."""
    return (path / "train" / "questions.json").is_file()


def easy_vqa_folder() -> Path:
    """The folder of the package's data. Raises ValueError with the command that installs it."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ValueError(
            f"{EASY_VQA} needs the package {EASY_VQA}, which is not installed; pip install -e"
            " '.[easy-vqa]' -c constraints.txt in the project's folder"
        )
    return Path(spec.origin).parent / "data"


def read_questions(
    path: Path, task: Task | None, *, name: str, known: Known, find_task: FindTask
) -> Reading:
    """An episode for each image that is asked about, a step for each question; those of test/ are
    held out, or else one image in 20.

    Raises:
        ValueError: at once, if a file is damaged, or there are questions without images or images
            without questions.
    """
    task = task or find_task(f"{VQA}/{name}")
    if task.family != VQA:
        raise ValueError(f"{path} holds questions, {task.name} has none; pass --task vqa/NAME")
    splits = [_read_split(path, split) for split in SPLITS if (path / split).is_dir()]
    total = sum(len(split.asked) for split in splits)
    drawn = None
    if len(splits) == 1:
        (only,) = splits
        drawn = Split(map(only.number_of, only.asked) if total <= FEW else ())
    report = Report(
        task=task.name,
        notes=[
            f"{split.name}: {sum(map(len, split.asked.values())):,} questions about"
            f" {len(split.asked):,} images"
            + (", one image in 20 held out" if drawn else "")
            + (", held out" if split.name == "test" else "")
            for split in splits
        ],
    )
    answers = path / "answers.txt"
    allowed = (
        frozenset(line.strip() for line in _text(answers).splitlines() if line.strip())
        if answers.is_file()
        else None
    )
    attempts = _attempts(splits, drawn, task, name, allowed, known)
    return Reading(attempts, total=total, report=report)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    folder: Path
    digest: str
    asked: Mapping[int, Sequence[tuple[str, str]]]
    """Questions and answers by the number of their image."""

    @property
    def name(self) -> str:
        return self.folder.name

    def image_file(self, number: int) -> Path:
        return self.folder / "images" / f"{number}.png"

    def number_of(self, number: int) -> int:
        """Of an image, for the split."""
        return number_of(self.image_file(number).read_bytes())


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise ValueError(
            f"{file} is not UTF-8: {problem.reason} at byte {problem.start}; convert it first"
        ) from problem


def _read_split(path: Path, name: str) -> _Split:
    folder = path / name
    file = folder / "questions.json"
    try:
        rows: Any = json.loads(_text(file))
    except json.JSONDecodeError as problem:
        raise ValueError(f"{file} is damaged: {problem}") from problem
    asked: dict[int, list[tuple[str, str]]] = {}
    for row in rows if isinstance(rows, list) else [rows]:
        if not (
            isinstance(row, list) and list(map(type, row)) == [str, str, int]
        ):  # fmt: skip
            raise ValueError(
                f"{file} holds {json.dumps(row)[:80]}, expected [question, answer, number of the"
                " image] in each entry"
            )
        asked.setdefault(row[2], []).append((row[0], row[1]))
    there = {int(f.stem) for f in (folder / "images").glob("*.png") if f.stem.isdigit()}
    missing, unasked = sorted(asked.keys() - there), sorted(there - asked.keys())
    if missing or unasked:
        which = f"{missing[0]}.png is not there" if missing else f"none is about {unasked[0]}.png"
        raise ValueError(
            f"{file} asks about {len(asked):,} images, images/ holds {len(there):,}: {which}; add"
            " what is missing, or remove the rest"
        )
    return _Split(folder=folder, digest=content_digest(file), asked=dict(sorted(asked.items())))


def _attempts(
    splits: Sequence[_Split],
    drawn: Split | None,
    task: Task,
    name: str,
    allowed: frozenset[str] | None,
    known: Known,
) -> Iterator[Attempt | None]:
    for split in splits:
        for index, number in enumerate(split.asked):
            key = episode_key(f"questions-{split.name}", name, split.digest, index)
            make = partial(_episode, split, drawn, number, key, task, name, allowed)
            what = f"{split.name}/images/{number}.png"
            yield None if known(key) else Attempt(what=what, make=make)


def _episode(
    split: _Split,
    drawn: Split | None,
    number: int,
    key: str,
    task: Task,
    name: str,
    allowed: frozenset[str] | None,
) -> Episode:
    file = split.image_file(number)
    what = f"{split.name}/images/{number}.png"
    questions, answers = zip(*split.asked[number], strict=True)
    if allowed is not None and (odd := sorted(set(answers) - allowed)):
        raise BadEpisode(
            f"{what}: the answer {odd[0]!r} is not one of the {len(allowed)} in answers.txt; add it"
            " there, or correct it"
        )
    data = file.read_bytes()
    image = fit_image(data, task.observations["image"], what)
    return records_episode(
        task,
        key=key,
        name=name,
        is_held_out=drawn.holds_out(number_of(data)) if drawn else split.name == "test",
        what=what,
        images=image[None],
        questions=questions,
        answers=answers,
        info={"file": f"{split.name}/{file.name}"},
    )
