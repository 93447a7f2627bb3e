"""Clients of a server: each is served as if it were alone, and frees its rows when it is gone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.serving.sessions import RefusedError, Sessions
from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.acting.state import ActingState
from gato.exported.policy import LoadedPolicy
from gato.exported.policy_file import PolicyFile
from tests.cluster.wait import until
from tests.gato.exported.policies import model_for, policy_file, prompt_of
from tests.gato.models import GAME, ROBOT, random_observations

FOREVER_S = 1e6


def sessions_of(policy: PolicyFile | None = None, **settings: float) -> Sessions:
    return Sessions(
        policy or policy_file(ROBOT, GAME),
        text=None,
        **{"patience_s": 60.0, **settings},  # pyright: ignore[reportArgumentType]
    )


def robot_seen(num_steps: int, seed: int = 0) -> np.ndarray:
    return random_observations(ROBOT, num_steps, np.random.default_rng(seed))["state"]


def test_a_client_gets_the_actions_of_the_policy_in_a_file_also_in_its_next_episode() -> None:
    policy = policy_file(
        ROBOT,
        acting=ActingConfig(window_steps=3, prompt_steps=2),
        prompts={ROBOT.name: prompt_of(ROBOT, 2)},
    )
    sessions, alone, seen, key = (
        sessions_of(policy),
        LoadedPolicy(policy),
        robot_seen(5),
        "",
    )
    for _ in range(2):
        key = sessions.begin(ROBOT.name, before=key)
        alone.reset()
        for state in seen:
            got = sessions.act(key, {"state": state}, reward=0.0)
            np.testing.assert_array_equal(got, alone.act(state))
    assert sessions.num_sessions == 1


def acted_together(
    sessions: Sessions, pool: ThreadPoolExecutor, first: str, second: str, **settings: Any
) -> None:
    """One act of the first client alone, and one of both: each waits for the other from then on."""
    seen = {"state": robot_seen(1)[0]}
    sessions.act(first, seen, reward=0.0)
    other = pool.submit(sessions.act, second, seen, reward=0.0, **settings)
    until(lambda: sessions._sessions[second].ticket is not None)
    sessions.act(first, seen, reward=0.0)
    other.result(60)


def test_the_clients_of_a_task_share_a_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions, passes, act = sessions_of(), list[int](), Policy.act

    def counted(policy: Policy, state: ActingState, *given: Any) -> np.ndarray:
        passes.append(state.num_envs)
        return act(policy, state, *given)

    monkeypatch.setattr(Policy, "act", counted)
    with ThreadPoolExecutor(1) as pool:
        acted_together(sessions, pool, sessions.begin(ROBOT.name), sessions.begin(ROBOT.name))
    assert passes == [1, 2]


def test_a_client_that_is_gone_is_not_waited_for() -> None:
    sessions, seen, gone = sessions_of(gone_s=0.0), robot_seen(1), threading.Event()
    first, second = sessions.begin(ROBOT.name), sessions.begin(ROBOT.name)
    with ThreadPoolExecutor(1) as pool:
        acted_together(sessions, pool, first, second, is_gone=gone.is_set)
        waiting = pool.submit(sessions.act, first, {"state": seen[0]}, reward=0.0)
        sessions.end_silent()
        assert not waiting.done()
        gone.set()
        sessions.end_silent()
        assert waiting.result(60).shape == (3,)
    assert sessions.num_sessions == 1
    with pytest.raises(RefusedError, match="there is no such episode") as caught:
        sessions.act(second, {"state": seen[0]}, reward=0.0)
    assert caught.value.status == 410


def test_a_silent_client_is_forgotten_after_its_time() -> None:
    patient, quick = sessions_of(idle_s=FOREVER_S), sessions_of(idle_s=0.0)
    for sessions, left in ((patient, 1), (quick, 0)):
        sessions.begin(ROBOT.name)
        sessions.end_silent()
        assert sessions.num_sessions == left


def test_what_a_client_does_wrong_is_refused_and_harms_no_other() -> None:
    sessions, seen = sessions_of(most=2), robot_seen(2)
    good, bad = sessions.begin(ROBOT.name), sessions.begin("test/game")
    with pytest.raises(RefusedError, match="2 clients are served already") as full:
        sessions.begin(ROBOT.name)
    assert full.value.status == 503
    with pytest.raises(ValueError, match="but test/game shows"):
        sessions.act(bad, {"state": seen[0]}, reward=0.0)
    sessions.act(good, {"state": seen[0]}, reward=0.0)
    for reward in (float("inf"), float("nan"), 1e39):
        with pytest.raises(ValueError, match="expected a number within"):
            sessions.act(good, {"state": seen[1]}, reward=reward)
    assert sessions.act(good, {"state": seen[1]}, reward=0.0).shape == (3,)
    with pytest.raises(ValueError, match="unknown task"):
        sessions.begin("test/other")


def test_a_return_conditioned_policy_asks_for_rewards() -> None:
    policy = policy_file(ROBOT, model=model_for(returns=True))
    sessions, seen = sessions_of(policy), robot_seen(2)
    key, alone = sessions.begin(ROBOT.name), LoadedPolicy(policy)
    alone.reset()
    sessions.act(key, {"state": seen[0]}, reward=None)
    alone.act(seen[0])
    with pytest.raises(ValueError, match="send the reward"):
        sessions.act(key, {"state": seen[1]}, reward=None)
    alone.observe(0.4)
    got = sessions.act(key, {"state": seen[1]}, reward=0.4)
    np.testing.assert_array_equal(got, alone.act(seen[1]))


def test_the_end_of_the_server_ends_those_who_wait() -> None:
    sessions, seen = sessions_of(), robot_seen(1)
    first, second = sessions.begin(ROBOT.name), sessions.begin(ROBOT.name)
    with ThreadPoolExecutor(1) as pool:
        acted_together(sessions, pool, first, second)
        waiting = pool.submit(sessions.act, first, {"state": seen[0]}, reward=0.0)
        until(lambda: sessions._sessions[first].is_acting)
        sessions.close()
        with pytest.raises(RefusedError, match="there is no such episode"):
            waiting.result(60)
    with pytest.raises(RefusedError, match="is ending"):
        sessions.begin(ROBOT.name)


def test_weights_in_float32_are_served_as_they_are() -> None:
    policy = policy_file(ROBOT, is_exact=True)
    rough = replace(policy, weights=policy_file(ROBOT).weights)
    seen = robot_seen(1)[0]

    def first_action(of: PolicyFile) -> np.ndarray:
        sessions = sessions_of(of)
        return sessions.act(sessions.begin(ROBOT.name), {"state": seen}, reward=None)

    alone = LoadedPolicy(policy)
    alone.reset()
    np.testing.assert_array_equal(first_action(policy), alone.act(seen))
    assert not np.array_equal(first_action(policy), first_action(rough))
