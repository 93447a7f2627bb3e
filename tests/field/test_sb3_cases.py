"""Policies and statistics of Stable-Baselines3 as people have them: next to each other, in RL-Zoo's
folders, damaged, too large."""

from __future__ import annotations

import pickle
import shutil
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import actors.teachers.sb3.archive
from actors.tasks.catalog import TASKS
from actors.tasks.resolve import resolve_task
from actors.teachers.demonstrate import demonstrate
from actors.teachers.resolve import absolute_spec, teacher_for
from actors.teachers.safe_pickle import read_inert
from actors.teachers.sb3.policy import load_sb3
from actors.teachers.sb3.statistics import find_statistics
from actors.teachers.sb3.zoo import read_zoo
from tests.field.sb3_files import CARTPOLE, DATA, PENDULUM, SAVED, changed

EXTRACTOR = DATA / "08-sb3-features-extractor-dropped" / "ppo_extractor.zip"
REWARDS_ONLY = DATA / "10-sb3-vecnormalize-rewards-only"


def noted(policy: Path | str, task: Any = PENDULUM) -> str:
    return "\n".join(load_sb3(str(policy), task).notes)


@pytest.mark.report("hill-a/stable-baselines#717")
def test_a_features_extractor_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"ppo_extractor\.zip .*features_extractor"):
        load_sb3(str(EXTRACTOR), resolve_task("Pendulum-v1"))


@pytest.mark.report("DLR-RM/stable-baselines3#116")
def test_a_features_extractor_that_no_keyword_tells_of_is_refused_by_its_tensors(
    tmp_path: Path,
) -> None:
    def extract(state: dict[str, torch.Tensor]) -> None:
        state["pi_features_extractor.net.0.weight"] = torch.eye(4)

    bad = changed("ppo_relu", tmp_path / "bad.zip", state=extract)
    with pytest.raises(
        ValueError, match=r"has the tensor pi_features_extractor\.net\.0\.weight, which may be"
    ):
        load_sb3(str(bad), PENDULUM)


@pytest.mark.report("DLR-RM/stable-baselines3#912")
def test_statistics_of_rewards_alone_change_no_observation() -> None:
    policy, task = REWARDS_ONLY / "ppo_vecnorm_rewards_only.zip", resolve_task("Pendulum-v1")
    with pytest.raises(
        ValueError,
        match=r"was trained behind VecNormalize; .*\?vecnormalize=FILE or \?vecnormalize=none",
    ):
        load_sb3(str(policy), task)
    by_file = load_sb3(f"{policy}?vecnormalize={REWARDS_ONLY / 'vn3.pkl'}", task)
    by_word = load_sb3(f"{policy}?vecnormalize=none", task)
    seen = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.testing.assert_array_equal(by_file.mean(seen), by_word.mean(seen))
    assert any("normalises rewards only" in note for note in by_file.notes)
    assert any("vecnormalize=none says" in note for note in by_word.notes)


@pytest.mark.report("HumanCompatibleAI/imitation#576", "hill-a/stable-baselines#1138")
@pytest.mark.parametrize(
    "beside",
    [
        "vecnormalize.pkl",
        "vec_normalize.pkl",
        "sac/vecnormalize.pkl",
        "sac_vecnormalize.pkl",
        "InvertedPendulum-v2/vecnormalize.pkl",
    ],
)
def test_statistics_that_lie_beside_a_policy_are_used_and_said(beside: str, tmp_path: Path) -> None:
    shutil.copy(SAVED / "sac.zip", tmp_path / "sac.zip")
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    shutil.copy(SAVED / "sac.pkl", tmp_path / beside)
    found = load_sb3(str(tmp_path / "sac.zip"), PENDULUM)
    named = load_sb3(f"{SAVED}/sac.zip?vecnormalize={SAVED}/sac.pkl", PENDULUM)
    seen = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    np.testing.assert_array_equal(found.mean(seen), named.mean(seen))
    assert f"{beside} was found next to sac.zip" in "\n".join(found.notes)
    assert "not normalised" in noted(f"{tmp_path}/sac.zip?vecnormalize=none")


