"""A worker's side of shared inference: players that ask an inference server for their actions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from actors.players.inference_batch import Ticket
from actors.players.player import TimeStep
from gato.task import Task
from gato.version import Version
from gato.weights import Weights


@runtime_checkable
class Server(Protocol):
    """What a client needs of the server, in this process or in another one."""

    def newer_than(self, client: str, version: Version | None) -> Weights | None: ...

    def begin(
        self, client: str, task: str, role: str, num_rows: int, version: Version
    ) -> Ticket: ...

    def end(self, ticket: Ticket) -> None: ...

    def act(self, ticket: Ticket, step: TimeStep) -> Shaped[np.ndarray, "N ..."]: ...


class ServedPlayer:
    """A player that asks a server for its actions."""

    def __init__(self, server: Server, client: str, task: Task, role: str, num_envs: int) -> None:
        self._server = server
        self._client = client
        self._task = task
        self._role = role
        self._num_envs = num_envs
        self._version: Version | None = None
        self._ticket: Ticket | None = None

    def load(self, weights: Weights) -> None:
        self._version = weights.version

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        if self._ticket is None:
            assert self._version is not None, "load weights first"
            self._ticket = self._server.begin(
                self._client, self._task.name, self._role, self._num_envs, self._version
            )
        # Only teachers look at the extras: they are not sent.
        return self._server.act(self._ticket, replace(step, extras={}) if step.extras else step)

    def rest(self) -> None:
        """End the assignment at the server, however it ended."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._server.end(ticket)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPlayers:
    """Makes a `ServedPlayer` for each task and role of a worker, and is its source of weights."""

    server: Server
    client: str
    """The worker's name: it plays one assignment at a time."""

    def newer_than(self, version: Version | None) -> Weights | None:
        return self.server.newer_than(self.client, version)

    def __call__(self, task: Task, num_envs: int, role: str) -> ServedPlayer:
        return ServedPlayer(self.server, self.client, task, role, num_envs)
