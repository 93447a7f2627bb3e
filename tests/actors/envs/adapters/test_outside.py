"""An environment in another interpreter is played as one here, and its death costs one episode."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from actors.envs.adapters.outside_env import Outside
from actors.envs.adapters.outside_server import pack, unpack
from actors.envs.env import ENV_PYTHON, EnvFailedError
from actors.envs.factory import WorkerEnvs, make_envs
from actors.rollout import Dropped, rollout
from actors.tasks.resolve import resolve_task
from gato.array_spec import Kind

MODULE = """
import gymnasium
import numpy as np
from gymnasium import spaces

print("a greeting, which must not be taken for an answer")


class Counter(gymnasium.Env):
    observation_space = spaces.Dict(
        count=spaces.Box(-1, 1, (2,), np.float64), die=spaces.Discrete(6, start=1)
    )
    action_space = spaces.Dict(turn=spaces.Discrete(3, start=-1), press=spaces.MultiBinary(2))

    def __init__(self, dies_at=99):
        self.dies_at = dies_at

    def seen(self):
        return {"count": np.array([self.start, self.count / 9]), "die": 1 + self.count % 6}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.start = 0, self.np_random.uniform()
        return self.seen(), {}

    def step(self, action):
        print(self.action_space.contains(action))
        self.count += 1
        if self.count == self.dies_at:
            import os
            os._exit(3)
        return self.seen(), np.float32(self.count), False, False, {"success": self.count == 2}


gymnasium.register("Counter-v0", Counter, max_episode_steps=4)


class Old:
    observation_space, action_space = spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2)
    metadata = {}

    def __init__(self, level=0):
        self.level = level

    def reset(self):
        return np.array([self.level / 100], np.float32)

    def step(self, action):
        return self.reset(), 1.0, True, {"TimeLimit.truncated": True}

    def close(self):
        pass


class Sokoban(gymnasium.Env):
    # gym-sokoban's way to end episodes and to be drawn

    observation_space, action_space = spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2)
    metadata = {}

    def __init__(self, solves=False):
        self.solves = solves

    def reset(self):
        return np.zeros(1, np.float32)

    def step(self, action):
        return self.reset(), -0.1, True, {
            "maxsteps_used": not self.solves, "all_boxes_on_target": bool(self.solves)
        }

    def render(self, mode="human", scale=1):
        if mode != "rgb_array":
            raise RuntimeError("a window was opened")
        return np.full((4, 4, 3), 7, np.uint8)