def test_a_checkpoint_takes_the_statistics_of_its_own_step(tmp_path: Path) -> None:
    shutil.copy(SAVED / "sac.zip", tmp_path / "rl_model_500_steps.zip")
    shutil.copy(SAVED / "sac.pkl", tmp_path / "rl_model_vecnormalize_500_steps.pkl")
    shutil.copy(SAVED / "ppo.pkl", tmp_path / "rl_model_vecnormalize_900_steps.pkl")
    shutil.copy(SAVED / "ppo.pkl", tmp_path / "vecnormalize.pkl")
    assert "rl_model_vecnormalize_500_steps.pkl was found" in noted(
        tmp_path / "rl_model_500_steps.zip"
    )


def test_several_statistics_that_differ_ask_which_is_its_own(tmp_path: Path) -> None:
    policy = shutil.copy(SAVED / "sac.zip", tmp_path / "best_model.zip")
    for name, source in (("vecnormalize.pkl", "sac.pkl"), ("vec_normalize.pkl", "sac.pkl")):
        shutil.copy(SAVED / source, tmp_path / name)
    assert find_statistics(Path(policy), [tmp_path], 4).path == tmp_path / "vecnormalize.pkl"
    shutil.copy(SAVED / "ppo.pkl", tmp_path / "vec_normalize.pkl")
    with pytest.raises(
        ValueError, match=r"several statistics lie next to .*best_model\.zip: .*say which"
    ):
        load_sb3(str(policy), PENDULUM)


def test_statistics_of_another_size_or_of_no_use_are_said(tmp_path: Path) -> None:
    shutil.copy(SAVED / "sac.zip", tmp_path / "sac.zip")
    np.savez(
        tmp_path / "vecnormalize.npz", mean=np.zeros(3), var=np.ones(3), epsilon=0.0, clip=10.0
    )
    assert "statistics of 3 numbers, sac.zip sees 4: it is not used" in noted(tmp_path / "sac.zip")
    shutil.copy(SAVED / "ppo_relu.zip", tmp_path / "ppo_relu.zip")
    shutil.copy(SAVED / "sac.pkl", tmp_path / "vecnormalize.pkl")
    assert "is not used, since ppo_relu.zip says that it was trained without" in noted(
        tmp_path / "ppo_relu.zip"
    )
    (tmp_path / "vecnormalize.pkl").write_bytes(b"x")
    with pytest.raises(
        ValueError,
        match=r"vecnormalize\.pkl is not read: .*lies next to sac\.zip; .*vecnormalize=none",
    ):
        load_sb3(str(tmp_path / "sac.zip"), PENDULUM)


@pytest.mark.report("isaac-sim/IsaacLab#2635")
def test_a_policy_that_cannot_tell_of_statistics_says_so() -> None:
    assert "td3.zip does not say whether it was trained behind VecNormalize" in noted(
        SAVED / "td3.zip"
    )
    assert "VecNormalize" not in noted(SAVED / "ppo_relu.zip")


ORDERED = "!!python/object/apply:collections.OrderedDict\n- - - n_timesteps\n    - 1000000.0\n"


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ("  - - normalize\n    - true\n", "was trained behind VecNormalize"),
        (
            "  - - normalize\n    - dict(norm_obs=True, norm_reward=False)\n",
            "was trained behind VecNormalize",
        ),
        (
            "  - - env_wrapper\n    - sb3_contrib.common.wrappers.TimeFeatureWrapper\n",
            "allow=wrapper:TimeFeatureWrapper",
        ),
        (
            "  - - env_wrapper\n    - - rl_zoo3.wrappers.HistoryWrapper:\n          horizon: 2\n",
            "allow=wrapper:HistoryWrapper",
        ),
        ("  - - frame_stack\n    - 4\n", "frame_stack=4"),
        (
            "  - - env_kwargs\n    - frame_skip: 4\n      other: 1\n",
            "frame_skip=4.*allow=keyword:frame_skip,keyword:other",
        ),
        ("  - - env_kwargs\n    - {'frame_skip': 4}\n", "frame_skip=4"),
    ],
)
def test_what_rl_zoo_says_of_an_environment_is_compared(
    config: str, refused: str, tmp_path: Path
) -> None:
    shutil.copy(SAVED / "td3.zip", tmp_path / "td3.zip")
    (tmp_path / "td3").mkdir()
    (tmp_path / "td3" / "config.yml").write_text(ORDERED + config)
    with pytest.raises(ValueError, match=refused):
        load_sb3(str(tmp_path / "td3.zip"), PENDULUM)
    (tmp_path / "td3" / "config.yml").write_text(
        ORDERED + "  - - normalize\n    - false\n  - - env_wrapper\n    - null\n"
    )
    assert "VecNormalize" not in noted(tmp_path / "td3.zip")


