"""Ray's exceptions as reasons that a person reads."""

from __future__ import annotations

import re

from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
)

MAX_LENGTH = 120
EXIT = re.compile(r"exit detail: ([^.\n]+)", re.IGNORECASE)


def reason_of(failure: BaseException) -> str:
    """Why a call failed, in one short line."""
    text = str(failure)
    if isinstance(failure, RayTaskError):
        cause: object = failure.cause
        return first_line(f"{type(cause).__name__}: {cause}")
    if isinstance(failure, OutOfMemoryError) or "OOM" in text or "memory usage threshold" in text:
        return "its machine ran out of memory, and Ray ended the process"
    if isinstance(failure, ActorUnschedulableError):
        return "no node offers what it asks for; gato cluster nodes lists what they offer"
    if isinstance(failure, NodeDiedError) or "node has died" in text or "node was" in text:
        return "its node is gone"
    if isinstance(failure, ActorUnavailableError):
        return "its process does not answer"
    if isinstance(failure, ActorDiedError):
        found = EXIT.search(text)
        return "its process died" + (f": {first_line(found[1])}" if found else "")
    if isinstance(failure, ObjectLostError):
        return "an object was lost with the process or node that held it"
    if isinstance(failure, GetTimeoutError):
        return "no answer in time"
    return first_line(f"{type(failure).__name__}: {text}")


def first_line(failure: object) -> str:
    """What of a failure fits a line of the journal."""
    return str(failure).strip().split("\n", 1)[0][:MAX_LENGTH]