gymnasium.register("Sokoban-v0", Sokoban, disable_env_checker=True, order_enforce=False)
"""


@pytest.fixture(autouse=True)
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This one, in a folder where the module lies."""
    (tmp_path / "far_pkg.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENV_PYTHON, sys.executable)


class Same:
    """Always turns back and presses the second button."""

    def act(self, step):
        return np.tile([0, 1, 0], (step.num_rows, 1))


class Press:
    """Presses the second button."""

    def act(self, step):
        return np.ones(step.num_rows, np.int64)


def test_it_is_played_by_its_name_with_its_spaces_limit_and_success() -> None:
    task = resolve_task("outside:far_pkg:Counter-v0")
    assert "far_pkg" not in sys.modules
    assert (task.max_steps, resolve_task(task.name)) == (4, task)
    assert {key: spec.kind for key, spec in task.observations.items()} == {
        "count": Kind.CONTINUOUS,
        "die": Kind.DISCRETE,
    }
    envs = make_envs(task, 2)
    one, two = rollout(envs, Same(), [5, 6])
    assert not isinstance(one, Dropped)
    assert not isinstance(two, Dropped)
    assert one.rewards.tolist() == [1, 2, 3, 4]
    assert one.observations["die"].tolist() == [0, 1, 2, 3]
    assert one.observations["count"][0, 0] != two.observations["count"][0, 0]
    assert one.success is True  # at its second step, though not at its last
    assert (one.truncated, one.terminated) == (True, False)
    envs.close()


def test_its_death_costs_one_episode_and_it_is_made_again() -> None:
    task = resolve_task("outside:far_pkg:Counter-v0?dies_at=3")
    make = WorkerEnvs(backend="loop", env_python=sys.executable)
    envs = make(task, 1)
    first, second = rollout(envs, Same(), [1, 2])
    for dropped in (first, second):
        assert isinstance(dropped, Dropped)
        assert dropped.step == 2
        assert "died (exit status 3)" in dropped.reason
    envs.reset_row(0, 3)
    server = envs._envs[0]._env.unwrapped._process  # type: ignore[attr-defined]
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(EnvFailedError, match=r"died \(SIGKILL"):
        envs.step(np.array([[0, 0, 0]]), np.array([True]))
    envs.close()


def test_an_environment_of_old_gym_is_served_and_seeded_by_a_keyword() -> None:
    Path("gym.py").write_text(
        "import far_pkg\ndef make(name, **kwargs):\n    return far_pkg.Old(**kwargs)\n"
    )
    task = resolve_task("outside:Old-v0?max_steps=3&seed_as=level")
    envs = make_envs(task, 1)
    for seed in (7, 50):
        envs.reset_row(0, seed)
        assert envs.observations["state"][0, 0] == np.float32(seed / 100)
    rewards, terminated, truncated = envs.step(np.array([1]), np.array([True]))
    assert (rewards[0], terminated[0], truncated[0]) == (1.0, False, True)
    envs.close()


@pytest.mark.parametrize("solves", [False, True])
def test_sokobans_own_time_out_is_no_end_and_its_success_is_recorded(solves: bool) -> None:
    task = resolve_task(f"outside:far_pkg:Sokoban-v0?max_steps=9&solves={int(solves)}")
    envs = make_envs(task, 1)
    [played] = rollout(envs, Press(), [1])
    assert not isinstance(played, Dropped)
    assert (played.terminated, played.truncated) == (solves, not solves)
    assert played.success is solves
    envs.reset_row(0, 2)
    assert (envs.picture(0) == 7).all()  # drawn, not shown
    envs.close()


def test_the_interpreter_of_the_run_or_of_the_name_needs_no_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker on another machine of the cluster does not have it."""
    plain = resolve_task("outside:far_pkg:Counter-v0")
    named = resolve_task(f"outside:far_pkg:Counter-v0?python={sys.executable}")
    monkeypatch.delenv(ENV_PYTHON)
    WorkerEnvs(env_python=sys.executable)(plain, 1).close()
    make_envs(named, 1).close()
    envs = WorkerEnvs(env_python="/bin/false")(named, 1)  # what the name says wins
    assert envs.versions["engine"] == f"in another interpreter: {sys.executable}"
    assert envs.versions["env_id"] == "far_pkg:Counter-v0"
    envs.close()


def test_its_process_ends_by_itself() -> None:
    outside = Outside("far_pkg:Counter-v0", sys.executable)
    outside.close()
    assert outside._process.returncode == 0


@pytest.mark.parametrize(
    ("name", "python", "message"),
    [
        ("outside:nowhere_pkg:X-v0", sys.executable, "No module named 'nowhere_pkg'"),
        ("outside:Nope-v0", sys.executable, "Nope"),
        ("outside:CartPole-v1", "", "--set actors.env_python=PATH, or GATO_ENV_PYTHON=PATH"),
        ("outside:CartPole-v1", "/no/python", "'/no/python', which is not a program"),
        ("outside:CartPole-v1", "/bin/false", "process of CartPole-v1 of /bin/false died"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    name: str, python: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_PYTHON, python)
    with pytest.raises(ValueError, match=message) as raised:
        resolve_task(name)
    assert "\n" not in str(raised.value)


def test_a_message_is_the_same_on_the_other_side() -> None:
    value = {
        "image": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
        "parts": (np.float32(0.5), "text", None, True, {"deep": np.zeros((0, 2), np.int64)}),
    }
    arrays: list[np.ndarray] = []
    again = unpack(pack(value, arrays), arrays)
    np.testing.assert_array_equal(again["image"], value["image"])
    assert again["parts"][:4] == (0.5, "text", None, True)
    assert again["parts"][4]["deep"].shape == (0, 2)
