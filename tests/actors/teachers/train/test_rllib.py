"""Specialists: the exported network plays as the trained one did, records tell the truth, and
playing needs no RLlib."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from actors.tasks.catalog import TASKS
from actors.teachers.specialist import Specialist, load_specialist
from actors.teachers.train.config import (
    SETTINGS,
    Algorithm,
    SpecialistConfig,
    is_tried,
    settings_for,
)
from actors.teachers.train.loop import (
    MEASURE_SEEDS,
    OBSERVATION_CLIP,
    Trainer,
    checkpoint_folder,
    returns_of,
    train_specialist,
)
from actors.teachers.train.rllib import RLlibTrainer, _export, ray_of_its_own, teach
from gato.array_spec import ArraySpec, Kind
from gato.task import Task
from tests.actors.teachers.arrays import arrays_of

ABOUT: dict[str, Any] = {
    "task": "mujoco/tiny",
    "env_id": "Tiny-v5",
    "observation_clip": OBSERVATION_CLIP,
    "action_low": -0.5,
    "action_high": 0.5,
}
TINY = replace(
    TASKS["mujoco/hopper"], action=ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=-0.5, high=0.5)
)


class TinyModule(nn.Module):
    """A policy of 3 observations and 2 actions, with the parameter names of RLlib's module."""

    def __init__(self) -> None:
        super().__init__()
        mlp = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.encoder = nn.ModuleDict(
            {"actor_encoder": nn.ModuleDict({"net": nn.ModuleDict({"mlp": mlp})})}
        )
        self.pi = nn.ModuleDict({"net": nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(8, 2))})})
        self.pi.register_parameter("log_std", nn.Parameter(torch.tensor([-0.5, 0.25])))
        # a plain list: not a second name of the parameters
        self.layers = [mlp, self.pi["net"]["mlp"]]

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.layers[1](self.layers[0](observations))


class TinyAlgorithm:
    """What `_export` reads of an RLlib algorithm: a module, and RLlib's own filter, which has seen
    `observations`."""

    def __init__(self, observations: np.ndarray) -> None:
        import gymnasium
        from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter
        from ray.rllib.env.single_agent_episode import SingleAgentEpisode

        torch.manual_seed(0)
        self.module = TinyModule()
        seen, taken = (
            gymnasium.spaces.Box(-np.inf, np.inf, (3,)),
            gymnasium.spaces.Box(-1.0, 1.0, (2,)),
        )
        connector = MeanStdFilter(clip_by_value=OBSERVATION_CLIP)
        # after its clip is known
        connector.input_action_space, connector.input_observation_space = taken, seen
        for observation in observations:
            episode = SingleAgentEpisode(observation_space=seen, action_space=taken)
            episode.add_env_reset(observation)
            connector(rl_module=None, batch={}, episodes=[episode])
            self.last_normalised: np.ndarray = episode.get_observations(-1)
        self.env_runner = SimpleNamespace(_env_to_module=SimpleNamespace(connectors=[connector]))

    def get_module(self, name: str) -> nn.Module:
        assert name == "default_policy"
        return self.module


@pytest.fixture(scope="module")
def observations() -> np.ndarray:
    """Observations [200, 3] of different means and spreads, as float32."""
    return (
        np.random.default_rng(0)
        .normal([1.0, -20.0, 0.0], [0.1, 5.0, 2.0], (200, 3))
        .astype(np.float32)
    )


@pytest.fixture
def algorithm(observations: np.ndarray) -> TinyAlgorithm:
    return TinyAlgorithm(observations)


def test_the_exported_network_plays_as_torch_does(
    algorithm: TinyAlgorithm, observations: np.ndarray
) -> None:
    arrays = _export(algorithm, TINY)
    normalised = np.clip(
        (observations - arrays["obs_mean"]) / arrays["obs_std"], -OBSERVATION_CLIP, OBSERVATION_CLIP
    )
    with torch.no_grad():
        means = algorithm.module(torch.from_numpy(normalised)).numpy()
    specialist = Specialist(arrays, ABOUT)
    # RLlib's policy acts on a scale where the bounds are -1 and 1.
    np.testing.assert_allclose(
        specialist.mean(observations), 0.5 * np.clip(means, -1.0, 1.0), atol=1e-6
    )
    np.testing.assert_allclose(specialist.action_std, 0.5 * np.exp([-0.5, 0.25]), rtol=1e-6)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_the_exported_normalisation_is_that_of_rllibs_filter(
    algorithm: TinyAlgorithm, observations: np.ndarray
) -> None:
    arrays = _export(algorithm, TINY)
    np.testing.assert_allclose(arrays["obs_mean"], observations.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        (observations[-1] - arrays["obs_mean"]) / arrays["obs_std"],
        algorithm.last_normalised,
        rtol=1e-4,
        atol=1e-5,
    )


