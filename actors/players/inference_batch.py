"""A group: clients that play the same task, role and version, batched step by step.

The contexts of one batch share a ring over time (`gato.network.kv_cache`), so no member can skip a
step. A member that is silent for too long is split off with its contexts, acts alone, and is taken
back with them once it is quick again.
"""

from __future__ import annotations

import time
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
        self._joining: dict[Ticket, ActingState] = {}
        """Contexts of the last members, which are not in the batch yet: its caches are large, so
        that they are copied once before a pass, and not for each member."""
        self.members: dict[Ticket, int] = {}
        """Number of rows of each member."""
        self.asked: dict[Ticket, TimeStep] = {}
        """Steps of the members that wait for actions."""
        self.answers: dict[Ticket, Shaped[np.ndarray, "N ..."]] = {}
        """Actions that members have not fetched yet."""
        self.failures: dict[Ticket, Exception] = {}
        """Why the last pass failed, of members that have not been told yet."""
        self.pass_s = 0.0
        """Seconds that the last forward pass took, with copying."""

    def _rows(self, *members: Ticket) -> Int64[np.ndarray, " N"]:
        """Indices of the members' rows in the batch."""
        ends = np.cumsum(list(self.members.values()))
        end_of = dict(zip(self.members, ends.tolist(), strict=True))
        rows = [np.arange(end_of[name] - self.members[name], end_of[name]) for name in members]
        return np.concatenate([np.zeros(0, np.int64), *rows])

    def join(self, member: Ticket, num_rows: int) -> None:
        """Add rows with empty contexts at the end of the batch."""
        if self._state is None:
            self._state = self._policy.start(num_rows, self._prompt)
        else:
            # Copies of row 0 have the right shape, and the prompt.
            fresh = self._state.gather(np.zeros(num_rows, np.int64))
            fresh.reset(np.ones(num_rows, np.bool_))
            self._joining[member] = fresh
        self.members[member] = num_rows

    def leave(self, *members: Ticket) -> None:
        """Remove the members' rows from the batch."""
        assert self._state is not None
        batched = [name for name in members if self._joining.pop(name, None) is None]
        if batched:
            others = np.delete(np.arange(self._state.num_envs), self._rows(*batched))
            if len(others):
                self._state = self._state.gather(others)
            elif self._joining:
                self._state = self._joining.pop(next(iter(self._joining)))
            else:
                self._state = None
        for name in members:
            del self.members[name]
            self.asked.pop(name, None)

    def split_off(self, *members: Ticket) -> dict[Ticket, Group]:
        """Move each of the members, with its contexts, to a group of its own."""
        assert self._state is not None
        groups: dict[Ticket, Group] = {}
        for name in members:
            groups[name] = alone = Group(self.key, self._policy, self._prompt)
            joining = self._joining.get(name)
            alone._state = joining or self._state.gather(self._rows(name))
            alone.members[name] = self.members[name]
        self.leave(*members)
        return groups

    def take_back(self, alone: Group) -> None:
        """Add the only member of a group that was split off, with its contexts."""
        assert alone._state is not None
        ((member, num_rows),) = alone.members.items()
        self._joining[member] = alone._state
        self.members[member] = num_rows

    def reset(self, member: Ticket, rows: Bool[np.ndarray, " N"]) -> None:
        """Empty the contexts of these rows of the member [N]."""
        assert self._state is not None
        if member in self._joining:
            self._joining[member].reset(rows)
            return
        of_all = np.zeros(self._state.num_envs, np.bool_)
        of_all[self._rows(member)] = rows
        self._state.reset(of_all)

    def ask(self, member: Ticket, step: TimeStep) -> None:
        """Note the member's step; its actions are computed when all members have asked."""
        if step.is_first.any():
            self.reset(member, step.is_first)
        self.asked[member] = step

    def compute_if_complete(self) -> bool:
        """Compute the actions of all members, if all have asked. Returns whether it did. A pass
        that fails is a failure of each member's."""
        if self._state is None or len(self.asked) < len(self.members):
            return False
        begun_s = time.monotonic()
        try:
            actions = self._compute(self._state)
        except Exception as problem:
            self.failures |= dict.fromkeys(self.members, problem)
        else:
            self.answers |= {member: actions[self._rows(member)] for member in self.members}
        self.asked.clear()
        self.pass_s = time.monotonic() - begun_s
        return True

    def _compute(self, state: ActingState) -> Shaped[np.ndarray, "N ..."]:
        """Actions of all rows."""
        if self._joining:
            tokens = self._policy.steps.tokens_per_step
            self._state = state = state.joined(list(self._joining.values()), tokens)
            self._joining.clear()
        asked = [self.asked[member] for member in self.members]
        observations = {
            name: np.concatenate([step.observations[name] for step in asked])
            for name in self._policy.task.observations
        }
        rewards = np.concatenate([step.rewards for step in asked])
        return self._policy.act(state, observations, rewards)
