"""Plain text: files of UTF-8, cut into passages at white space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gato.task import TEXT, Task
from replay.formats.reader import Attempt, FindTask, Known, Reading, Report
from replay.formats.records.build import is_nth, is_test_name, records_episode
from replay.formats.schema import content_digest, episode_key

SUFFIXES = (".txt", ".text")
EPISODE_PASSAGES = 64
"""Passages of a file that are stored together."""


def find_texts(path: Path) -> list[Path]:
    """The text files of a folder and of those in it, in order; a file itself."""
    if path.is_dir():
        return sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    return [path] if path.suffix.lower() in SUFFIXES and path.is_file() else []


def cut_passages(text: str, max_bytes: int) -> list[str]:
    """The text in passages of at most `max_bytes` of UTF-8. They end behind white space, unless a
    word is longer; those of white space alone are left out."""
    data, start, out = text.encode(), 0, list[str]()
    while start < len(data):
        end = min(start + max_bytes, len(data))
        if end < len(data):
            space = max(data.rfind(blank, start, end) for blank in (b" ", b"\n", b"\t"))
            if space > start:
                end = space + 1
            else:
                while data[end] & 0xC0 == 0x80:  # inside a character
                    end -= 1
        passage = data[start:end].decode()
        start = end
        if passage.strip():
            out.append(passage)
    return out


def read_texts(
    path: Path, task: Task | None, *, name: str, known: Known, find_task: FindTask
) -> Reading:
    """The passages of a text file, or of all in a folder.

    Raises:
        ValueError: at once, if a file is not UTF-8 or there is no text.
    """
    files = find_texts(path)
    task = task or find_task(f"{TEXT}/{name}")
    if task.family != TEXT:
        raise ValueError(f"{path} is text, {task.name} is not; pass --task text/NAME")
    room = task.action.shape[0]
    plans = [_plan(file, room) for file in files]  # before anything is stored
    total = sum(plan.num_episodes for plan in plans)
    if not total:
        raise ValueError(f"{path} holds no text")
    has_test = 0 < sum(map(_is_test, files)) < len(files)
    report = Report(
        task=task.name,
        notes=[
            f"passages of at most {room} bytes, cut at white space",
            "held out for evaluations: "
            + ("the files named test or validation" if has_test else "one episode in 20"),
        ],
    )
    return Reading(_attempts(plans, task, path, name, has_test, known), total=total, report=report)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    file: Path
    num_passages: int

    @property
    def num_episodes(self) -> int:
        return -(-self.num_passages // EPISODE_PASSAGES)


def _plan(file: Path, room: int) -> _Plan:
    return _Plan(file=file, num_passages=len(cut_passages(_read(file), room)))


def _read(file: Path) -> str:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ValueError(
            f"{file} is not UTF-8: {problem.reason} at byte {problem.start}; convert it first, such"
            f" as iconv -f latin1 -t utf-8 {file.name} > utf8.txt"
        ) from problem
    if "\0" in text:
        raise ValueError(f"{file} holds a NUL character: it is not plain text")
    return text


def _is_test(file: Path) -> bool:
    return is_test_name(file.stem) or is_test_name(file.parent.name)


def _attempts(
    plans: list[_Plan], task: Task, path: Path, name: str, has_test: bool, known: Known
) -> Iterator[Attempt | None]:
    for plan in plans:
        digest = content_digest(plan.file)
        keys = [
            episode_key("text", plan.file.stem, digest, index) for index in range(plan.num_episodes)
        ]
        are_known = [known(key) for key in keys]
        passages = [] if all(are_known) else cut_passages(_read(plan.file), task.action.shape[0])
        for index, (key, is_known) in enumerate(zip(keys, are_known, strict=True)):
            begin = index * EPISODE_PASSAGES
            what = f"{plan.file.name}, passage {begin}"
            is_held_out = _is_test(plan.file) if has_test else is_nth(index, plan.num_episodes)
            yield (
                None
                if is_known
                else Attempt(
                    what=what,
                    make=partial(
                        records_episode,
                        task,
                        key=key,
                        name=name,
                        is_held_out=is_held_out,
                        what=what,
                        answers=passages[begin : begin + EPISODE_PASSAGES],
                        info={"file": plan.file.name},
                    ),
                )
            )
