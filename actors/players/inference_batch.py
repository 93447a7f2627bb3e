"""A group: clients that play the same task, role and version, batched step by step.

The contexts of one batch share a ring over time (`gato.network.kv_cache`), so no member can skip a
step. A member that is silent for too long is split off with its contexts, and continues alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from actors.players.player import TimeStep
from gato.acting.policy import Policy
from gato.acting.state import ActingState
from gato.sequence import Window
from gato.version import Version


class GroupKey(NamedTuple):
    """What the members of a group have in common."""

    task: str
    role: str
    version: Version


class Ticket(NamedTuple):
    """One assignment of one client; each assignment has another serial."""

    client: str
    serial: str


class Group:
    """Members that step together. Their rows stand in the order in which they joined."""

    def __init__(self, key: GroupKey, policy: Policy, prompt: Window | None) -> None:
        self.key = key
        self._policy = policy
        self._prompt = prompt
        self._state: ActingState | None = None
        self.members: dict[Ticket, int] = {}
        """Number of rows of each member."""
        self.asked: dict[Ticket, TimeStep] = {}
        """Steps of the members that wait for actions."""
        self.answers: dict[Ticket, Shaped[np.ndarray, "N ..."]] = {}
        """Actions that members have not fetched yet."""

    def _rows(self, member: Ticket) -> Int64[np.ndarray, " N"]:
        """Indices of the member's rows in the batch."""
        names = list(self.members)
        begin = sum(self.members[name] for name in names[: names.index(member)])
        return np.arange(begin, begin + self.members[member])

    def join(self, member: Ticket, num_rows: int) -> None:
        """Add rows with empty contexts at the end of the batch."""
        if self._state is None:
            self._state = self._policy.start(num_rows, self._prompt)
        else:
            # Copies of row 0 have the right shape; `reset` below empties them.
            there = self._state.num_envs
            self._state = self._state.gather(
                np.append(np.arange(there), np.zeros(num_rows, np.int64))
            )
        self.members[member] = num_rows
        self.reset(member, np.ones(num_rows, np.bool_))

    def leave(self, member: Ticket) -> None:
        """Remove the member's rows from the batch."""
        assert self._state is not None
        others = np.delete(np.arange(self._state.num_envs), self._rows(member))
        self._state = self._state.gather(others) if len(others) else None
        del self.members[member]
        self.asked.pop(member, None)

    def split_off(self, member: Ticket) -> Group:
        """Move the member, with its contexts, to a group of its own."""
        assert self._state is not None
        alone = Group(self.key, self._policy, self._prompt)
        alone._state = self._state.gather(self._rows(member))
        alone.members[member] = self.members[member]
        self.leave(member)
        return alone

    def reset(self, member: Ticket, rows: Bool[np.ndarray, " N"]) -> None:
        """Empty the contexts of these rows of the member [N]."""
        assert self._state is not None
        of_all = np.zeros(self._state.num_envs, np.bool_)
        of_all[self._rows(member)] = rows
        self._state.reset(of_all)

    def ask(self, member: Ticket, step: TimeStep) -> None:
        """Note the member's step; its actions are computed when all members have asked."""
        if step.is_first.any():
            self.reset(member, step.is_first)
        self.asked[member] = step

    def compute_if_complete(self) -> bool:
        """Compute the actions of all members, if all have asked. Returns whether it did."""
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
