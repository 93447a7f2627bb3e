"""The inference server: each client gets the actions that it would get alone, also if others join,
leave or die."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from actors.assignment import Assignment
from actors.envs.vector import VectorEnv
from actors.players.gato_player import GatoPlayers
from actors.players.inference_batch import Ticket
from actors.players.inference_client import ServedPlayer, ServedPlayers, Server
from actors.players.inference_server import InferenceServer, NotServedError
from actors.players.player import Player, TimeStep
from actors.rollout import play
from actors.worker import Resting, WeightedPlayer, WeightsSource, Worker
from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.network.model import Gato
from gato.network.quantise import Int8Kind, quantised
from gato.version import Version
from gato.weights import Weights, snapshot
from tests.actors.fakes import COUNTING, ListSink, counting_envs
from tests.cluster.wait import until
from tests.gato.models import small_model

MODEL: Gato = small_model(64)
SAMPLING = ActingConfig(window_steps=4, continuous="sample")
PLAYERS = GatoPlayers(
    model=MODEL.config,
    evaluate={COUNTING.name: ActingConfig(window_steps=4)},
    generate={COUNTING.name: SAMPLING},
    seed=0,
)


def weights(number: int) -> Weights:
    return Weights(version=Version(1, number), learner_step=number, arrays=snapshot(MODEL))


class Source:
    """Offers the version that it was told last."""

    def __init__(self, number: int) -> None:
        self.number = number

    def newer_than(self, version: Version | None) -> Weights | None:
        newest = weights(self.number)
        return newest if version is None or newest.version > version else None


def server_of(number: int = 1, *, patience_s: float = 60.0) -> InferenceServer:
    return InferenceServer(
        PLAYERS, {COUNTING.name: COUNTING}, Source(number), patience_s=patience_s
    )


def actions_of(envs: VectorEnv, player: Player, seeds: list[int]) -> dict[int, np.ndarray]:
    return {
        e.seed: e.actions
        for e in play(envs, player, seeds, source="t", new_key=lambda: "k")
        if e.seed is not None
    }


def alone(role: str, seeds: list[int], num_envs: int) -> dict[int, np.ndarray]:
    player = PLAYERS(COUNTING, num_envs, role)
    player.load(weights(1))
    return actions_of(counting_envs(num_envs), player, seeds)


def served(
    server: InferenceServer, client: str, role: str, seeds: list[int], num_envs: int
) -> dict[int, np.ndarray]:
    player = ServedPlayer(server, client, COUNTING, role, num_envs)
    newest = server.newer_than(client, None)
    assert newest is not None
    player.load(newest)
    try:
        return actions_of(counting_envs(num_envs), player, seeds)
    finally:
        player.rest()


def test_the_parts_are_what_others_ask_for() -> None:
    assert isinstance(server_of(), Server)
    player = ServedPlayer(server_of(), "w0", COUNTING, "evaluate", 2)
    assert isinstance(player, WeightedPlayer)
    assert isinstance(player, Resting)
    assert isinstance(ServedPlayers(server=server_of(), client="w0"), WeightsSource)


@pytest.mark.parametrize("role", ["evaluate", "generate"])
def test_a_single_client_gets_the_same_actions_as_a_player_of_its_own(role: str) -> None:
    seeds = [4, 1, 2, 8, 3]
    expected, got = alone(role, seeds, 2), served(server_of(), "w0", role, seeds, 2)
    assert set(got) == set(seeds)
    for seed in seeds:
        np.testing.assert_array_equal(got[seed], expected[seed])


def test_clients_that_join_and_leave_get_the_actions_that_each_would_get_alone() -> None:
    seeds = {"w0": [4, 1, 2], "w1": [9, 14, 19, 3], "w2": [0]}
    server = server_of()

    def go(client: str) -> dict[int, np.ndarray]:
        return served(server, client, "evaluate", seeds[client], min(2, len(seeds[client])))

    with ThreadPoolExecutor(3) as pool:
        got = dict(zip(seeds, pool.map(go, seeds), strict=True))
    for client, of_client in seeds.items():
        expected = alone("evaluate", of_client, min(2, len(of_client)))
        for seed in of_client:
            np.testing.assert_allclose(got[client][seed], expected[seed], rtol=1e-3, atol=1.0)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def observed(num_rows: int, value: float = 1.0, *, is_first: bool = True) -> TimeStep:
    state = np.full((num_rows, 2), value, np.float32)
    step = TimeStep.first({"state": state}, seeds=range(num_rows))
    return step if is_first else replace(step, is_first=~step.is_first)


def begin(server: InferenceServer, client: str, num_rows: int = 1) -> Ticket:
    newest = server.newer_than(client, None)
    assert newest is not None
    return server.begin(client, COUNTING.name, "evaluate", num_rows, newest.version)


def alone_at_once(num_rows: int) -> np.ndarray:
    """The first actions of a player without a server."""
    player = PLAYERS(COUNTING, num_rows, "evaluate")
    player.load(weights(1))
    return player.act(observed(num_rows))


def test_clients_of_one_group_are_answered_when_the_last_has_asked() -> None:
    server, got = server_of(), dict[str, np.ndarray]()
    first, second = begin(server, "w0", 2), begin(server, "w1", 2)
    waiting = in_thread(lambda: got.update(w0=server.act(first, observed(2))))
    waiting.join(0.05)
    assert waiting.is_alive()
    got["w1"] = server.act(second, observed(2))
    waiting.join(30)
    np.testing.assert_allclose(got["w0"], got["w1"])


def test_a_group_does_not_wait_for_a_client_that_has_ended() -> None:
    server = server_of()
    first, second = begin(server, "w0"), begin(server, "w1")
    waiting = in_thread(lambda: server.act(first, observed(1)))
    server.end(second)
    waiting.join(30)
    assert not waiting.is_alive()


def test_a_pass_that_fails_is_told_to_all_of_its_group_and_may_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, expected = server_of(), alone_at_once(2)
    first, second = begin(server, "w0"), begin(server, "w1")
    failures = [MemoryError("no memory")]
    choose = Policy._choose

    def fails_once(self: Policy, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if failures:
            raise failures.pop()
        return choose(self, logits)

    monkeypatch.setattr(Policy, "_choose", fails_once)
    told, got = list[str](), dict[str, np.ndarray]()

    def fail(ticket: Ticket) -> None:
        with pytest.raises(MemoryError, match="no memory"):
            server.act(ticket, observed(1))
        told.append(ticket.client)

    def act(ticket: Ticket) -> None:
        got[ticket.client] = server.act(ticket, observed(1))

    for does in (fail, act):
        threads = [in_thread(partial(does, ticket)) for ticket in (first, second)]
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    assert sorted(told) == ["w0", "w1"]
    np.testing.assert_allclose(np.concatenate([got["w0"], got["w1"]]), expected)
    server.end(first)
    server.end(second)


def test_a_silent_client_is_split_off_with_its_contexts() -> None:
    steps = [observed(2), *[observed(2, i, is_first=False) for i in range(4)]]
    never_silent = server_of()
    ticket = begin(never_silent, "w0", 2)
    expected = [never_silent.act(ticket, step) for step in steps]
    server = server_of(patience_s=0.01)
    busy, silent = begin(server, "w0", 1), begin(server, "w1", 2)
    with ThreadPoolExecutor(1) as pool:
        together = pool.submit(server.act, busy, observed(1))
        got = [server.act(silent, steps[0])]
        together.result()
    for _ in range(3):
        # The first call waits for the silent client, the later ones wait for none.
        server.act(busy, observed(1))
    got += [server.act(silent, step) for step in steps[1:]]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1.0)


def test_a_client_that_was_split_off_is_taken_back_with_its_contexts_once_it_is_quick() -> None:
    steps = [observed(2), *[observed(2, i, is_first=False) for i in range(4)]]
    never_silent = server_of()
    ticket = begin(never_silent, "w0", 2)
    expected = [never_silent.act(ticket, step) for step in steps]
    server = server_of(patience_s=0.01)
    busy, silent = begin(server, "w0", 1), begin(server, "w1", 2)
    with ThreadPoolExecutor(1) as pool:
        together = pool.submit(server.act, busy, observed(1))
        got = [server.act(silent, steps[0])]
        together.result()
        for _ in range(3):
            server.act(busy, observed(1))
        assert server._playing[silent] is not server._playing[busy]
        server._patience_s = 60.0  # whatever the machine does, it is quick from now on
        for step in steps[1:]:
            waiting = pool.submit(server.act, silent, step)
            until(lambda: silent in server._playing[busy].asked)
            server.act(busy, observed(1))
            got.append(waiting.result(60))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1.0)


def test_a_dead_client_is_forgotten_with_the_version_that_it_was_told() -> None:
    source = Source(1)
    server = InferenceServer(PLAYERS, {COUNTING.name: COUNTING}, source, forgets_after_s=0.0)
    dead = begin(server, "w0")
    server.newer_than("w0", None)
    source.number = 2
    server.newer_than("w1", None)
    with pytest.raises(NotServedError, match="w0 is not served here"):
        server.act(dead, observed(1))
    with pytest.raises(NotServedError, match=r"weights 1\.1 are not here any more"):
        server.begin("w0", COUNTING.name, "evaluate", 1, Version(1, 1))


def test_an_assignment_is_played_to_its_end_with_the_version_that_it_began_with() -> None:
    source = Source(1)
    server = InferenceServer(PLAYERS, {COUNTING.name: COUNTING}, source)
    assert (newest := server.newer_than("w0", None)) is not None
    assert (newest.version, newest.learner_step, newest.arrays) == (Version(1, 1), 1, {})
    assert server.newer_than("w0", newest.version) is None
    ticket = server.begin("w0", COUNTING.name, "evaluate", 1, Version(1, 1))
    source.number = 2
    server.newer_than("w1", None)
    server.act(ticket, observed(1))  # with 1.1, which the others no longer begin with
    server.end(ticket)
    with pytest.raises(NotServedError, match=r"weights 1\.1 are not here any more"):
        server.begin("w1", COUNTING.name, "evaluate", 1, Version(1, 1))


def test_the_version_that_a_client_was_told_stays_until_it_begins() -> None:
    source = Source(1)
    server = InferenceServer(PLAYERS, {COUNTING.name: COUNTING}, source)
    told = server.newer_than("w0", None)
    assert told is not None
    for number in (2, 3, 4):
        source.number = number
        server.newer_than("w1", None)
    for number in (2, 3):  # told to w1, which was told newer ones since
        with pytest.raises(NotServedError, match=rf"weights 1\.{number} are not here any more"):
            server.begin("w2", COUNTING.name, "evaluate", 1, Version(1, number))
    server.begin("w0", COUNTING.name, "evaluate", 1, told.version)
    server.newer_than("w1", None)
    with pytest.raises(NotServedError, match=r"weights 1\.1 are not here any more"):
        server.begin("w2", COUNTING.name, "generate", 1, told.version)


def test_others_act_while_new_weights_come() -> None:
    coming, here = threading.Event(), threading.Event()

    class Slow(Source):
        def newer_than(self, version: Version | None) -> Weights | None:
            if version is not None:
                coming.set()
                assert here.wait(30)
            return super().newer_than(version)

    source = Slow(1)
    server = InferenceServer(PLAYERS, {COUNTING.name: COUNTING}, source)
    ticket = begin(server, "w0")
    source.number = 2
    with ThreadPoolExecutor(2) as pool:
        told = pool.submit(server.newer_than, "w1", None)
        assert coming.wait(30)
        try:
            assert pool.submit(server.act, ticket, observed(1)).result(10).shape == (1, 1)
        finally:
            here.set()
        assert (newest := told.result(30)) is not None
    assert newest.version == Version(1, 2)


def test_a_worker_that_was_started_again_gets_its_answer_and_its_old_self_none() -> None:
    server, rejected = server_of(), list[str]()
    old, other = begin(server, "w0"), begin(server, "w1")

    def act_as_old() -> None:
        try:
            server.act(old, observed(1))
        except NotServedError as problem:
            rejected.append(str(problem))

    waiting = in_thread(act_as_old)
    waiting.join(0.05)
    new = begin(server, "w0")
    waiting.join(30)
    assert rejected == ["w0 began another assignment while this waited"]
    server.end(old)  # too late: it is over, and not the new one's
    with ThreadPoolExecutor(2) as pool:
        for answer in [pool.submit(server.act, ticket, observed(1)) for ticket in (new, other)]:
            assert answer.result(30).shape == (1, 1)


def test_weights_are_quantised_once_for_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[str]()

    def counted(model: Gato, kind: Int8Kind) -> Gato:
        made.append(kind)
        return quantised(model, kind)

    monkeypatch.setattr("actors.players.inference_server.quantised", counted)
    monkeypatch.setattr("gato.acting.policy.quantised", counted)
    acting = {COUNTING.name: ActingConfig(window_steps=4, int8="weights")}
    players = GatoPlayers(model=MODEL.config, evaluate=acting, generate=acting, seed=0)
    server = InferenceServer(players, {COUNTING.name: COUNTING}, Source(1))
    for role in ("evaluate", "generate"):
        server.newer_than("w0", None)
        server.act(server.begin("w0", COUNTING.name, role, 1, Version(1, 1)), observed(1))
    assert made == ["weights"]


def test_a_worker_goes_on_after_its_server_was_restarted() -> None:
    class Restarting:
        """Forgets all of its clients, as a process that was killed and started again does."""

        def __init__(self) -> None:
            self.server, self.decisions = server_of(), 0

        def newer_than(self, client: str, version: Version | None) -> Weights | None:
            return self.server.newer_than(client, version)

        def begin(
            self, client: str, task: str, role: str, num_rows: int, version: Version
        ) -> Ticket:
            return self.server.begin(client, task, role, num_rows, version)

        def end(self, ticket: Ticket) -> None:
            self.server.end(ticket)

        def act(self, ticket: Ticket, step: TimeStep) -> np.ndarray:
            self.decisions += 1
            if self.decisions == 3:
                self.server = server_of()
            return self.server.act(ticket, step)

    shared = ServedPlayers(server=Restarting(), client="w0")
    worker = Worker(
        "w0",
        {COUNTING.name: COUNTING},
        shared,
        ListSink(),
        shared,
        make=lambda task, n: counting_envs(n),
    )
    assignment = Assignment(role="generate", task=COUNTING.name, seeds=(4, 1))
    # which is not the task's failure
    with pytest.raises(NotServedError, match="w0 is not served here"):
        worker.perform(assignment)
    report, _ = worker.perform(assignment)
    assert report.refused == {}
    assert report.episodes == 2
