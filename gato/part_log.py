"""The line with which a part of a run opens its log, by which the log is found; and the name of the
machine that it is on."""

from __future__ import annotations

import os
import re
import socket
import sys
from typing import Protocol, runtime_checkable

MARK = ":gato:"
NODE_NAME = "GATO_NODE"
"""In the environment of a node's processes: what `gato cluster join --name` called it."""
LAUNCH = re.compile(r"-{1,2}[0-9a-f]{32}\b")
"""In names of actors on a local Ray: differs for each launch."""
EPOCH = re.compile(r"-epoch\d+$")
"""In names of the learner's other processes: differs for each start of the learner."""
NODE = re.compile(r"-([0-9a-f]{8})[0-9a-f]{48}$")
"""In names of inference actors."""


@runtime_checkable
class ActorContext(Protocol):
    """Of Ray's `RuntimeContext`, what names an actor."""

    @property
    def namespace(self) -> str: ...

    def get_actor_name(self) -> str | None: ...


def name_log(context: ActorContext) -> None:
    """Open the log of this process, which is the actor of `context`; without a name, nothing."""
    if actor := context.get_actor_name():
        print(f"{MARK}{context.namespace}:{part_of(actor)}", file=sys.stderr, flush=True)


def part_of(actor: str) -> str:
    """The name of a part by its actor's: learner, learner-1, replay-0, w0, inference-1a2b3c4d."""
    name = NODE.sub(r"-\1", EPOCH.sub("", LAUNCH.sub("", actor))).replace(
        "inference-run-", "inference-"
    )
    return re.sub(r"^worker-(?=w\d)", "", name)


def mark_in(head: str) -> tuple[str, str] | None:
    """Namespace and part that the first lines of a log name; None if they do not."""
    for line in head.splitlines():
        if line.startswith(MARK):
            namespace, _, part = line.removeprefix(MARK).rpartition(":")
            return namespace, part
    return None


def node_name() -> str:
    """The name of this machine as a node of its cluster, else its hostname."""
    return os.environ.get(NODE_NAME) or socket.gethostname()