def test_rl_zoos_files_of_plain_yaml_and_its_environment_are_read(tmp_path: Path) -> None:
    (tmp_path / "args.yml").write_text("algo: td3\nenv: Hopper-v3\nenv_kwargs: null\n")
    (tmp_path / "config.yml").write_text(
        "env_wrapper:\n- gymnasium.wrappers.FlattenObservation\nnormalize: false\n"
    )
    settings = read_zoo([tmp_path])
    assert (settings.env_id, settings.normalises, dict(settings.kwargs)) == ("Hopper-v3", False, {})
    assert [wrapper.name for wrapper in settings.wrappers] == ["FlattenObservation"]
    shutil.copy(SAVED / "td3.zip", tmp_path / "td3.zip")
    with pytest.raises(ValueError, match=r"made in Hopper-v3, .*allow=environment"):
        load_sb3(str(tmp_path / "td3.zip"), PENDULUM)
    assert "allowed: it was made in Hopper-v3" in noted(f"{tmp_path}/td3.zip?allow=environment")
    (tmp_path / "config.yml").write_bytes(b"\xff\xfe")
    assert "config.yml cannot be read" in noted(f"{tmp_path}/td3.zip?allow=environment")


def test_a_policy_named_after_another_version_is_noted(tmp_path: Path) -> None:
    shutil.copy(SAVED / "td3.zip", tmp_path / "td3-InvertedPendulum-v2.zip")
    assert "named after InvertedPendulum-v2" in noted(tmp_path / "td3-InvertedPendulum-v2.zip")


def test_what_is_allowed_is_kept_with_the_episodes(tmp_path: Path) -> None:
    def narrow(data: dict[str, Any]) -> None:
        data["observation_space"] |= {
            "low": "[-9. -9. -9. -9.]",
            "high": "[9. 9. 9. 9.]",
            "low_repr": "-9.0",
            "high_repr": "9.0",
        }

    policy = changed("td3", tmp_path / "td3.zip", data=narrow)
    with pytest.raises(
        ValueError, match=r"declares state in \[-9, 9\].*sb3:.*td3\.zip\?allow=observation-bounds"
    ) as bad:
        load_sb3(str(policy), PENDULUM)
    assert "\n" not in str(bad.value)
    spec = f"sb3:{policy}?vecnormalize=none&allow=observation-bounds,start"
    assert absolute_spec(spec) == spec
    (episode,) = demonstrate(PENDULUM, episodes=1, seed=0, teacher_spec=spec)
    assert "allowed: it declares state in [-9, 9]" in episode.info["teacher"]
    assert "allow=start was not needed" in episode.info["teacher"]
    assert teacher_for(PENDULUM, spec).record["allowed"] == ["observation-bounds", "start"]


def test_a_shipped_teacher_has_no_notes_and_leaves_none() -> None:
    (episode,) = demonstrate(PENDULUM, episodes=1, seed=0)
    assert "teacher" not in episode.info
    assert list(teacher_for(PENDULUM).notes) == []
    assert list(teacher_for(TASKS["atari/pong"]).notes) == []


def test_spaces_as_gym_printed_them_are_read(tmp_path: Path) -> None:
    def older(data: dict[str, Any]) -> None:
        box = "<class 'gym.spaces.box.Box'>"
        data["observation_space"] = {
            ":type:": box,
            "dtype": "float32",
            "shape": [4],
            "low": "[-inf -inf -inf -inf]",
            "high": "[inf inf inf inf]",
            "np_random": "RandomState(MT19937)",
        }
        data["action_space"] = {
            ":type:": box,
            "dtype": "float32",
            "shape": [1],
            "low": "[-3.]",
            "high": "[3.]",
        }

    assert "space" not in noted(changed("td3", tmp_path / "old.zip", data=older))


def test_bounds_that_are_printed_cut_are_noted(tmp_path: Path) -> None:
    def cut(data: dict[str, Any]) -> None:
        data["observation_space"] |= {
            "low": "[-1. -2. ... -1. -2.]",
            "low_repr": "[-1. -2. ... -1. -2.]",
        }

    assert "the bounds of its observations cannot be read" in noted(
        changed("td3", tmp_path / "cut.zip", data=cut)
    )


