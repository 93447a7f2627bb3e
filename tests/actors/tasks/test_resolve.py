"""A user's own environment is a task by its name alone, and is found by that name again."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from actors.envs.factory import make_envs
from actors.envs.provenance import env_spec_of
from actors.rollout import play
from actors.tasks.resolve import note_on, resolve_task, resolve_tasks
from actors.teachers.resolve import has_teacher, teacher_return
from gato.array_spec import Kind
from gato.episode import check_episode

PACKAGE = """
import gymnasium
import numpy as np
from gymnasium import spaces

from actors.envs.gymnasium_env import task_of
from gato.task import References


class Talker(gymnasium.Env):
    observation_space = spaces.Dict(order=spaces.Text(20), place=spaces.MultiDiscrete([4, 5]))
    action_space = spaces.MultiDiscrete([2, 3])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"order": "go left", "place": np.array([1, 2])}, {"teacher": {"action": np.array([1,
        2])}}

    def step(self, action):
        return {"order": "stop", "place": np.array([3, 4])}, 1.0, False, False, {"teacher":
        {"action": np.array([0, 1])}}


gymnasium.register("Talker-v0", "talker_pkg:Talker", max_episode_steps=3)
gymnasium.register("Endless-v0", Talker)


class Listing(Talker):
    observation_space = spaces.Sequence(spaces.Discrete(3))


gymnasium.register("Listing-v0", Listing, max_episode_steps=3)


def make_task():
    return task_of("Talker-v0", text_tokens=8, references=References(random=0.0, expert=3.0,
    source="made up"))


TASK = make_task()
NUMBER = 7


class Broken(Talker):
    def __init__(self):
        raise AttributeError("no wheels")


gymnasium.register("Broken-v0", Broken, max_episode_steps=3)


def unmade():
    raise KeyError("the drawer is empty")


def needy(size):
    return TASK
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's in the working folder; it is imported once, as in any process."""
    (tmp_path / "talker_pkg.py").write_text(PACKAGE)
    (tmp_path / "sulky_pkg.py").write_text("raise RuntimeError('not today')")
    (tmp_path / "garbled_pkg.py").write_text("def")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])


class LastWords:
    """Plays the action in the extras, which fits only if they are of the present step."""

    def act(self, step):
        return step.extras["action"]


@pytest.mark.parametrize(
    ("name", "tokens"),
    [("talker_pkg:Talker-v0", 64), ("talker_pkg:TASK", 8), ("talker_pkg:make_task", 8)],
)
def test_an_environment_of_ones_own_is_played_by_its_name(name: str, tokens: int) -> None:
    task = resolve_task(name)
    assert (task.name, resolve_task(task.name)) == (name, task)
    assert (task.references is None) == (tokens == 64)
    assert task.env_id == "talker_pkg:Talker-v0"  # which any process can make by itself
    assert {key: spec.kind for key, spec in task.observations.items()} == {
        "order": Kind.TEXT,
        "place": Kind.DISCRETE,
    }
    assert task.observations["order"].max_tokens == tokens
    assert EnvSpec.from_json(env_spec_of(task)).max_episode_steps == 3
    envs = make_envs(task, 2)
    for episode in play(
        envs, LastWords(), [1, 2], source="t", new_key=lambda: "k", with_extras=True
    ):
        check_episode(episode, task)
        assert episode.actions.tolist() == [[1, 2], [0, 1], [0, 1]]


