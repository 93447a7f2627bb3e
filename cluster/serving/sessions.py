"""The clients of a policy server: one episode each, batched by the inference server that workers
use."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from actors.players.gato_player import GatoPlayers
from actors.players.inference_batch import Ticket
from actors.players.inference_server import InferenceServer, NotServedError
from actors.players.player import TimeStep
from gato.acting.return_to_go import FLOAT32_MAX
from gato.exported.observation import one_row
from gato.exported.policy_file import PolicyFile
from gato.task import Task, find_task
from gato.text import TextEncoder
from gato.version import Version
from gato.weights import Weights

ROLE = "evaluate"


class RefusedError(ValueError):
    """A request that is not served; `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Fixed:
    """A weights source with one version."""

    weights: Weights

    def newer_than(self, version: Version | None) -> Weights | None:
        return None if version == self.weights.version else self.weights


@dataclass(slots=True, kw_only=True)
class _Session:
    task: Task
    is_gone: Callable[[], bool]
    """Whether the connection that it was used by last is closed."""
    heard_s: float
    ticket: Ticket | None = None
    """None: it has not acted yet. The others of its task do not wait for it until then."""
    is_acting: bool = False
    is_over: bool = False
    gone_since_s: float | None = None


class Sessions:
    """Episodes of clients. Each call may wait, and comes from a thread of its own.

    sessions = Sessions(policy, text=None)
    key = sessions.begin("mujoco/hopper")
    action = sessions.act(key, {"state": state}, reward=0.0)
    sessions.end(key)
    """

    def __init__(
        self,
        policy: PolicyFile,
        *,
        text: TextEncoder | None,
        most: int = 256,
        patience_s: float = 0.25,
        idle_s: float = 300.0,
        gone_s: float = 5.0,
    ) -> None:
        """Build the model.

        Args:
            policy: What is served.
            text: Encodes the tasks' texts, if they show any.
            most: Clients at once.
            patience_s: Seconds that the clients of a task wait for one of them before they go on
                without it; it is then served alone until it is quick again.
            idle_s: Seconds of silence after which a client is forgotten.
            gone_s: Seconds after the end of its connection after which it is.

        Raises:
            ValueError: If a task does not fit the model.
        """
        self.policy = policy
        self.tasks = {name: each.task for name, each in policy.tasks.items()}
        acting = {name: each.acting for name, each in policy.tasks.items()}
        players = GatoPlayers(
            model=policy.model,
            evaluate=acting,
            generate=acting,
            seed=policy.seed,
            text=text,
            prompts=policy,
        )
        self._server = InferenceServer(
            players,
            self.tasks,
            _Fixed(policy.weights),
            patience_s=patience_s,
            forgets_after_s=2 * idle_s,  # only what is left of episodes that were ended here
        )
        self._server.newer_than("none", None)  # loads the weights now, not for the first client
        self._needs_rewards = {
            name
            for name, each in policy.tasks.items()
            if policy.model.return_conditioned and each.acting.target_return is not None
        }
        self._most = most
        self._idle_s = idle_s
        self._gone_s = gone_s
        self._sessions: dict[str, _Session] = {}
        self._is_closed = False
        self._lock = threading.Lock()

    @property
    def num_sessions(self) -> int:
        return len(self._sessions)

    def begin(
        self,
        task: str,
        *,
        before: str = "",
        is_gone: Callable[[], bool] = lambda: False,
    ) -> str:
        """Begin an episode, and return its key.

        Args:
            task: Its name, or an alias.
            before: The client's episode before, which ends; empty if there is none.
            is_gone: Whether the client's connection is closed.

        Raises:
            ValueError: There is no such task.
            RefusedError: There are too many clients, or the server ends.
        """
        found = find_task(task, self.tasks)
        if before:
            self.end(before)
        with self._lock:
            if self._is_closed:
                raise RefusedError(503, "this server is ending; try again later")
            if len(self._sessions) >= self._most:
                raise RefusedError(
                    503,
                    f"{self._most} clients are served already, the most that this server takes; try"
                    " again later, or start it with a larger --clients",
                )
            key = secrets.token_urlsafe(16)
            self._sessions[key] = _Session(task=found, is_gone=is_gone, heard_s=time.monotonic())
            return key

    def act(
        self,
        key: str,
        observation: Any,
        *,
        reward: float | None,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> Shaped[np.ndarray, ...]:
        """The action [*shape] for a client; waits for the others of its task.

        Args:
            key: Of its episode.
            observation: What it sees: see `gato.exported.observation.one_row`.
            reward: What its last action paid.
            is_gone: Whether the connection of this call is closed.

        Raises:
            ValueError: The observation or the reward does not fit the task.
            RefusedError: There is no such episode, or it waits for an action already.
        """
        session = self._take(key, is_gone)
        try:
            return self._act(key, session, observation, reward)
        except NotServedError as problem:
            raise _unknown() from problem
        finally:
            with self._lock:
                session.is_acting = False
                session.heard_s = time.monotonic()
                ticket = session.ticket if session.is_over else None
            if ticket is not None:  # it was ended while it began to act
                self._server.end(ticket)

    def _take(self, key: str, is_gone: Callable[[], bool]) -> _Session:
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                raise _unknown()
            if session.is_acting:
                raise RefusedError(
                    409, "this episode waits for an action already; a client asks one at a time"
                )
            session.is_acting, session.is_gone = True, is_gone
            return session

    def _act(
        self, key: str, session: _Session, observation: Any, reward: float | None
    ) -> Shaped[np.ndarray, ...]:
        rows = one_row(session.task, observation)
        is_first = session.ticket is None
        if reward is None and not is_first and session.task.name in self._needs_rewards:
            raise ValueError("this model is return-conditioned: send the reward of the last action")
        paid = 0.0 if reward is None or is_first else reward
        if not abs(paid) <= FLOAT32_MAX:
            raise ValueError(f"the reward is {paid}, expected a number within ±{FLOAT32_MAX:.2g}")
        step = TimeStep(
            observations=rows,
            rewards=np.array([paid], np.float32),
            active=np.ones(1, np.bool_),
            is_first=np.array([is_first]),
            seeds=np.zeros(1, np.int64),
        )
        ticket = session.ticket
        if ticket is None:
            newest = self._server.newer_than(key, None)
            assert newest is not None, "the weights are fixed"
            ticket = self._server.begin(key, session.task.name, ROLE, 1, newest.version)
            session.ticket = ticket
        return self._server.act(ticket, step)[0]

    def end(self, key: str) -> None:
        """End an episode: nobody waits for it any more. Harmless if there is none."""
        with self._lock:
            session = self._sessions.pop(key, None)
            if session is None:
                return
            session.is_over = True
            ticket = session.ticket
        if ticket is not None:
            self._server.end(ticket)

    def end_silent(self) -> None:
        """End the episodes of clients that are silent for too long, or whose connection ended."""
        now_s = time.monotonic()
        with self._lock:
            silent: list[str] = []
            for key, session in self._sessions.items():
                if not session.is_gone():
                    session.gone_since_s = None
                elif session.gone_since_s is None:
                    session.gone_since_s = now_s
                is_idle = not session.is_acting and now_s - session.heard_s > self._idle_s
                gone_since_s = session.gone_since_s
                if is_idle or (gone_since_s is not None and now_s - gone_since_s >= self._gone_s):
                    silent.append(key)
        for key in silent:
            self.end(key)

    def close(self) -> None:
        """End all episodes; no further one begins."""
        with self._lock:
            self._is_closed = True
            keys = list(self._sessions)
        for key in keys:
            self.end(key)


def _unknown() -> RefusedError:
    return RefusedError(
        410,
        "there is no such episode: none was begun, it was ended, its client was silent for too"
        " long, or this server was restarted; begin another one",
    )