def test_frames_that_were_stacked_are_named() -> None:
    short = replace(
        PENDULUM, observations={"state": replace(PENDULUM.observations["state"], shape=(2,))}
    )
    with pytest.raises(ValueError, match=r"sees 4 numbers .*\(or it sees 2 frames at once"):
        load_sb3(str(SAVED / "td3.zip"), short)


def bomb(target: Path, name: str, size: int) -> Path:
    """The zip of TD3 in which one member unpacks to `size` zeros."""
    with (
        zipfile.ZipFile(SAVED / "td3.zip") as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            new.writestr(member, bytes(size) if member == name else old.read(member))
    return target


@pytest.mark.report("modelcontextprotocol/mcpb#266")
@pytest.mark.parametrize(
    ("name", "limit"), [("data", "MOST_DATA_BYTES"), ("policy.pth", "MOST_POLICY_BYTES")]
)
def test_what_unpacks_to_more_than_the_limit_is_not_unpacked(
    name: str, limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.teachers.sb3.archive, limit, 2**20)
    with pytest.raises(
        ValueError, match=rf"{name} of .*big\.zip unpacks to 3 MiB or more, at most 1 MiB are read"
    ):
        load_sb3(str(bomb(tmp_path / "big.zip", name, 3 * 2**20)), PENDULUM)


def test_tensors_that_repeat_few_bytes_without_end_are_refused(tmp_path: Path) -> None:
    def endless(state: dict[str, torch.Tensor]) -> None:
        state["actor.mu.0.weight"] = torch.zeros(1).expand(2**20, 2**20)

    with pytest.raises(ValueError, match=r"has 4,194,304 MiB of tensors, at most 512 MiB"):
        load_sb3(str(changed("td3", tmp_path / "endless.zip", state=endless)), PENDULUM)


def test_a_policy_that_is_packed_twice_is_measured_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.teachers.sb3.archive, "MOST_POLICY_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "policy.pth", "w", zipfile.ZIP_DEFLATED) as inner:
        inner.writestr("archive/data/0", bytes(3 * 2**20))
    with (
        zipfile.ZipFile(SAVED / "td3.zip") as old,
        zipfile.ZipFile(tmp_path / "big.zip", "w") as new,
    ):
        new.writestr("data", old.read("data"))
        new.write(tmp_path / "policy.pth", "policy.pth")
    with pytest.raises(
        ValueError, match=r"policy\.pth of .*big\.zip unpacks to 3 MiB, at most 1 MiB"
    ):
        load_sb3(str(tmp_path / "big.zip"), PENDULUM)


def test_statistics_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.teachers.sb3.statistics.MOST_STATISTICS_BYTES", 2**16)
    np.savez_compressed(
        tmp_path / "v.npz", mean=np.zeros(2**16), var=np.ones(2**16), epsilon=0.0, clip=10.0
    )
    (tmp_path / "v.pkl").write_bytes(bytes(2**17))
    for name in ("v.npz", "v.pkl"):
        with pytest.raises(ValueError, match=rf"{name} is not read: .*at most"):
            load_sb3(f"{SAVED}/sac.zip?vecnormalize={tmp_path}/{name}", PENDULUM)


@pytest.mark.report("DLR-RM/stable-baselines3#2281")
def test_a_pickle_that_asks_for_all_memory_is_refused() -> None:
    with pytest.raises(pickle.UnpicklingError, match="numbers more parts than it can have"):
        read_inert(b"\x80\x04N" + b"r" + struct.pack("<L", 2**31 - 1) + b".")


def test_options_are_named_where_they_are_wrong() -> None:
    for query, problem in (
        ("vecnormalize=", "has no value"),
        ("activation=relu&activation=tanh", "is given twice"),
        ("alow=start", "unknown option 'alow'"),
    ):
        with pytest.raises(ValueError, match=problem):
            load_sb3(f"{SAVED}/td3.zip?{query}", PENDULUM)
    assert load_sb3(f"{SAVED}/dqn.zip?allow=start&allow=version", CARTPOLE).record["allowed"] == [
        "start",
        "version",
    ]
