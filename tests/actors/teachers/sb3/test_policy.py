"""Stable-Baselines3's zips: they play as they did there, and nothing that hides in a file is run.

The files in tests/data/sb3 were saved by stable-baselines3 and sb3-contrib 2.9.2 after 300 steps;
`expected.json` has what their own `predict(deterministic=True)` answers, behind their own
VecNormalize where there is one.
"""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.players.player import Teacher, TimeStep
from actors.tasks.catalog import TASKS
from actors.teachers.resolve import teacher_for
from actors.teachers.sb3.policy import load_sb3
from actors.teachers.sb3.statistics import read_statistics
from gato.array_spec import ArraySpec, Kind

DATA = Path(__file__).parents[3] / "data" / "sb3"
EXPECTED: dict[str, Any] = json.loads((DATA / "expected.json").read_text())
PENDULUM = TASKS["mujoco/inverted-pendulum"]
CARTPOLE = replace(
    PENDULUM,
    name="gymnasium/cart-pole",
    env_id="CartPole-v1",
    family="gymnasium",
    observations={
        "state": ArraySpec(
            kind=Kind.CONTINUOUS,
            shape=(4,),
            low=(-4.8, -np.inf, -0.41887903, -np.inf),
            high=(4.8, np.inf, 0.41887903, np.inf),
        )
    },
    action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=2),
)
"""As Stable-Baselines3 sees CartPole: four numbers, two actions."""

RESCALED = {"sac_rescaled": (-1.0, 0.5)}
"""Trained behind RescaleAction, which the file shows by its bounds of actions alone."""


def spec_of(name: str) -> str:
    statistics = DATA / f"{name}.pkl"
    return f"sb3:{DATA / name}.zip" + (
        f"?vecnormalize={statistics}" if statistics.is_file() else ""
    )


class Exploit:
    """A pickle that makes a folder where it is trusted."""

    def __init__(self, mark: Path) -> None:
        self._mark = str(mark)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self._mark,)