def test_what_was_exported_does_not_change_when_training_goes_on(algorithm: TinyAlgorithm) -> None:
    arrays = _export(algorithm, TINY)
    before = {name: array.copy() for name, array in arrays.items()}
    with torch.no_grad():
        for parameter in algorithm.module.parameters():
            parameter.add_(1.0)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_far_observations_are_clipped_and_actions_stay_inside_the_bounds() -> None:
    specialist = Specialist(arrays_of((3, 4, 2)), ABOUT)
    at_clip = np.array([[10.0, -10.0, 10.0]], np.float32)
    np.testing.assert_array_equal(specialist.mean(at_clip * 1e6), specialist.mean(at_clip))
    actions = specialist.mean(
        np.random.default_rng(2).normal(0.0, 100.0, (50, 3)).astype(np.float32)
    )
    assert actions.shape == (50, 2)
    assert actions.dtype == np.float32
    assert np.abs(actions).max() <= 0.5


def test_a_row_is_played_the_same_alone_and_among_others() -> None:
    specialist = Specialist(arrays_of((3, 4, 2)), ABOUT)
    rows = np.random.default_rng(3).normal(size=(7, 3)).astype(np.float32)
    np.testing.assert_allclose(specialist.mean(rows)[4:5], specialist.mean(rows[4:5]), atol=1e-6)


def test_playing_needs_neither_ray_nor_torch() -> None:
    program = (
        "import sys, numpy as np\n"
        "from actors.teachers.specialist import load_specialist\n"
        "print(load_specialist('mujoco/hopper').mean(np.zeros((2, 11), np.float32)).shape)\n"
        "print(sorted({'ray', 'torch'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == ["(2, 3)", "[]"]


def test_a_missing_specialist_is_a_line_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no specialist for mujoco/ant .*there: none.*`gato teach mujoco/ant`"
    ):
        load_specialist("mujoco/ant", tmp_path)


def test_a_record_of_another_task_is_rejected(tmp_path: Path) -> None:
    save_file(arrays_of((3, 4, 2)), tmp_path / "hopper.safetensors")
    (tmp_path / "hopper.json").write_text(json.dumps(ABOUT))
    with pytest.raises(ValueError, match=r"hopper\.json is of task mujoco/tiny, not mujoco/hopper"):
        load_specialist("mujoco/hopper", tmp_path)


def test_observations_of_another_size_are_rejected_in_one_line() -> None:
    with pytest.raises(
        ValueError, match=r"have 12 numbers.*Hopper-v5.* 11; .*`gato teach mujoco/hopper`"
    ) as problem:
        load_specialist("mujoco/hopper").mean(np.zeros((2, 12), np.float32))
    assert "\n" not in str(problem.value)


def test_settings_are_found_by_the_names_that_others_use() -> None:
    assert settings_for("Hopper-v5", seed=3, env_steps=None) == replace(
        SETTINGS["mujoco/hopper"], seed=3
    )
    assert settings_for("mujoco/ant", seed=0, env_steps=7).env_steps == 7
    assert all(config.task == name for name, config in SETTINGS.items())
    for name in (name for name, task in TASKS.items() if task.family == "mujoco"):
        assert settings_for(name, seed=0, env_steps=None).task == name
    assert is_tried("mujoco/hopper")
    assert not is_tried("mujoco/humanoid")
    assert settings_for("mujoco/ant", seed=0, env_steps=None, algorithm="sac").hidden == (256, 256)


def test_a_game_gets_no_specialist(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"no settings for a specialist of atari/pong; there are some for mujoco/.*a day",
    ):
        settings_for("atari/pong", seed=0, env_steps=None)
    with pytest.raises(ValueError, match="atari/pong is not a robot"):
        train_specialist(
            replace(SETTINGS["mujoco/hopper"], task="atari/pong"),
            tmp_path,
            progress=lambda steps, mean: None,
            make_trainer=CountingTrainer,
        )


class CountingTrainer:
    """A trainer whose weights say how often it has trained, stopped by the user at one of its
    iterations."""

    algorithm = "counting"
    stop_at = 0

    def __init__(self, config: SpecialistConfig, task: Task) -> None:
        self.count, self.stopped = 0, False

    def iterate(self) -> tuple[int, float]:
        self.count += 1
        if self.count == self.stop_at:
            raise KeyboardInterrupt
        return 100 * self.count, float(self.count) if self.count % 3 == 0 else np.nan

    def export(self) -> dict[str, np.ndarray]:
        arrays = arrays_of((4, 2, 1))
        return {name: np.full_like(array, self.count) for name, array in arrays.items()}

    def save(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "count").write_text(str(self.count))

    def restore(self, folder: Path) -> None:
        self.count = int((folder / "count").read_text())

    def stop(self) -> None:
        self.stopped = True