def test_tasks_of_the_table_and_of_gymnasium_are_found_as_well() -> None:
    tasks = resolve_tasks("Hopper-v5", "CartPole-v1", "talker_pkg:TASK")
    assert list(tasks) == ["mujoco/hopper", "CartPole-v1", "talker_pkg:TASK"]
    assert tasks["CartPole-v1"].max_steps == 500


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hoper", "did you mean 'mujoco/hopper'"),
        (
            "nowhere_pkg:MyEnv-v0",
            "needs nowhere_pkg, which cannot be imported .*run gato where it lies",
        ),
        ("talker_pkg:Nothing-v0", "cannot make talker_pkg:Nothing-v0"),
        ("talker_pkg:Endless-v0", "no limit of steps; register it with one"),
        (
            "talker_pkg:Listing-v0",
            "Listing-v0 cannot become a task: .*is a Sequence space .*; wrap the environment",
        ),
        ("talker_pkg:NUMBER", "is a int, not a gato.task.Task"),
        ("talker_pkg:Talker", "is a Talker, not a gato.task.Task"),
        ("talker_pkg:Broken-v0", "cannot make talker_pkg:Broken-v0: AttributeError: no wheels"),
        (
            "talker_pkg:unmade",
            (
                "talker_pkg:unmade raised KeyError: .*drawer.*; it must be a Task, or a function"
                " without arguments"
            ),
        ),
        ("talker_pkg:needy", "talker_pkg:needy raised TypeError: .*size"),
        (
            "sulky_pkg:MyEnv-v0",
            (
                r"needs sulky_pkg, which raised RuntimeError\('not today'\) as it was imported;"
                r" fix the module"
            ),
        ),
        ("garbled_pkg:MyEnv-v0", "needs garbled_pkg, which raised SyntaxError"),
        ("Pusher-v4", "cannot make Pusher-v4: .*mujoco<3"),
    ],
)
def test_a_name_that_does_not_resolve_says_what_to_fix(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_task(name)


@pytest.mark.parametrize(
    "line", ["sys.exit(3)", "raise KeyboardInterrupt", "raise BaseException('no')"]
)
def test_a_module_that_would_end_python_as_it_is_imported_is_one_line(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"ending_{len(line)}_pkg"
    (tmp_path / f"{name}.py").write_text(f"import sys\n{line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"needs {name}, which raised .* as it was imported"):
        resolve_task(f"{name}:MyEnv-v0")


def test_a_module_that_another_machine_lacks_is_named() -> None:
    task = replace(resolve_task("talker_pkg:TASK"), env_id="elsewhere_pkg:Talker-v0")
    with pytest.raises(ValueError, match=r"elsewhere_pkg.*must be on each machine"):
        make_envs(task, 1)


def test_names_of_robots_that_are_gone_come_with_a_note() -> None:
    assert resolve_task("Hopper-v3").env_id == "Hopper-v5"
    assert "mujoco/hopper is Hopper-v5, whose physics and rewards differ" in str(
        note_on("Hopper-v3")
    )
    for name in (
        "Hopper-v5",
        "Hopper-v4",
        "hopper-medium-v2",
        "talker_pkg:Thing-v2",
        "CartPole-v2",
        "hopper",
    ):
        assert note_on(name) is None


def test_an_option_of_a_name_is_another_task_by_one_name() -> None:
    assert resolve_task("talker_pkg:Endless-v0?max_steps=9").max_steps == 9
    assert resolve_task("hopper?max_steps=50").name == "mujoco/hopper?max_steps=50"
    assert resolve_task("hopper?max_steps=50").references is None  # those are of 1,000 steps
    assert resolve_task("hopper?max_steps=1000").references is not None
    cartpole = resolve_task("CartPole-v1?sutton_barto_reward=true&max_steps=20")
    assert cartpole.env_kwargs == {"sutton_barto_reward": True}
    assert resolve_task(cartpole.name) == cartpole
    game = resolve_task("pong?grey=1&frames=4&sticky=0.250")
    assert game.name == "atari/pong?frames=4&grey=1&sticky=0.25"
    assert sorted(game.observations) == [f"image/{place}" for place in range(4)]
    assert resolve_task(game.name) == game
    envs = make_envs(cartpole, 1)
    envs.reset_row(0, 1)
    assert envs.step(np.array([1]), np.array([True]))[0][0] == 0.0  # 1 without the keyword
    envs.close()


def test_a_robot_may_play_longer_than_usual() -> None:
    envs = make_envs(resolve_task("reacher?max_steps=70"), 1)
    envs.reset_row(0, 1)
    ends = [envs.step(np.zeros((1, 2), np.float32), np.array([True]))[2][0] for _ in range(60)]
    envs.close()
    assert not any(ends)  # 50 steps as it is registered


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("talker_pkg:Endless-v0", "name of the task: 'talker_pkg:Endless-v0[?]max_steps=1000'"),
        ("hopper?max_steps=0", "max_steps=0 of mujoco/hopper is not a whole number"),
        ("hopper?max_steps", "cannot be read; write them as hopper[?]max_steps=1000"),
        ("hopper?max_steps=1&max_steps=2", "an option twice"),
        ("hopper?size=3", "has no option 'size'; there are max_steps, sticky"),
        ("hopper?frames=4", "only Atari games have frames"),
        ("pong?frames=17", "frames must be in 1 to 16, got 17"),
        ("pong?grey=yes", "neither 0 nor 1"),
        ("CartPole-v1?wheels=3", "cannot make CartPole-v1: TypeError: .*wheels"),
        ("CartPole-v1?action_bound=2", "has no action without bounds; leave out action_bound"),
        ("Pendulum-v1?action_bound=0.5", "has no action without bounds; leave out action_bound"),
        ("CartPole-v1?text_tokens=7", "shows no text; leave out text_tokens"),
        ("CartPole-v1?action_bound=nan", "action_bound=nan of CartPole-v1 is not above 0"),
        ("CartPole-v1?action_bound=0", "action_bound=0 of CartPole-v1 is not above 0"),
        ("pong?frames=0", r"write it as atari/pong\?frames=4"),
        ("metaworld/reach?max_steps=501", "ends after 500 steps by itself; max_steps can only"),
        ("dm-control/cheetah-run?max_steps=1001", "ends after 1,000 steps by itself"),
    ],
)
def test_an_option_that_does_not_fit_is_said_in_one_line(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        resolve_task(name)
    assert "\n" not in str(raised.value)


def test_a_game_with_sticky_actions_is_a_task_of_its_own() -> None:
    task = resolve_task("pong?sticky=0.25")
    assert task.name == "atari/pong?sticky=0.25"
    assert task.env_kwargs["sticky"] == 0.25
    assert resolve_task(task.name) == task
    assert has_teacher(task)
    assert teacher_return(task) is None  # its rule was measured without
    for wrong, message in (
        ("pong?sticky=much", "write it as"),
        ("hopper?sticky=0.25", "only Atari games have sticky actions"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve_task(wrong)


@pytest.mark.parametrize("name", ["hopper", "pong", "dm-control/cartpole-balance"])
def test_a_limit_of_steps_leaves_a_task_its_teacher(name: str) -> None:
    assert has_teacher(resolve_task(f"{name}?max_steps=100"))
