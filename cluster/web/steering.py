"""What the page can change in a run, for those who have its token: stop, workers, roles."""

from __future__ import annotations

import json
from typing import Any, cast

from cluster.control import run_control
from cluster.runs.folder import RunFolder

ROLES = ("evaluate", "generate", "relabel", "demonstrate")
WORDS = "stop, scale (workers), roles (evaluate, generate, relabel, demonstrate)"
MAX_WORKERS = 100_000


def steer(folder: RunFolder, word: str, body: bytes) -> str:
    """Do what is asked; what the run answers. It may take as long as the run does.

    Raises:
        ValueError: It is no such word, its numbers are not possible, or the run is not active.
    """
    asked = _asked(body)
    if word == "stop":
        _only(asked, ())
        run_control.ask_to_stop(_active(folder))
        return f"run {folder.name} was asked to stop: its learner saves"
    if word == "scale":
        _only(asked, ("workers",))
        workers = asked.get("workers")
        if type(workers) is not int or not 0 <= workers <= MAX_WORKERS:
            raise ValueError(f"workers is {workers!r}, expected a whole number from 0 on")
        answer = run_control.scale(_active(folder), workers)
        return answer or f"run {folder.name} was asked for {workers} workers"
    if word == "roles":
        _only(asked, ROLES)
        if not asked or any(type(s) not in (int, float) or not 0 <= s <= 1 for s in asked.values()):
            raise ValueError(f"expected shares from 0 to 1 of {', '.join(ROLES)}, got {asked}")
        shares = {f"{role}_share": float(share) for role, share in asked.items()}
        run_control.set_roles(_active(folder), shares)
        return f"run {folder.name} was asked for other shares of its workers' time"
    raise ValueError(f"{word!r} cannot be asked for; there are {WORDS}")


def _active(folder: RunFolder) -> RunFolder:
    """`folder`, if its run is starting or running. Raises ValueError if not."""
    state = run_control.state_of(folder)
    if state not in ("starting", "running"):
        raise ValueError(f"run {folder.name} is {state}, not running")
    return folder


def _asked(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body or b"{}")
    except (ValueError, RecursionError):  # the latter of brackets in brackets
        asked = None
    if not isinstance(asked, dict):
        raise ValueError("the body is no JSON object")
    return cast(dict[str, Any], asked)


def _only(asked: dict[str, Any], names: tuple[str, ...]) -> None:
    unknown = sorted(asked.keys() - set(names))
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} cannot be set here; there are: {', '.join(names) or 'none'}"
        )
