"""Acting for many workers in one place: one copy of the weights, and one batch of all who play a
task in one role.

Those who play the same task, in the same role and with the same version act in step
(`actors.players.inference_batch`): a round is computed when the last of them has asked. Whoever
begins an assignment joins them, whoever ends it leaves; whoever is silent for longer than their
patience goes on by itself, to the end of its assignment: its contexts and rows are kept.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Shaped

from actors.players.gato_player import GatoPlayers
from actors.players.inference_batch import Group, GroupKey, Ticket
from actors.players.player import TimeStep
from gato.acting import Policy
from gato.network.model import Gato
from gato.network.quantise import Int8Kind, quantised
from gato.task import Task
from gato.version import Version
from gato.weights import Weights, load


class NotServedError(RuntimeError):
    """The server serves this assignment no more: it was started anew, or does not know the client
    (any more). No fault of the task's: played again, it may well succeed."""


@runtime_checkable
class WeightsSource(Protocol):
    def newer_than(self, version: Version | None) -> Weights | None:
        """The newest weights, where they are newer than `version`."""
        ...


class _Copies:
    """The model of one version, and those in 8 bits that somebody plays."""

    def __init__(self, model: Gato, learner_step: int) -> None:
        self.learner_step = learner_step
        self._of_kind: dict[Int8Kind | None, Gato] = {None: model}

    def of_kind(self, int8: Int8Kind | None) -> Gato:
        if int8 is not None and int8 not in self._of_kind:
            self._of_kind[int8] = quantised(self._of_kind[None], int8)
        return self._of_kind[int8]


class InferenceServer:
    """Acts for clients, each of which plays one assignment at a time, in a thread of its own.

    server = InferenceServer(players, tasks, source)
    weights = server.newer_than("w0", None)                 # its version alone: the arrays stay
    here ticket = server.begin("w0", "mujoco/hopper", "evaluate", 4, weights.version)
    actions = server.act(ticket, step)                      # waits for the others of its group
    server.end(ticket)
    """

    def __init__(
        self,
        players: GatoPlayers,
        tasks: Mapping[str, Task],
        source: WeightsSource,
        *,
        patience_s: float = 5.0,
        forgets_after_s: float = 3600.0,
    ) -> None:
        """`patience_s`: how long a group waits for one of its clients before it goes on without it.
        `forgets_after_s`: how long the contexts and the version of a silent client are kept, which
        may have died."""
        self._players = players
        self._tasks = tasks
        self._source = source
        self._patience_s = patience_s
        self._forgets_after_s = forgets_after_s
        self._copies: dict[Version, _Copies] = {}
        self._generators: dict[tuple[str, str], torch.Generator] = {}
        self._joinable: dict[GroupKey, Group] = {}
        self._playing: dict[Ticket, Group] = {}
        self._pinned: dict[str, Version] = {}
        """The version that each client was told last: it may be about to begin with it."""
        self._heard_s: dict[str, float] = {}
        self._changed = threading.Condition()
        self._preparing = threading.Lock()
        """Held, before the other, by whoever gets weights, prompts and models, which takes long:
        meanwhile others act."""

    def newer_than(self, client: str, version: Version | None) -> Weights | None:
        """The version that the client can play from now on, without its arrays, where it is newer
        than `version`. The newest one is kept for it until it begins, or asks again."""
        with self._preparing:
            self._pull()
        with self._changed:
            self._forget_the_lost()
            self._heard_s[client] = time.monotonic()
            newest = max(self._copies, default=None)
            if newest is None:
                return None
            self._pinned[client] = newest
            self._drop_old()
            if version is not None and newest <= version:
                return None
            return Weights(
                version=newest, learner_step=self._copies[newest].learner_step, arrays={}
            )

    def _pull(self) -> None:
        with self._changed:
            newest = max(self._copies, default=None)
        weights = self._source.newer_than(newest)
        if weights is None or (newest is not None and weights.version <= newest):
            return
        model = self._players.new_model()
        load(model, weights.arrays)
        with self._changed:
            self._copies[weights.version] = _Copies(model, weights.learner_step)

    def _drop_old(self) -> None:
        """All but the newest, and those that somebody may be about to begin with; groups hold on to
        what they play."""
        keep = {max(self._copies), *self._pinned.values()} if self._copies else set[Version]()
        self._copies = {
            version: copies for version, copies in self._copies.items() if version in keep
        }

    def _forget_the_lost(self) -> None:
        since_s = time.monotonic() - self._forgets_after_s
        for client in [client for client, heard_s in self._heard_s.items() if heard_s < since_s]:
            self._leave(client)
            self._pinned.pop(client, None)
            del self._heard_s[client]

    def begin(self, client: str, task: str, role: str, num_rows: int, version: Version) -> Ticket:
        """The client plays an assignment from now on, with this version to its end. What it played
        before is over."""
        key = GroupKey(task, role, version)
        with self._preparing:
            with self._changed:
                self._leave(client)
                group, copies = self._joinable.get(key), self._copies.get(version)
            if group is None:
                if copies is None:
                    raise NotServedError(
                        f"weights {version} are not here any more; begin with the newest"
                    )
                group = self._new_group(key, copies)
            with self._changed:
                group = self._joinable.setdefault(key, group)
                ticket = Ticket(client, uuid.uuid4().hex)
                group.join(ticket, num_rows)
                self._playing[ticket] = group
                self._heard_s[client] = time.monotonic()
                self._pinned.pop(client, None)
                self._drop_old()
                return ticket

    def _new_group(self, key: GroupKey, copies: _Copies) -> Group:
        task, seed = self._tasks[key.task], self._players.seed
        generator = self._generators.setdefault(
            (key.task, key.role), torch.Generator().manual_seed(seed)
        )
        acting, text = self._players.acting_of(task, key.role), self._players.text
        model = copies.of_kind(acting.int8)
        policy = Policy(model, task, replace(acting, int8=None), generator=generator, text=text)
        find_prompt = self._players.prompt_finder(task, key.role)
        return Group(key, policy, find_prompt() if find_prompt else None)

    def end(self, ticket: Ticket) -> None:
        """The assignment is over: nobody waits for it any more."""
        with self._changed:
            if ticket in self._playing:
                self._leave(ticket.client)

    def _leave(self, client: str) -> None:
        for ticket in [ticket for ticket in self._playing if ticket.client == client]:
            group = self._playing.pop(ticket)
            group.leave(ticket)
            if not group.members and self._joinable.get(group.key) is group:
                del self._joinable[group.key]
            group.compute_if_complete()
        self._changed.notify_all()

    def _group(self, ticket: Ticket) -> Group:
        if ticket not in self._playing:
            raise NotServedError(
                f"{ticket.client} is not served here: it was silent for too long, began something"
                " else, or this server is a new one"
            )
        self._heard_s[ticket.client] = time.monotonic()
        return self._playing[ticket]

    def act(self, ticket: Ticket, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        """An action for each row of the client, when all of its group have asked."""
        with self._changed:
            group = self._group(ticket)
            group.ask(ticket, step)
            if group.compute_if_complete():
                self._changed.notify_all()

            def is_over() -> bool:
                return ticket in group.answers or ticket not in group.members

            while not self._changed.wait_for(is_over, self._patience_s):
                for silent in group.members.keys() - group.asked.keys():
                    self._playing[silent] = group.split_off(silent)
                    if group.compute_if_complete():
                        self._changed.notify_all()
            if ticket not in group.answers:
                raise NotServedError(f"{ticket.client} began something else while this waited")
            return group.answers.pop(ticket)
