"""The inference server: acts for many workers with one copy of the weights.

Workers that play the same task, role and version are batched (`actors.players.inference_batch`): a
step is computed when the last of them has asked. A worker joins the batch when it begins an
assignment, and leaves when it ends it. One that is silent for longer than the patience of the
others is split off: it keeps its contexts, and acts alone until it is quick again.
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
from gato.acting.policy import Policy
from gato.network.model import Gato
from gato.network.quantise import Int8Kind, quantised
from gato.task import Task
from gato.version import Version
from gato.weights import Weights, load

PATIENT_PASSES = 4


class NotServedError(RuntimeError):
    """The server does not know this assignment: it was restarted, or has forgotten the client. The
    task is not at fault: the assignment may succeed when it is played again."""


@runtime_checkable
class WeightsSource(Protocol):
    def newer_than(self, version: Version | None) -> Weights | None:
        """The newest weights, or None if they are not newer than `version`."""
        ...


class _Copies:
    """The model of one version, and its 8-bit copies, made when they are first used."""

    def __init__(self, model: Gato, learner_step: int) -> None:
        self.learner_step = learner_step
        self._of_kind: dict[Int8Kind | None, Gato] = {None: model}

    def of_kind(self, int8: Int8Kind | None) -> Gato:
        if int8 is not None and int8 not in self._of_kind:
            self._of_kind[int8] = quantised(self._of_kind[None], int8)
        return self._of_kind[int8]


class InferenceServer:
    """Acts for clients. Each client calls from a thread of its own, and plays one assignment at a
    time.

    server = InferenceServer(players, tasks, source)
    weights = server.newer_than("w0", None)           # the version only: the arrays stay here
    ticket = server.begin("w0", "mujoco/hopper", "evaluate", 4, weights.version)
    actions = server.act(ticket, step)                # waits for the others of its group
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
        """Args:
        players: Makes the models, and says how each task is decoded.
        tasks: Tasks by name.
        source: Where the weights come from.
        patience_s: Seconds that a group waits for one of its clients before it goes on without.
        forgets_after_s: Seconds after which a silent client counts as dead: its contexts and
            its version are dropped.
        """
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
        """The version that each client was told last, which it may be about to begin with."""
        self._heard_s: dict[str, float] = {}
        self._arriving: set[Ticket] = set()
        """Those that have asked, but wait for others who compute."""
        self._changed = threading.Condition()
        self._preparing = threading.Lock()
        """Held while weights, prompts and models are prepared, which takes long; others act
        meanwhile. Lock order: `_preparing` before `_changed`."""

    def newer_than(self, client: str, version: Version | None) -> Weights | None:
        """The newest version, without its arrays, or None if it is not newer than `version`.

        It is kept for the client until it begins, or asks again.
        """
        with self._preparing:
            self._pull()
        with self._changed:
            self._forget_silent_clients()
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
        """Load the source's weights into a model, if they are newer."""
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
        """Drop all versions but the newest, and those that a client may be about to begin with.
        Groups keep the model that they play."""
        keep = {max(self._copies), *self._pinned.values()} if self._copies else set[Version]()
        self._copies = {
            version: copies for version, copies in self._copies.items() if version in keep
        }

    def _forget_silent_clients(self) -> None:
        since_s = time.monotonic() - self._forgets_after_s
        for client in [client for client, heard_s in self._heard_s.items() if heard_s < since_s]:
            self._leave(client)
            self._pinned.pop(client, None)
            del self._heard_s[client]

    def begin(self, client: str, task: str, role: str, num_rows: int, version: Version) -> Ticket:
        """Begin an assignment, which is played with this version to its end. It ends the client's
        assignment before.

        Raises:
            NotServedError: if the version has been dropped.
        """
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
        """End the assignment: its group does not wait for it any more."""
        with self._changed:
            if ticket in self._playing:
                self._leave(ticket.client)

    def _leave(self, client: str) -> None:
        for ticket in [ticket for ticket in self._playing if ticket.client == client]:
            group = self._playing.pop(ticket)
            group.leave(ticket)
            group.answers.pop(ticket, None)
            group.failures.pop(ticket, None)
            if not group.members and self._joinable.get(group.key) is group:
                del self._joinable[group.key]
            group.compute_if_complete()
        self._changed.notify_all()

    def _group(self, ticket: Ticket, asked_s: float) -> Group:
        if ticket not in self._playing:
            raise NotServedError(
                f"{ticket.client} is not served here: it was silent for too long, began another"
                " assignment, or this server was restarted"
            )
        group, was_silent_s = self._playing[ticket], asked_s - self._heard_s[ticket.client]
        self._heard_s[ticket.client] = asked_s
        joinable = self._joinable.setdefault(group.key, group)
        if joinable is not group and was_silent_s < self._patience_with(joinable):
            joinable.take_back(group)
            self._playing[ticket] = group = joinable
        return group

    def _patience_with(self, group: Group) -> float:
        """Seconds that its members wait for each other: some passes at least, since a machine that
        is slow for the server may be so for its clients."""
        return max(self._patience_s, PATIENT_PASSES * group.pass_s)

    def act(self, ticket: Ticket, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        """Actions [N, *shape] for the client's rows; waits until all of its group have asked.

        Raises:
            NotServedError: if the server does not know the ticket, or the client began another
                assignment meanwhile.
            Exception: whatever the pass of its group failed with.
        """
        asked_s = time.monotonic()  # before it waits for others who compute
        self._arriving.add(ticket)
        with self._changed:
            self._arriving.discard(ticket)
            group = self._group(ticket, asked_s)
            group.ask(ticket, step)
            if group.compute_if_complete():
                self._changed.notify_all()

            def is_over() -> bool:
                told = ticket in group.answers or ticket in group.failures
                return told or ticket not in group.members

            # After each patience without an answer, those that have not asked are split off.
            while not self._changed.wait_for(is_over, self._patience_with(group)):
                waited_for = group.members.keys() - group.asked.keys()
                silent = [each for each in waited_for if each not in self._arriving]
                self._playing |= group.split_off(*silent)
                if group.compute_if_complete():
                    self._changed.notify_all()
            if (problem := group.failures.pop(ticket, None)) is not None:
                raise problem
            if ticket not in group.answers:
                raise NotServedError(f"{ticket.client} began another assignment while this waited")
            self._heard_s[ticket.client] = time.monotonic()
            return group.answers.pop(ticket)