class StoppedTrainer(CountingTrainer):
    stop_at = 35


COUNTING = replace(settings_for("inverted-pendulum", seed=1, env_steps=4500), evaluate_every=20)


def test_a_training_that_was_stopped_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    assert isinstance(CountingTrainer(COUNTING, TASKS[COUNTING.task]), Trainer)
    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        train_specialist(
            COUNTING,
            tmp_path,
            progress=lambda steps, mean: told.append(steps),
            make_trainer=StoppedTrainer,
        )
    assert told[-1] == 3400
    told.clear()
    record = train_specialist(
        COUNTING,
        tmp_path,
        progress=lambda steps, mean: told.append(steps),
        make_trainer=CountingTrainer,
    )
    assert (told[0], told[-1]) == (2100, 4500)
    assert record["env_steps"] == 4500
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "inverted-pendulum.json",
        "inverted-pendulum.safetensors",
    ]


def test_a_training_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_specialist(COUNTING, tmp_path, progress=lambda *_: None, make_trainer=StoppedTrainer)
    other = replace(COUNTING, max_rate=1.0)
    with pytest.raises(
        ValueError,
        match=r"holds a training with other settings \(max_rate 0\.0003 there, 1\.0 here\)",
    ):
        train_specialist(other, tmp_path, progress=lambda *_: None, make_trainer=CountingTrainer)


def test_a_checkpoint_that_was_not_moved_into_its_place_is_found(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_specialist(COUNTING, tmp_path, progress=lambda *_: None, make_trainer=StoppedTrainer)
    folder, told = checkpoint_folder(tmp_path, COUNTING), list[int]()
    folder.rename(folder.with_name(f"{folder.name}.new"))
    train_specialist(
        COUNTING,
        tmp_path,
        progress=lambda steps, mean: told.append(steps),
        make_trainer=CountingTrainer,
    )
    assert told[0] == 2100


def test_progress_keeps_the_last_return_that_was_seen(tmp_path: Path) -> None:
    told: list[float | None] = []
    config = replace(COUNTING, env_steps=700)
    train_specialist(
        config,
        tmp_path,
        progress=lambda steps, mean: told.append(mean),
        make_trainer=CountingTrainer,
    )
    assert told == [None, None, 3.0, 3.0, 3.0, 6.0, 6.0]


def short_training(algorithm: Algorithm) -> SpecialistConfig:
    """A training of seconds."""
    config = settings_for("mujoco/inverted-pendulum", seed=3, env_steps=4096, algorithm=algorithm)
    if algorithm == "sac":
        return replace(config, env_steps=300, minibatch_steps=16, hidden=(8, 8), evaluate_every=1)
    return replace(config, batch_steps=1024, minibatch_steps=64, epochs=2, evaluate_every=1)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_a_short_training_writes_what_it_measured(tmp_path: Path, algorithm: Algorithm) -> None:
    config = short_training(algorithm)
    told: list[int] = []
    record = teach(config, tmp_path, progress=lambda steps, mean: told.append(steps))
    specialist = load_specialist("mujoco/inverted-pendulum", tmp_path)
    assert specialist.record == json.loads(json.dumps(record))
    assert told == sorted(told)
    assert told[-1] == record["env_steps"] >= config.env_steps
    returns = returns_of(TASKS[config.task], specialist, MEASURE_SEEDS)
    assert returns.mean() == pytest.approx(record["return_mean"], abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_rllib_goes_on_from_its_checkpoint(tmp_path: Path, num_env_runners: int) -> None:
    config = replace(short_training("ppo"), env_steps=100_000)
    task = TASKS[config.task]
    with ray_of_its_own(num_env_runners=num_env_runners):
        first = RLlibTrainer(config, task, num_env_runners=num_env_runners)
        steps = [first.iterate()[0] for _ in range(2)]
        first.save(tmp_path / "kept")
        kept = first.export()
        first.stop()
        second = RLlibTrainer(config, task, num_env_runners=num_env_runners)
        second.restore(tmp_path / "kept")
        for name, array in second.export().items():
            np.testing.assert_array_equal(array, kept[name], err_msg=name)
        played_with = second._algorithm.env_runner_group.foreach_env_runner(
            lambda runner: runner.module.state_dict()["pi.log_std"].numpy()
        )
        for log_std in played_with:  # the processes that play as well
            np.testing.assert_allclose(
                log_std + np.log(task.action.high), kept["log_std"], rtol=1e-5
            )
        assert second.iterate()[0] > steps[-1]
        second.stop()
