"""Plain text: files of UTF-8, cut into passages at white space."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from gato.task import TEXT, Task
from replay.formats.reader import Attempt, FindTask, Known, Reading, Report
from replay.formats.records.build import records_episode
from replay.formats.records.split import Split, is_test_file, number_of
from replay.formats.schema import episode_key, file_digests

SUFFIXES = (".txt", ".text")
EPISODE_PASSAGES = 64
"""Passages of a file that are stored together."""
BLOCK_BYTES = 1 << 20
"""Of a file, read at once."""


def find_texts(path: Path) -> list[Path]:
    """The text files of a folder and of those in it, in order; a file itself."""
    if path.is_dir():
        return sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    return [path] if path.suffix.lower() in SUFFIXES and path.is_file() else []


def cut_passages(texts: Iterable[str], max_bytes: int) -> Iterator[str]:
    """A text, which comes in parts, in passages of at most `max_bytes` of UTF-8. They end behind
    white space, unless a word is longer; those of white space alone are left out.

    Raises:
        ValueError: If a single character has more bytes.
    """
    data = b""
    for text in texts:
        data += text.encode()
        start = 0
        while len(data) - start > max_bytes:
            end = _end(data, start, max_bytes)
            passage, start = data[start:end].decode(), end
            if passage.strip():
                yield passage
        data = data[start:]
    if data.strip():
        yield data.decode()


def _end(data: bytes, start: int, max_bytes: int) -> int:
    """Where the passage that begins at `start` ends."""
    end = start + max_bytes
    space = max(data.rfind(blank, start, end) for blank in (b" ", b"\n", b"\t"))
    if space > start:
        return space + 1
    while data[end] & 0xC0 == 0x80:  # inside a character
        end -= 1
    if end == start:
        raise ValueError(
            f"a passage of {max_bytes} bytes has no room for a character; use text_tokens=4 or more"
        )
    return end


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
    tests = {file for file in files if is_test_file(file, path)}
    has_test = 0 < len(tests) < len(files)
    plans = [  # before anything is stored
        _Plan(file=file, numbers=[_number(each) for each in _episodes(file, room)],
              is_test=file in tests if has_test else None)
        for file in files
    ]  # fmt: skip
    total = sum(len(plan.numbers) for plan in plans)
    if not total:
        raise ValueError(f"{path} holds no text")
    split = Split(number for plan in plans for number in plan.numbers)
    held_out = sum(_is_held_out(plan, number, split) for plan in plans for number in plan.numbers)
    report = Report(
        task=task.name,
        notes=[
            f"passages of at most {room} bytes, cut at white space",
            "held out for evaluations: "
            + ("the files named test or validation, " if has_test else "")
            + f"{held_out:,} of {total:,} episodes of {EPISODE_PASSAGES} passages",
        ],
    )
    return Reading(_attempts(plans, split, task, name, known), total=total, report=report)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    file: Path
    numbers: Sequence[int]
    """Of each episode, for the split."""
    is_test: bool | None
    """None: no file is a test split."""


def _is_held_out(plan: _Plan, number: int, split: Split) -> bool:
    return split.holds_out(number) if plan.is_test is None else plan.is_test


def _episodes(file: Path, room: int) -> Iterator[list[str]]:
    """The passages of each episode of a file."""
    passages = cut_passages(_parts(file), room)
    while episode := list(islice(passages, EPISODE_PASSAGES)):
        yield episode


def _number(passages: Sequence[str]) -> int:
    return number_of("".join(passages).encode())


def _parts(file: Path) -> Iterator[str]:
    """The text of a file, in parts, without a byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    at, is_first = 0, True
    with file.open("rb") as opened:
        while True:
            block = opened.read(BLOCK_BYTES)
            held = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as problem:
                raise ValueError(
                    f"{file} is not UTF-8: {problem.reason} at byte {at - held + problem.start};"
                    f" convert it first, such as iconv -f latin1 -t utf-8 {file.name} > utf8.txt"
                ) from problem
            if "\0" in text:
                raise ValueError(f"{file} holds a NUL character: it is not plain text")
            yield text.removeprefix("\ufeff") if is_first else text
            is_first, at = is_first and not text, at + len(block)
            if not block:
                return


def _attempts(
    plans: Sequence[_Plan], split: Split, task: Task, name: str, known: Known
) -> Iterator[Attempt | None]:
    digests = file_digests("text", [plan.file for plan in plans], known)
    for plan in plans:
        keys = [
            episode_key("text", plan.file.stem, digests[plan.file], index)
            for index in range(len(plan.numbers))
        ]
        are_known = [known(key) for key in keys]
        episodes = iter(()) if all(are_known) else _episodes(plan.file, task.action.shape[0])
        for index, (key, is_known) in enumerate(zip(keys, are_known, strict=True)):
            passages = next(episodes, [])
            what = f"{plan.file.name}, passage {index * EPISODE_PASSAGES}"
            make = partial(
                records_episode,
                task,
                key=key,
                name=name,
                is_held_out=_is_held_out(plan, plan.numbers[index], split),
                what=what,
                answers=passages,
                info={"file": plan.file.name},
            )
            yield None if is_known else Attempt(what=what, make=make)
