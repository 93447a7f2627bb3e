"""Tasks that are recorded text, captions and questions: any name after the family is a data set's,
and its sizes are options of the name.

vqa/easy-vqa, captions/mine?image=128, text/wikipedia?text_tokens=128
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from actors.tasks.options import Options, named, whole_number
from gato.array_spec import ArraySpec, Kind
from gato.sequence import PATCH
from gato.task import CAPTIONS, TEXT, VQA, References, Task

IMAGE, QUESTION_TOKENS, ANSWER_TOKENS, TEXT_TOKENS = (
    "image",
    "question_tokens",
    "answer_tokens",
    "text_tokens",
)
SIZES: Mapping[str, Mapping[str, int]] = {
    VQA: {IMAGE: 64, QUESTION_TOKENS: 56, ANSWER_TOKENS: 12},
    CAPTIONS: {IMAGE: 64, ANSWER_TOKENS: 96},
    TEXT: {TEXT_TOKENS: 256},
}
"""Options of each family and their defaults: pixels of an image's side, tokens of a text."""
SHOWN_BYTES, MOST_STEPS = 4, 10_000
"""Bytes that are kept of a question or an answer for each of its tokens: a SentencePiece model
writes several with one. Records of one episode."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_recorded_name(base: str) -> bool:
    """Whether a task's name is of one of these families."""
    return base.partition("/")[0].lower() in SIZES and "/" in base


def recorded_task(base: str, options: Options) -> Task:
    """The task `family/NAME` with these options.

    Raises:
        ValueError: if it has no such option, or a value is not one.
    """
    family, _, rest = base.partition("/")
    family = family.lower()
    if not NAME.fullmatch(rest):
        raise ValueError(
            f"{base!r} does not name recorded data; write {family}/NAME with letters, digits, dots,"
            " dashes and underscores"
        )
    base, sizes = f"{family}/{rest}", dict(SIZES[family])
    said: dict[str, str] = {}
    for option, text in options.items():
        if option not in sizes:
            raise ValueError(f"{base} has no option {option!r}; there are {', '.join(sizes)}")
        size = whole_number(base, option, text)
        if size != sizes[option]:
            sizes[option], said[option] = size, str(size)
    if sizes.get(IMAGE, PATCH) % PATCH:
        raise ValueError(
            f"{IMAGE}={sizes[IMAGE]} of {base} is not a multiple of {PATCH}, the side of a patch;"
            f" write it as {base}?{IMAGE}={max(1, round(sizes[IMAGE] / PATCH)) * PATCH}"
        )
    shown: dict[str, ArraySpec] = {}
    if IMAGE in sizes:
        shown["image"] = ArraySpec(kind=Kind.IMAGE, shape=(sizes[IMAGE], sizes[IMAGE], 3))
    if QUESTION_TOKENS in sizes:
        shown["question"] = _text(sizes[QUESTION_TOKENS], SHOWN_BYTES)
    if family == TEXT:
        # A passage is cut to so many bytes when it is imported: it has no more tokens than bytes,
        # but for the one that SentencePiece may put before the first word.
        action = ArraySpec(
            kind=Kind.TEXT, shape=(sizes[TEXT_TOKENS],), max_tokens=sizes[TEXT_TOKENS] + 1
        )
    else:
        action = _text(sizes[ANSWER_TOKENS], SHOWN_BYTES)
    return Task(
        name=named(base, said),
        env_id="",
        family=family,
        observations=shown,
        action=action,
        max_steps=MOST_STEPS,
        references=None
        if family == TEXT
        else References(
            random=0.0, expert=1.0, source="by definition: the share of exact answers, 0 to 1"
        ),
    )


def _text(tokens: int, bytes_each: int) -> ArraySpec:
    return ArraySpec(kind=Kind.TEXT, shape=(tokens * bytes_each,), max_tokens=tokens)
