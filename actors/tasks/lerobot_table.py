"""Tasks of LeRobot's data sets, which have no environment: the options of the name say what the
robot shows and what it takes, so that the name alone makes the task, on every machine.

lerobot/pusht?action=-1:1,-1:1&shows=state:2,image
"""

from __future__ import annotations

import math
import re

from actors.tasks.options import Options, named, whole_number
from gato.array_spec import ArraySpec, Kind
from gato.sequence import PATCH
from gato.task import LEROBOT, Task

ACTION, SHOWS, IMAGE, TEXT_TOKENS = "action", "shows", "image", "text_tokens"
DEFAULTS = {IMAGE: 64, TEXT_TOKENS: 32}
INSTRUCTION = "task"
"""The name under which a robot is told what to do, as LeRobot has it."""
MOST_STEPS = 1_000_000
SHOWN = re.compile(r"(?P<name>[\w.-]+)(?::(?P<size>\d+))?")


def is_lerobot_name(base: str) -> bool:
    """Whether a task's name is of a LeRobot data set."""
    return base.lower().startswith(f"{LEROBOT}/")


def lerobot_task(base: str, options: Options) -> Task:
    """The task `lerobot/NAME` with these options.

    Args:
        base: The name without options.
        options: `action`, the bounds low:high of each element; `shows`, each array with its number
            of elements, and each camera without one; `image`, pixels of a camera's side;
            `text_tokens`, of the instruction.

    Raises:
        ValueError: if an option is missing, unknown, or cannot be read.
    """
    base = f"{LEROBOT}/{base.partition('/')[2]}"
    for option in (ACTION, SHOWS):
        if option not in options:
            raise ValueError(
                f"{base} does not say its {option}; gato import makes its whole name, which"
                " gato start --data NAME uses"
            )
    unknown = sorted(set(options) - {ACTION, SHOWS, *DEFAULTS})
    if unknown:
        raise ValueError(
            f"{base} has no option {unknown[0]!r}; there are {ACTION}, {SHOWS},"
            f" {', '.join(DEFAULTS)}"
        )
    sizes = DEFAULTS | {
        name: whole_number(base, name, options[name]) for name in DEFAULTS if name in options
    }
    if sizes[IMAGE] % PATCH:
        raise ValueError(
            f"{IMAGE}={sizes[IMAGE]} of {base} is not a multiple of {PATCH}, the side of a patch"
        )
    shown: dict[str, ArraySpec] = {}
    for entry in options[SHOWS].split(","):
        match = SHOWN.fullmatch(entry)
        if match is None:
            raise ValueError(f"{SHOWS}={entry} of {base} cannot be read; write it as state:6,top")
        size = match["size"]
        if match["name"] in shown or match["name"] == INSTRUCTION:
            raise ValueError(
                f"{SHOWS}={options[SHOWS]} of {base} names {match['name']!r} twice"
                if match["name"] in shown
                else f"{SHOWS}={entry} of {base}: {INSTRUCTION!r} is the name of the instruction;"
                " call the array by another"
            )
        shown[match["name"]] = (
            ArraySpec(kind=Kind.IMAGE, shape=(sizes[IMAGE], sizes[IMAGE], 3))
            if size is None
            else ArraySpec(kind=Kind.CONTINUOUS, shape=(int(size),))
        )
    tokens = sizes[TEXT_TOKENS]
    shown[INSTRUCTION] = ArraySpec(kind=Kind.TEXT, shape=(8 * tokens,), max_tokens=tokens)
    said = {name: f"{size}" for name, size in sizes.items() if size != DEFAULTS[name]}
    low, high = _bounds(base, options[ACTION])
    return Task(
        name=named(base, said | {ACTION: options[ACTION], SHOWS: options[SHOWS]}),
        env_id="",
        family=LEROBOT,
        observations=shown,
        action=ArraySpec(kind=Kind.CONTINUOUS, shape=(len(low),), low=low, high=high),
        max_steps=MOST_STEPS,
    )


def _bounds(base: str, text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        pairs = [tuple(map(float, pair.split(":"))) for pair in text.split(",")]
        lows, highs = zip(*((low, high) for low, high in pairs), strict=True)
    except ValueError as problem:
        raise ValueError(
            f"{ACTION}={text} of {base} cannot be read; write it as -1:1,0:5, low:high of each"
            " element"
        ) from problem
    if not all(map(math.isfinite, (*lows, *highs))):
        raise ValueError(f"{ACTION}={text} of {base} has bounds that are not finite")
    return lows, highs
