"""Acting for many workers in one place: one copy of the weights, and one batch of all who play a task in one role.

Contexts of one batch share a ring over time (`gato.cache`), so those who play the same task, in the same role and with the
same version act in step: a round is computed when the last of them has asked. Whoever begins an assignment joins them,
whoever ends it leaves, and whoever is silent for too long is left out.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped

from actors.agent import GatoPlayers
from actors.envs import EnvFailedError
from gato.acting import ActingState, Policy
from gato.model import Gato
from gato.sequence import Window
from gato.task import Task
from gato.version import Version
from gato.weights import Weights, load

VERSIONS_KEPT = 2
"""The newest, and the one before: a worker may be about to begin with it."""

Observations = Mapping[str, Shaped[np.ndarray, "N ..."]]


class NotServedError(EnvFailedError):
    """The server does not serve this client any more: it was silent for too long, or the server was started anew."""


@runtime_checkable
class WeightsSource(Protocol):
    def newer_than(self, version: Version | None) -> Weights | None:
        """The newest weights, where they are newer than `version`."""
        ...


class _Key(NamedTuple):
    task: str
    role: str
    version: Version


@dataclass(frozen=True, slots=True)
class _Question:
    observations: Observations
    rewards: Float[np.ndarray, " N"]


class _Group:
    """Clients that act in step. Their rows stand in the order in which they joined."""

    def __init__(self, policy: Policy, prompt: Window | None) -> None:
        self._policy = policy
        self._prompt = prompt
        self._state: ActingState | None = None
        self.members: dict[str, int] = {}
        """Rows of each."""
        self.asked: dict[str, _Question] = {}
        self.answers: dict[str, Shaped[np.ndarray, "N ..."]] = {}

    def _rows(self, client: str) -> slice:
        names = list(self.members)
        begin = sum(self.members[name] for name in names[: names.index(client)])
        return slice(begin, begin + self.members[client])

    def join(self, client: str, num_rows: int) -> None:
        if self._state is None:
            self._state = self._policy.start(num_rows, self._prompt)
        else:
            there = self._state.num_envs
            self._state = self._state.gather(np.append(np.arange(there), np.zeros(num_rows, np.int64)))
        self.members[client] = num_rows
        self.reset(client, np.ones(num_rows, np.bool_))

    def leave(self, client: str) -> None:
        assert self._state is not None
        others = np.delete(np.arange(self._state.num_envs), self._rows(client))
        self._state = self._state.gather(others) if len(others) else None
        del self.members[client]
        self.asked.pop(client, None)

    def reset(self, client: str, rows: Bool[np.ndarray, " N"]) -> None:
        assert self._state is not None
        of_all = np.zeros(self._state.num_envs, np.bool_)
        of_all[self._rows(client)] = rows
        self._state.reset(of_all)

    def compute_if_complete(self) -> bool:
        """One round, once all have asked."""
        if self._state is None or len(self.asked) < len(self.members):
            return False
        asked = [self.asked[client] for client in self.members]
        observations = {
            name: np.concatenate([question.observations[name] for question in asked])
            for name in self._policy.task.observations
        }
        rewards = np.concatenate([question.rewards for question in asked])
        actions = self._policy.act(self._state, observations, rewards)
        self.answers |= {client: actions[self._rows(client)] for client in self.members}
        self.asked.clear()
        return True


class InferenceServer:
    """Acts for clients, each of which plays one assignment at a time, in a thread of its own.

    server = InferenceServer(players, tasks, source)
    weights = server.newer_than(None)                       # its version alone: the arrays stay here
    server.begin("w0", "mujoco/hopper", "evaluate", 4, weights.version)
    actions = server.act("w0", observations, rewards)       # waits for the others of its group
    server.end("w0")
    """

    def __init__(
        self, players: GatoPlayers, tasks: Mapping[str, Task], source: WeightsSource, *, patience_s: float = 10.0
    ) -> None:
        """`patience_s`: how long a group waits for one of its clients before it goes on without it."""
        self._players = players
        self._tasks = tasks
        self._source = source
        self._patience_s = patience_s
        self._models: dict[Version, tuple[Gato, int]] = {}
        self._generators: dict[tuple[str, str], torch.Generator] = {}
        self._groups: dict[_Key, _Group] = {}
        self._key_of: dict[str, _Key] = {}
        self._changed = threading.Condition()

    def newer_than(self, version: Version | None) -> Weights | None:
        """The version that can be played from now on, without its arrays, where it is newer than `version`."""
        with self._changed:
            newest = max(self._models, default=None)
            weights = self._source.newer_than(newest)
            if weights is not None and (newest is None or weights.version > newest):
                model = self._players.new_model()
                load(model, weights.arrays)
                self._models[weights.version] = (model, weights.learner_step)
                newest = weights.version
                for old in sorted(self._models)[:-VERSIONS_KEPT]:
                    del self._models[old]
            if newest is None or (version is not None and newest <= version):
                return None
            return Weights(version=newest, learner_step=self._models[newest][1], arrays={})

    def begin(self, client: str, task: str, role: str, num_rows: int, version: Version) -> None:
        """The client plays an assignment from now on, with this version to its end."""
        with self._changed:
            self._leave(client)
            if version not in self._models:
                raise NotServedError(f"weights {version} are not here any more; begin with the newest")
            key = _Key(task, role, version)
            if key not in self._groups:
                self._groups[key] = self._new_group(key)
            self._groups[key].join(client, num_rows)
            self._key_of[client] = key

    def _new_group(self, key: _Key) -> _Group:
        task, seed = self._tasks[key.task], self._players.seed
        generator = self._generators.setdefault((key.task, key.role), torch.Generator().manual_seed(seed))
        acting, text = self._players.acting_of(task, key.role), self._players.text
        policy = Policy(self._models[key.version][0], task, acting, generator=generator, text=text)
        find_prompt = self._players.prompt_finder(task, key.role)
        return _Group(policy, find_prompt() if find_prompt else None)

    def end(self, client: str) -> None:
        """Its assignment is over: nobody waits for it any more."""
        with self._changed:
            self._leave(client)

    def _leave(self, client: str) -> None:
        key = self._key_of.pop(client, None)
        if key is None:
            return
        group = self._groups[key]
        group.leave(client)
        if not group.members:
            del self._groups[key]
        group.compute_if_complete()
        self._changed.notify_all()

    def _group(self, client: str) -> _Group:
        if client not in self._key_of:
            raise NotServedError(
                f"{client} is not served here: it was silent for too long, or this server is a new one"
            )
        return self._groups[self._key_of[client]]

    def reset_rows(self, client: str, rows: Bool[np.ndarray, " N"]) -> None:
        """These rows of the client begin a new episode."""
        with self._changed:
            self._group(client).reset(client, rows)

    def act(
        self, client: str, observations: Observations, rewards: Float[np.ndarray, " N"]
    ) -> Shaped[np.ndarray, "N ..."]:
        """An action for each row of the client, when all of its group have asked."""
        with self._changed:
            group = self._group(client)
            group.asked[client] = _Question(observations, rewards)
            if group.compute_if_complete():
                self._changed.notify_all()

            def is_over() -> bool:
                return client in group.answers or client not in group.members

            while not self._changed.wait_for(is_over, self._patience_s):
                for silent in group.members.keys() - group.asked.keys():
                    self._leave(silent)
            if client not in group.answers:
                raise NotServedError(f"{client} was left out while it waited")
            return group.answers.pop(client)

    def num_models(self) -> int:
        """Copies of the weights that are held by version, without those that only a group still plays."""
        with self._changed:
            return len(self._models)


@runtime_checkable
class Server(Protocol):
    """What a client needs of it, in this process or in another one."""

    def begin(self, client: str, task: str, role: str, num_rows: int, version: Version) -> None: ...

    def end(self, client: str) -> None: ...

    def reset_rows(self, client: str, rows: Bool[np.ndarray, " N"]) -> None: ...

    def act(
        self, client: str, observations: Observations, rewards: Float[np.ndarray, " N"]
    ) -> Shaped[np.ndarray, "N ..."]: ...


class ServedPlayer:
    """A player that asks a server."""

    def __init__(self, server: Server, client: str, task: Task, role: str, num_envs: int) -> None:
        self._server = server
        self._client = client
        self._task = task
        self._role = role
        self._num_envs = num_envs
        self._version: Version | None = None
        self._serving = False

    def load(self, weights: Weights) -> None:
        self._version = weights.version

    def reset_rows(self, rows: Bool[np.ndarray, " N"], seeds: Shaped[np.ndarray, " N"]) -> None:
        del seeds  # sampling has a generator of its own
        if self._serving:
            self._server.reset_rows(self._client, rows)
            return
        assert self._version is not None
        self._server.begin(self._client, self._task.name, self._role, self._num_envs, self._version)
        self._serving = True

    def act(
        self, observations: Observations, extras: Observations, rewards: Float[np.ndarray, " N"]
    ) -> Shaped[np.ndarray, "N ..."]:
        del extras  # what only teachers may look at
        return self._server.act(self._client, observations, rewards)

    def rest(self) -> None:
        """The assignment is over, however it ended."""
        self._serving = False
        self._server.end(self._client)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPlayers:
    """Makes a `ServedPlayer` for each task and role that a worker is asked to play."""

    server: Server
    client: str
    """The worker's name: it plays one assignment at a time."""

    def __call__(self, task: Task, num_envs: int, role: str) -> ServedPlayer:
        return ServedPlayer(self.server, self.client, task, role, num_envs)