def with_member(source: Path, target: Path, name: str, content: bytes) -> Path:
    """A copy of a zip in which one member is another."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in {*old.namelist(), name}:
            new.writestr(member, content if member == name else old.read(member))
    return target


@pytest.mark.parametrize("name", list(EXPECTED))
def test_a_policy_answers_as_it_does_in_stable_baselines(name: str) -> None:
    teacher = teacher_for(
        CARTPOLE if name in ("dqn", "ars_discrete") else PENDULUM, spec_of(name), noise=0.0
    )
    assert isinstance(teacher, Teacher)
    observations = np.array(EXPECTED[name]["observations"], np.float32)
    rows = len(observations)
    actions = teacher.act(TimeStep.first({"state": observations}, seeds=range(rows)))
    low, high = RESCALED.get(name, (-3.0, 3.0))
    expected = np.array(EXPECTED[name]["actions"])
    np.testing.assert_allclose(
        actions,
        expected if actions.dtype == np.int64 else -3.0 + (expected - low) / (high - low) * 6.0,
        atol=1e-5,
    )
    assert any("actions are scaled from" in note for note in teacher.notes) == (name in RESCALED)
    wanted = teacher.labels()
    np.testing.assert_array_equal(
        actions if wanted is None else wanted, actions
    )  # without noise, what it wants it does
    assert teacher.name == f"sb3:{name}"


def test_statistics_may_come_without_a_pickle(tmp_path: Path) -> None:
    held = load_sb3(spec_of("sac").removeprefix("sb3:"), PENDULUM)
    kept = read_statistics(DATA / "sac.pkl")
    assert kept is not None
    np.savez(
        tmp_path / "v.npz",
        mean=kept.mean,
        var=kept.std.astype(np.float64) ** 2,
        epsilon=0.0,
        clip=5.0,
    )
    again = load_sb3(f"{DATA}/sac.zip?vecnormalize={tmp_path}/v.npz", PENDULUM)
    observations = np.array(EXPECTED["sac"]["observations"], np.float32)
    np.testing.assert_allclose(again.mean(observations), held.mean(observations), atol=1e-6)


def test_the_activation_is_read_and_can_be_said() -> None:
    assert load_sb3(f"{DATA}/ppo_relu.zip", PENDULUM).record["activation"] == "relu"
    assert load_sb3(f"{DATA}/ppo_relu.zip?activation=tanh", PENDULUM).record["activation"] == "tanh"
    with pytest.raises(ValueError, match="activation swish, known here are tanh, relu"):
        load_sb3(f"{DATA}/ppo_relu.zip?activation=swish", PENDULUM)


def test_a_pickle_in_place_of_the_policy_is_rejected_and_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"weight": Exploit(mark)}, tmp_path / "policy.pth")
    bad = with_member(
        DATA / "td3.zip", tmp_path / "bad.zip", "policy.pth", (tmp_path / "policy.pth").read_bytes()
    )
    with pytest.raises(ValueError, match=r"policy\.pth of .*bad\.zip holds more than tensors"):
        load_sb3(str(bad), PENDULUM)
    assert not mark.exists()


def test_pickles_among_the_readable_data_are_left_alone(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with zipfile.ZipFile(DATA / "td3.zip") as archive:
        data = json.loads(archive.read("data"))
    for entry in data.values():
        if isinstance(entry, dict) and ":serialized:" in entry:
            entry[":serialized:"] = base64.b64encode(pickle.dumps(Exploit(mark))).decode()
    mined = with_member(DATA / "td3.zip", tmp_path / "mined.zip", "data", json.dumps(data).encode())
    observations = np.array(EXPECTED["td3"]["observations"], np.float32)
    np.testing.assert_allclose(
        load_sb3(str(mined), PENDULUM).mean(observations), EXPECTED["td3"]["actions"], atol=1e-5
    )
    assert not mark.exists()


def test_statistics_that_run_a_program_are_rejected_and_it_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(Exploit(mark)))
    with pytest.raises(
        ValueError, match=r"v\.pkl is not read: it calls \w+\.mkdir.*convert it.*np\.savez"
    ):
        load_sb3(f"{DATA}/sac.zip?vecnormalize={tmp_path}/v.pkl", PENDULUM)
    assert not mark.exists()


def test_statistics_that_are_damaged_are_rejected(tmp_path: Path) -> None:
    whole, bad = (DATA / "sac.pkl").read_bytes(), tmp_path / "v.pkl"
    for damaged in (
        b"",
        b"x",
        whole[:-9],
        whole[:700],
        pickle.dumps({"obs_rms": 1}),
        pickle.dumps(3),
    ):
        bad.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"v\.pkl is not read"):
            load_sb3(f"{DATA}/sac.zip?vecnormalize={bad}", PENDULUM)
    named = tmp_path / "v.npz"
    for var in (np.full(4, -1.0), np.ones(3), np.array(["a"])):
        np.savez(named, mean=np.zeros(4), var=var, epsilon=0.0, clip=5.0)
        with pytest.raises(ValueError, match=r"v\.npz is not read"):
            load_sb3(f"{DATA}/sac.zip?vecnormalize={named}", PENDULUM)
    named.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"v\.npz is not read"):
        load_sb3(f"{DATA}/sac.zip?vecnormalize={named}", PENDULUM)


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.zip"
    for data in (b"{", b"[]", b'{"policy_kwargs": "x"}', b'{"policy_class": 5}'):
        with pytest.raises(ValueError, match=r"bad\.zip (is damaged|are not what)"):
            load_sb3(str(with_member(DATA / "td3.zip", bad, "data", data)), PENDULUM)
    content = bytearray((DATA / "td3.zip").read_bytes())
    with zipfile.ZipFile(DATA / "td3.zip") as archive:
        content[archive.getinfo("policy.pth").header_offset + 200] ^= 0xFF
    bad.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.zip is damaged: .*copy it again"):
        load_sb3(str(bad), PENDULUM)


@pytest.mark.parametrize("fault", ["no bias", "not a number", "misfit", "flat"])
def test_a_network_whose_layers_do_not_fit_is_rejected(fault: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(DATA / "td3.zip") as archive, archive.open("policy.pth") as file:
        state = torch.load(io.BytesIO(file.read()), weights_only=True)
    first = next(name for name in state if name.startswith("actor.mu.") and name.endswith("weight"))
    match fault:
        case "no bias":
            del state[first.replace("weight", "bias")]
        case "not a number":
            state[first][0, 0] = torch.nan
        case "misfit":
            state[first] = state[first][:-1]
        case _:
            state[first] = state[first].flatten()
    written = io.BytesIO()
    torch.save(state, written)
    bad = with_member(DATA / "td3.zip", tmp_path / "bad.zip", "policy.pth", written.getvalue())
    with pytest.raises(ValueError, match=r"bad\.zip is damaged: actor\.mu\."):
        load_sb3(str(bad), PENDULUM)


def test_a_zip_with_a_pickle_next_to_its_policy_is_rejected(tmp_path: Path) -> None:
    bad = with_member(DATA / "td3.zip", tmp_path / "bad.zip", "extra.pkl", b"")
    with pytest.raises(ValueError, match=r"bad\.zip holds a pickle, extra\.pkl"):
        load_sb3(str(bad), PENDULUM)


def test_a_policy_trained_behind_statistics_asks_for_them() -> None:
    with pytest.raises(
        ValueError, match=r"ppo\.zip was trained behind VecNormalize; .*\?vecnormalize=FILE"
    ):
        load_sb3(f"{DATA}/ppo.zip", PENDULUM)
    with pytest.raises(ValueError, match=r"no statistics in .*nowhere\.pkl"):
        load_sb3(f"{DATA}/sac.zip?vecnormalize=nowhere.pkl", PENDULUM)


def test_a_file_of_another_kind_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"sees 4 numbers and gives 1, task mujoco/hopper shows 11 .*another version",
    ):
        load_sb3(f"{DATA}/td3.zip", TASKS["mujoco/hopper"])
    with pytest.raises(ValueError, match=r"task atari/pong shows image and takes discrete actions"):
        load_sb3(f"{DATA}/dqn.zip", TASKS["atari/pong"])
    with pytest.raises(ValueError, match=r"gone\.zip is not a zip, or does not exist"):
        load_sb3(str(tmp_path / "gone.zip"), PENDULUM)
    with pytest.raises(ValueError, match=r"unknown option 'norm' of sb3:"):
        load_sb3(f"{DATA}/td3.zip?norm=x", PENDULUM)
    other = tmp_path / "other.zip"
    shutil.copy(DATA / "td3.zip", other)
    torch.save(
        {"features_extractor.cnn.0.weight": torch.zeros(1), "q_net.q_net.0.weight": torch.zeros(1)},
        tmp_path / "p",
    )
    with_member(DATA / "td3.zip", other, "policy.pth", (tmp_path / "p").read_bytes())
    with pytest.raises(ValueError, match=r"other\.zip is a policy of another kind.*CnnPolicy"):
        load_sb3(str(other), PENDULUM)
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        archive.writestr("parameters", b"")
    with pytest.raises(
        ValueError, match=r"old\.zip is not of Stable-Baselines3.*it has parameters"
    ):
        load_sb3(str(tmp_path / "old.zip"), PENDULUM)
