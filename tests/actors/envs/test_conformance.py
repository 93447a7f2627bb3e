"""The contract of environments: every way to make ours keeps it, and what does not keep it is found
and named."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from actors.envs.conformance import check_envs, findings
from actors.envs.env import Env
from actors.envs.factory import make_envs
from actors.envs.vector import VectorEnv
from actors.tasks.atari_table import with_sticky
from actors.tasks.catalog import TASKS
from tests.actors.fakes import COUNTING, CountingEnv
from tests.actors.faulty import FAULTS, faulty

ROBOTS = [name for name in TASKS if name.startswith("mujoco/")]
needs_envpool = pytest.mark.skipif(
    find_spec("envpool") is None, reason="the extra envpool is not installed"
)


@pytest.mark.parametrize("name", ROBOTS)
def test_our_robots_keep_it(name: str) -> None:
    assert check_envs(TASKS[name]) == []


def test_our_games_keep_it() -> None:
    assert check_envs(TASKS["atari84/pong"]) == []


def test_processes_keep_it() -> None:
    assert check_envs(faulty("none"), partial(make_envs, backend="process")) == []


@needs_envpool
def test_the_games_of_envpool_keep_it() -> None:
    assert check_envs(TASKS["atari/pong"], partial(make_envs, backend="envpool")) == []


def keeps(kind: type[Env]) -> list[str]:
    return [
        str(found)
        for found in findings(
            COUNTING, lambda task, num_envs: VectorEnv(task, [kind() for _ in range(num_envs)])
        )
    ]


class Ending(CountingEnv):
    """Every episode ends itself."""

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        observation, reward, terminated, truncated = super().step(action)
        return observation, reward, terminated or truncated, False


def test_a_fake_that_keeps_it_has_no_findings() -> None:
    assert keeps(Ending) == []


class Forgetful(CountingEnv):
    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self.seed, self.count = seed, min(self.count, 1)
        return self._observation()


class Dice(CountingEnv):
    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        observation, _, terminated, truncated = super().step(action)
        return observation, float(np.random.default_rng().normal()), terminated, truncated


class Twin(CountingEnv):
    shared = np.zeros(1)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        observation, _, terminated, truncated = super().step(action)
        self.shared += action
        return observation, float(self.shared[0] % 7), terminated, truncated


class Timid(CountingEnv):
    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        if abs(action[0]) == 1e6:
            raise AssertionError("too far")
        return super().step(action)


class Greedy(CountingEnv):
    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        action *= 0
        return super().step(action)


class Growing(CountingEnv):
    def extras(self) -> dict[str, np.ndarray]:
        return {"secret": np.zeros(1 + self.count, np.uint8)}


class Stubborn(CountingEnv):
    closed = 0

    def close(self) -> None:
        self.closed += 1
        assert self.closed == 1


class Still(CountingEnv):
    def _observation(self) -> dict[str, np.ndarray]:
        return {"state": np.zeros(2, np.float32)}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        return super().step(action)[0], 0.0, False, False


class Worn(Ending):
    """Begins otherwise after an episode that ended."""

    ended = False

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        observation = super().reset(seed)
        return {"state": observation["state"] + self.ended}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        outcome = super().step(action)
        self.ended = outcome[2]
        return outcome


class Late(Ending):
    """Gives teachers something in its steps, and nothing at reset."""

    def extras(self) -> dict[str, np.ndarray]:
        return super().extras() if self.count else {}


class Bare(CountingEnv):
    def _observation(self) -> dict[str, np.ndarray]:
        return {}


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (Forgetful, "error: a seed begins the same episode: seed 7 played again after another"),
        (Dice, "error: a seed begins the same episode: seed 7"),
        (Twin, "error: a row plays alone: seed 8 plays otherwise next to another row"),
        (
            Timid,
            (
                r"error: every edge of the actions is taken: fake/counting broke at step 0:"
                r" AssertionError('too far')"
            ),
        ),
        (Greedy, "error: what is given stays as it is: an array that was passed or returned"),
        (
            Growing,
            (
                "error: a seed begins the same episode: fake/counting broke at step 0: info of"
                " teacher was secret (1,)"
            ),
        ),
        (
            Late,
            (
                "error: a seed begins the same episode: fake/counting broke at step 0: info of"
                " teacher was nothing"
            ),
        ),
        (
            CountingEnv,
            (
                "warning: an episode is cut no earlier than at the limit: seed 7 is truncated after"
                " 5 steps"
            ),
        ),
        (
            Worn,
            (
                "error: an episode that ended is followed by a whole one: after an episode that"
                " ended, seed 7 begins"
            ),
        ),
        (Stubborn, "error: it can be closed twice: fake/counting broke when it was closed"),
        (Still, "warning: something moves: it shows the same"),
        (Still, "warning: another seed begins another episode"),
        (Bare, "it shows [], its task says ['state']"),
    ],
)
def test_what_does_not_keep_it_is_found(kind: type[Env], found: str) -> None:
    assert any(found in each for each in keeps(kind)), keeps(kind)


class Dear(Ending):
    """Shows prices."""

    def _observation(self) -> dict[str, np.ndarray]:
        return {
            "state": np.array([30_000.0 + 100 * self.seed + self.count, self.count], np.float32)
        }


def test_values_that_all_become_one_token_are_a_warning() -> None:
    (found,) = keeps(Dear)
    assert found.startswith(
        "warning: its values have tokens of their own: state[0]: 100 % of the values are clipped"
    )
    assert "--normalise fake/counting" in found


def test_a_problem_is_said_once_with_the_checks_that_end_at_it() -> None:
    (found,) = keeps(Bare)
    assert found.endswith(
        "it shows [], its task says ['state'] (and 10 more checks end at the same)"
    )


def test_an_environment_that_hangs_is_waited_for_once() -> None:
    make = partial(make_envs, backend="process", step_timeout_s=0.5)
    (found,) = findings(faulty("hang", always=True), make)
    assert found.problem.endswith(
        "no answer in 0.5 s; its process was killed (and 10 more checks end at the same)"
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_what_breaks_is_found(fault: str) -> None:
    with pytest.raises(ValueError, match="does not keep the contract"):
        check_envs(faulty(fault))


def test_sticky_actions_are_a_chance_and_of_games_alone() -> None:
    assert with_sticky(TASKS["atari/pong"], 0.25).env_kwargs["sticky"] == 0.25
    envs = make_envs(with_sticky(TASKS["atari/pong"], 0.25), 1)
    assert envs.versions["sticky"] == "0.25"  # what it is played with is never lost
    assert "sticky" not in make_envs(TASKS["atari/pong"], 1).versions
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), got 1.0; 0.25 is usual"):
        with_sticky(TASKS["atari/pong"], 1.0)
    with pytest.raises(ValueError, match="mujoco/ant is of family 'mujoco'"):
        with_sticky(TASKS["mujoco/ant"], 0.25)


@needs_envpool
@pytest.mark.parametrize("name", ["atari/pong", "atari84/breakout"])
def test_envpool_plays_a_game_as_we_do_bit_for_bit(name: str) -> None:
    rng, rows = np.random.default_rng(3), np.ones(2, np.bool_)
    ours, theirs = make_envs(TASKS[name], 2), make_envs(TASKS[name], 2, backend="envpool")
    assert theirs.versions["engine"].startswith("envpool ")
    for envs in (ours, theirs):
        for row in range(2):
            envs.reset_row(row, 5 + row)
    for _ in range(200):
        np.testing.assert_array_equal(ours.observations["image"], theirs.observations["image"])
        np.testing.assert_array_equal(ours.extras()["ram"], theirs.extras()["ram"])
        actions = rng.integers(18, size=2)
        answers = ours.step(actions, rows), theirs.step(actions, rows)
        np.testing.assert_array_equal(*answers)
        for row in np.flatnonzero(answers[0][1] | answers[0][2]).tolist():
            for envs in (ours, theirs):
                envs.reset_row(row, 9)


class Pool:
    """A game of EnvPool's that shows one picture."""

    picture = np.random.default_rng(0).integers(256, size=(1, 3, 64, 80)).astype(np.uint8)

    def reset(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return self.picture, {"ram": np.zeros((1, 128), np.uint8)}

    def close(self) -> None: ...


def test_a_game_of_envpool_shows_in_a_clip_what_the_agent_sees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pools = SimpleNamespace(
        list_all_envs=lambda: ["Pong-v5"], make_gymnasium=lambda *_, **__: Pool()
    )
    monkeypatch.setitem(sys.modules, "envpool", pools)
    monkeypatch.setattr("actors.envs.envpool_env.version", lambda _: "of the fake")
    envs = make_envs(TASKS["atari/pong"], 1, backend="envpool")
    envs.reset_row(0, 5)
    np.testing.assert_array_equal(envs.picture(0), np.moveaxis(Pool.picture[0], 0, -1))
    assert envs.steps_per_s == 15.0
    envs.close()


@needs_envpool
def test_envpool_refuses_what_it_would_play_otherwise() -> None:
    with pytest.raises(ValueError, match="its physics and first states are other than ours"):
        make_envs(TASKS["mujoco/hopper"], 1, backend="envpool")
    with pytest.raises(ValueError, match="sticky actions follow other seeds"):
        make_envs(with_sticky(TASKS["atari/pong"], 0.25), 1, backend="envpool")
    with pytest.raises(ValueError, match="EnvPool has no Pung-v5"):
        make_envs(replace(TASKS["atari/pong"], env_id="ALE/Pung-v5"), 1, backend="envpool")


def test_without_envpool_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(
        ValueError, match=r"EnvPool is not installed .*pip install -e '.\[envpool\]'"
    ):
        make_envs(TASKS["atari/pong"], 1, backend="envpool")
