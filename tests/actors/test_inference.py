"""One process that acts for many: each gets what it would have decided alone, whoever comes, goes, or dies."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from actors.agent import GatoPlayers
from actors.envs import Envs
from actors.inference import InferenceServer, NotServedError, ServedPlayer, ServedPlayers, Server
from actors.rollout import Player, play
from actors.worker import Assignment, Resting, WeightedPlayer, Worker
from gato.acting import ActingConfig
from gato.model import Gato
from gato.version import Version
from gato.weights import Weights, snapshot
from tests.actors.fakes import COUNTING, ListSink, counting_envs
from tests.gato.models import small_model

MODEL: Gato = small_model(64)
SAMPLING = ActingConfig(window_steps=4, continuous="sample")
PLAYERS = GatoPlayers(
    model=MODEL.config, evaluate={COUNTING.name: ActingConfig(window_steps=4)}, generate={COUNTING.name: SAMPLING}, seed=0
)  # fmt: skip


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
    return InferenceServer(PLAYERS, {COUNTING.name: COUNTING}, Source(number), patience_s=patience_s)


def actions_of(envs: Envs, player: Player, seeds: list[int]) -> dict[int, np.ndarray]:
    return {e.seed: e.actions for e in play(envs, player, seeds, source="t", new_key=lambda: "k") if e.seed is not None}


def alone(role: str, seeds: list[int], num_envs: int) -> dict[int, np.ndarray]:
    player = PLAYERS(COUNTING, num_envs, role)
    player.load(weights(1))
    return actions_of(counting_envs(num_envs), player, seeds)


def served(server: InferenceServer, client: str, role: str, seeds: list[int], num_envs: int) -> dict[int, np.ndarray]:
    player = ServedPlayer(server, client, COUNTING, role, num_envs)
    newest = server.newer_than(None)
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


@pytest.mark.parametrize("role", ["evaluate", "generate"])
def test_who_is_served_alone_gets_the_very_actions_of_a_player_of_its_own(role: str) -> None:
    seeds = [4, 1, 2, 8, 3]
    expected, got = alone(role, seeds, 2), served(server_of(), "w0", role, seeds, 2)
    assert set(got) == set(seeds)
    for seed in seeds:
        np.testing.assert_array_equal(got[seed], expected[seed])


def test_many_who_come_and_go_get_what_each_would_have_decided_alone() -> None:
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


def observed(num_rows: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return {"state": np.ones((num_rows, 2), np.float32)}, np.zeros(num_rows, np.float32)


def test_those_who_play_the_same_decide_in_one_round_when_the_last_has_asked() -> None:
    server, got = server_of(), dict[str, np.ndarray]()
    server.newer_than(None)
    for client in ("w0", "w1"):
        server.begin(client, COUNTING.name, "evaluate", 2, Version(1, 1))
    waiting = in_thread(lambda: got.update(w0=server.act("w0", *observed(2))))
    waiting.join(0.05)
    assert waiting.is_alive()
    got["w1"] = server.act("w1", *observed(2))
    waiting.join(30)
    np.testing.assert_allclose(got["w0"], got["w1"])


def test_nobody_waits_for_who_has_ended() -> None:
    server = server_of()
    server.newer_than(None)
    for client in ("w0", "w1"):
        server.begin(client, COUNTING.name, "evaluate", 1, Version(1, 1))
    waiting = in_thread(lambda: server.act("w0", *observed(1)))
    server.end("w1")
    waiting.join(30)
    assert not waiting.is_alive()


def test_who_is_silent_too_long_is_left_out_and_told_so() -> None:
    server = server_of(patience_s=0.01)
    server.newer_than(None)
    for client in ("w0", "w1"):
        server.begin(client, COUNTING.name, "evaluate", 1, Version(1, 1))
    assert server.act("w0", *observed(1)).shape == (1, 1)
    with pytest.raises(NotServedError, match="w1 is not served here"):
        server.act("w1", *observed(1))


def test_an_assignment_is_played_to_its_end_with_the_version_that_it_began_with() -> None:
    source = Source(1)
    server = InferenceServer(PLAYERS, {COUNTING.name: COUNTING}, source)
    assert (newest := server.newer_than(None)) is not None
    assert (newest.version, newest.learner_step, newest.arrays) == (Version(1, 1), 1, {})
    assert server.newer_than(newest.version) is None
    server.begin("w0", COUNTING.name, "evaluate", 1, Version(1, 1))
    for number in (2, 3, 4):
        source.number = number
        server.newer_than(None)
    assert server.num_models() == 2
    server.act("w0", *observed(1))  # with 1.1, which the others no longer begin with
    with pytest.raises(NotServedError, match=r"weights 1\.1 are not here any more"):
        server.begin("w1", COUNTING.name, "evaluate", 1, Version(1, 1))


def test_a_worker_goes_on_when_its_server_was_started_anew() -> None:
    class Restarting:
        """Forgets all of its clients, as a process that was killed and started again does."""

        def __init__(self) -> None:
            self.server, self.decisions = server_of(), 0

        def begin(self, client: str, task: str, role: str, num_rows: int, version: Version) -> None:
            self.server.begin(client, task, role, num_rows, version)

        def end(self, client: str) -> None:
            self.server.end(client)

        def reset_rows(self, client: str, rows: np.ndarray) -> None:
            self.server.reset_rows(client, rows)

        def act(self, client: str, observations: dict[str, np.ndarray], rewards: np.ndarray) -> np.ndarray:
            self.decisions += 1
            if self.decisions == 3:
                self.server = server_of()
            return self.server.act(client, observations, rewards)

        def newer_than(self, version: Version | None) -> Weights | None:
            return self.server.newer_than(version)

    server = Restarting()
    players = ServedPlayers(server=server, client="w0")
    worker = Worker(
        "w0", {COUNTING.name: COUNTING}, players, ListSink(), server, make=lambda task, n: counting_envs(n)
    )  # fmt: skip
    assignment = Assignment(role="generate", task=COUNTING.name, seeds=(4, 1))
    report, _ = worker.perform(assignment)
    assert any("w0 is not served here" in reason for reason in report.refused)
    report, _ = worker.perform(assignment)
    assert report.refused == {}
    assert report.episodes == 2
