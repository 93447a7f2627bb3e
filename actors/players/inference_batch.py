"""Those who play the same task, in the same role and with the same version: one batch, decided on
in rounds.

Contexts of one batch share a ring over time (`gato.network.kv_cache`), so nobody can skip a round:
whoever is silent for too long is split off with the contexts it has, and goes on by itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from actors.players.player import TimeStep
from gato.acting import Policy
from gato.acting_state import ActingState
from gato.sequence import Window
from gato.version import Version


class GroupKey(NamedTuple):
    """What members of a group have in common."""

    task: str
    role: str
    version: Version


class Ticket(NamedTuple):
    """One assignment of one client: a later one of the same name is somebody else."""

    client: str
    serial: str


class Group:
    """Members that act in step. Their rows stand in the order in which they joined."""

    def __init__(self, key: GroupKey, policy: Policy, prompt: Window | None) -> None:
        self.key = key
        self._policy = policy
        self._prompt = prompt
        self._state: ActingState | None = None
        self.members: dict[Ticket, int] = {}
        """Rows of each."""
        self.asked: dict[Ticket, TimeStep] = {}
        self.answers: dict[Ticket, Shaped[np.ndarray, "N ..."]] = {}

    def _rows(self, member: Ticket) -> Int64[np.ndarray, " N"]:
        names = list(self.members)
        begin = sum(self.members[name] for name in names[: names.index(member)])
        return np.arange(begin, begin + self.members[member])

    def join(self, member: Ticket, num_rows: int) -> None:
        if self._state is None:
            self._state = self._policy.start(num_rows, self._prompt)
        else:
            there = self._state.num_envs
            self._state = self._state.gather(
                np.append(np.arange(there), np.zeros(num_rows, np.int64))
            )
        self.members[member] = num_rows
        self.reset(member, np.ones(num_rows, np.bool_))

    def leave(self, member: Ticket) -> None:
        assert self._state is not None
        others = np.delete(np.arange(self._state.num_envs), self._rows(member))
        self._state = self._state.gather(others) if len(others) else None
        del self.members[member]
        self.asked.pop(member, None)

    def split_off(self, member: Ticket) -> Group:
        """It leaves for a group of its own, with its contexts."""
        assert self._state is not None
        alone = Group(self.key, self._policy, self._prompt)
        alone._state = self._state.gather(self._rows(member))
        alone.members[member] = self.members[member]
        self.leave(member)
        return alone

    def reset(self, member: Ticket, rows: Bool[np.ndarray, " N"]) -> None:
        """These of its rows begin a new episode."""
        assert self._state is not None
        of_all = np.zeros(self._state.num_envs, np.bool_)
        of_all[self._rows(member)] = rows
        self._state.reset(of_all)

    def ask(self, member: Ticket, step: TimeStep) -> None:
        """The member waits for actions of this step."""
        if step.is_first.any():
            self.reset(member, step.is_first)
        self.asked[member] = step

    def compute_if_complete(self) -> bool:
        """One round, once all have asked."""
        if self._state is None or len(self.asked) < len(self.members):
            return False
        asked = [self.asked[member] for member in self.members]
        observations = {
            name: np.concatenate([step.observations[name] for step in asked])
            for name in self._policy.task.observations
        }
        rewards = np.concatenate([step.rewards for step in asked])
        actions = self._policy.act(self._state, observations, rewards)
        self.answers |= {member: actions[self._rows(member)] for member in self.members}
        self.asked.clear()
        return True
