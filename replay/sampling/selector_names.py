"""Selectors by their names, as settings write them: `fifo`, `prioritized:0.6`."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches

from replay.sampling.ordered_selectors import (
    Fifo,
    Lifo,
    LowestReturn,
    MaxHeap,
    MinHeap,
    OldestVersion,
)
from replay.sampling.selectors import (
    OrderedSelector,
    Prioritized,
    RandomSelector,
    Recency,
    ReturnWeighted,
    Selector,
    Stratified,
    Uniform,
    Unit,
)

ORDERED: dict[str, OrderedSelector] = {
    selector.name: selector
    for selector in (Fifo(), Lifo(), MaxHeap(), MinHeap(), LowestReturn(), OldestVersion())
}
NUMBERED: dict[str, Callable[[float, Unit], RandomSelector]] = {
    "prioritized": lambda number, unit: Prioritized(exponent=number, unit=unit),
    "recency": lambda number, unit: Recency(half_life_episodes=number, unit=unit),
    "return": lambda number, unit: ReturnWeighted(temperature=number, unit=unit),
}
FORMS = {name: name for name in ORDERED} | {
    "uniform": "uniform[:episode]",
    "prioritized": "prioritized:EXPONENT[:episode]",
    "recency": "recency:HALF_LIFE_EPISODES[:episode]",
    "return": "return:TEMPERATURE[:episode]",
    "stratified": "stratified[(TASK=WEIGHT,...)]:INNER",
}
"""How each selector is written. Steps are equally likely; with `:episode`, episodes are."""
SHARE = r"-?\d+=[^,()=]+"


def selector_from_name(text: str) -> Selector:
    """A selector from text such as "fifo", "prioritized:0.6", "recency:10000:episode" or
    "stratified(3=2):uniform". Raises ValueError, with the form of the nearest one."""
    text = text.strip()
    if text in ORDERED:
        return ORDERED[text]
    if match := re.fullmatch(rf"stratified(?:\(({SHARE}(?:,{SHARE})*)\))?:(.+)", text):
        inner = selector_from_name(match[2])
        if isinstance(inner, OrderedSelector):
            raise ValueError(
                f"selector {text!r} takes items in an order within a task; write stratified:uniform"
            )
        if match[1] is None:
            return Stratified(inner=inner)
        pairs = [pair.split("=") for pair in match[1].split(",")]
        shares = {int(code): _float(share, text, "stratified") for code, share in pairs}
        return Stratified(inner=inner, task_weights=shares)
    name, *settings = text.split(":")
    unit: Unit = "episode" if settings[-1:] == ["episode"] else "step"
    if settings[-1:] in (["episode"], ["step"]):
        settings.pop()
    if name == "uniform" and not settings:
        return Uniform(unit=unit)
    if name in NUMBERED and len(settings) == 1:
        return NUMBERED[name](_float(settings[0], text, name), unit)
    name = name.partition("(")[0]
    if name in FORMS:
        raise ValueError(f"selector {text!r} is not of the form {FORMS[name]}")
    nearest = get_close_matches(name, FORMS, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"selector {text!r} is not known; the nearest is {nearest!r}, of the form {FORMS[nearest]}"
    )


def by_priority(selector: str) -> bool:
    """Whether the selector of this name looks at priorities."""
    return any(word in selector for word in ("prioritized", "heap"))


def _float(number: str, text: str, name: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise ValueError(
            f"selector {text!r} is not of the form {FORMS[name]}: {number!r} is not a number"
        ) from None
