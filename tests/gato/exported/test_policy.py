"""A policy file acts as the actors' player does, with torch and NumPy alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from actors.players.gato_player import GatoPlayers
from actors.players.player import TimeStep
from actors.tasks.text_encoder import SentencePieceEncoder
from gato.acting.config import ActingConfig
from gato.exported.policy import LoadedPolicy, load_policy
from gato.exported.policy_file import PolicyFile, read_policy, write_policy
from gato.exported.tensor_file import TensorFile, read_tensors, write_tensors
from gato.task import Task
from gato.text import bytes_to_text
from tests.gato.exported.policies import model_for, policy_file, prompt_of
from tests.gato.models import GAME, ROBOT, TALK, random_observations

ROOT = Path(__file__).resolve().parents[3]
NUM_STEPS = 7  # more than the window's three
ALONE = """
import importlib.util, json, sys

file, data, site = sys.argv[1:4]
sys.path.append(site)
for name in ("ray", "gymnasium", "safetensors", "msgpack", "actors", "cluster"):
    assert importlib.util.find_spec(name) is None, name
import numpy as np
from gato.exported.policy import load_policy

policy = load_policy(file)
seen = np.load(data)
actions = {}
for task in json.loads(sys.argv[4]):
    names = policy.tasks[task].observations
    for episode in range(2):
        policy.reset(task)
        done = []
        for t in range(len(seen[f"{task}|rewards"])):
            done.append(policy.act({name: seen[f"{task}|{name}"][t] for name in names}))
            policy.observe(float(seen[f"{task}|rewards"][t]))
        actions[f"{task}|{episode}"] = np.stack(done)
np.savez(sys.argv[5], **actions)
"""


def make_site(folder: Path, *distributions: str) -> set[str]:
    """A folder of packages that holds these distributions, all that they require, and `gato`.
    Returns the names of the distributions."""
    folder.mkdir()
    (folder / "gato").symlink_to(ROOT / "gato")
    found: set[str] = set()
    queue = [*distributions]
    while queue:
        name = canonical(queue.pop())
        if name in found:
            continue
        found.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of another platform
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))
        for line in distribution.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                queue.append(requirement.name)
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def played(policy: PolicyFile, task: Task, steps: Iterable[TimeStep]) -> np.ndarray:
    """Actions [T, *shape] of the actors' player."""
    acting = {name: each.acting for name, each in policy.tasks.items()}
    players = GatoPlayers(
        model=policy.model,
        evaluate=acting,
        generate=acting,
        seed=policy.seed,
        prompts=policy,
    )
    player = players(task, 1, "evaluate")
    player.load(policy.weights)
    return np.concatenate([player.act(step) for step in steps])


def steps_of(seen: Mapping[str, np.ndarray], rewards: np.ndarray) -> list[TimeStep]:
    """Time steps of one row; reward t was paid by action t."""
    return [
        TimeStep(
            observations={name: values[t : t + 1] for name, values in seen.items()},
            rewards=rewards[t - 1 : t] if t else np.zeros(1, np.float32),
            active=np.ones(1, np.bool_),
            is_first=np.array([t == 0]),
            seeds=np.zeros(1, np.int64),
        )
        for t in range(len(rewards))
    ]


def act_through(policy: LoadedPolicy, seen: Mapping[str, np.ndarray]) -> np.ndarray:
    length = len(next(iter(seen.values())))
    return np.stack([policy.act({k: v[t] for k, v in seen.items()}) for t in range(length)])


def test_it_acts_as_the_player_does_with_torch_and_numpy_alone(tmp_path: Path) -> None:
    """There is no other package but jaxtyping, for annotations."""
    policy = policy_file(ROBOT, GAME)
    file, data, out = (tmp_path / name for name in ("p.safetensors", "seen.npz", "actions.npz"))
    write_policy(file, policy)
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    expected: dict[str, np.ndarray] = {}
    for task in (ROBOT, GAME):
        seen = random_observations(task, NUM_STEPS, rng)
        rewards = rng.normal(size=NUM_STEPS).astype(np.float32)
        arrays |= {f"{task.name}|{name}": values for name, values in seen.items()}
        arrays[f"{task.name}|rewards"] = rewards
        expected[task.name] = played(policy, task, steps_of(seen, rewards))
    np.savez(data, **arrays)
    needed = make_site(tmp_path / "site", "torch", "numpy", "jaxtyping")
    assert not {"ray", "gymnasium", "safetensors", "msgpack"} & needed
    done = subprocess.run(
        [
            sys.executable, "-I", "-S", "-c", ALONE, str(file), str(data), str(tmp_path / "site"),
            json.dumps([ROBOT.name, GAME.name]), str(out),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    actions = np.load(out)
    for name, of_player in expected.items():
        for episode in range(2):
            np.testing.assert_array_equal(actions[f"{name}|{episode}"], of_player)
        assert len(np.unique(of_player, axis=0)) > 1


@pytest.mark.parametrize("task", [ROBOT, GAME], ids=lambda task: task.name)
def test_a_file_gives_back_what_was_written(task: Task, tmp_path: Path) -> None:
    policy = policy_file(task, prompts={task.name: prompt_of(task, 2)}, is_exact=task is ROBOT)
    file = tmp_path / "p.safetensors"
    write_policy(file, policy)
    found = read_policy(file)
    assert found.tasks[task.name].task == task
    assert found.tasks[task.name].acting == policy.tasks[task.name].acting
    assert (found.model, found.seed, found.run) == (policy.model, policy.seed, policy.run)
    assert (found.weights.version, found.weights.learner_step) == ((1, 5), 500)
    prompt, expected = found.tasks[task.name].prompt, policy.tasks[task.name].prompt
    assert prompt is not None
    assert expected is not None
    np.testing.assert_array_equal(prompt.actions, expected.actions)
    for name, array in policy.weights.arrays.items():
        np.testing.assert_array_equal(found.weights.arrays[name], array)


def test_episodes_begin_with_the_stored_prompt_as_the_players_do() -> None:
    acting = ActingConfig(window_steps=3, prompt_steps=2)
    policy = policy_file(ROBOT, acting=acting, prompts={ROBOT.name: prompt_of(ROBOT, 2)})
    seen = random_observations(ROBOT, 4, np.random.default_rng(1))
    loaded = LoadedPolicy(policy)
    loaded.reset()
    prompted = act_through(loaded, seen)
    expected = played(policy, ROBOT, steps_of(seen, np.zeros(4, np.float32)))
    np.testing.assert_array_equal(prompted, expected)
    loaded.reset(prompt=None)
    bare = act_through(loaded, seen)
    assert not np.array_equal(bare[0], prompted[0])
    loaded.reset(prompt=prompt_of(ROBOT, 2))
    np.testing.assert_array_equal(act_through(loaded, seen), prompted)


def test_the_target_return_is_reduced_by_the_rewards_that_are_observed() -> None:
    policy = policy_file(ROBOT, model=model_for(returns=True))
    seen = random_observations(ROBOT, 3, np.random.default_rng(1))
    rewards = np.array([0.3, 0.2, 0.1], np.float32)
    expected = played(policy, ROBOT, steps_of(seen, rewards))
    loaded = LoadedPolicy(policy)
    loaded.reset()
    for t in range(3):
        np.testing.assert_array_equal(loaded.act(seen["state"][t]), expected[t])
        loaded.observe(float(rewards[t]))
    loaded.reset(target_return=-3.0)
    assert not np.array_equal(loaded.act(seen["state"][0]), expected[0])
    with pytest.raises(ValueError, match=r"call observe\(reward\)"):
        loaded.act(seen["state"][1])
    for reward in (float("nan"), -1e39):
        with pytest.raises(ValueError, match="expected a number within"):
            loaded.observe(reward)
    loaded.observe(3e38)
    with pytest.raises(ValueError, match="expected a number within"):
        loaded.observe(3e38)  # their sum


def test_texts_are_encoded_by_the_model_that_the_file_carries(
    tmp_path: Path, sentencepiece_model: bytes
) -> None:
    file = tmp_path / "p.safetensors"
    write_policy(file, policy_file(TALK, text_model=sentencepiece_model))
    with pytest.raises(ValueError, match="text=SentencePieceEncoder"):
        load_policy(file)
    policy = load_policy(file, text=SentencePieceEncoder)
    assert policy.file.text_model == sentencepiece_model
    seen = random_observations(TALK, 1, np.random.default_rng(0))
    policy.reset()
    action = policy.act({name: values[0] for name, values in seen.items()})
    policy.reset()
    texts = {name: bytes_to_text(seen[name][0]) for name in ("order", "answer")}
    again = policy.act({name: values[0] for name, values in seen.items()} | texts)
    np.testing.assert_array_equal(action, again)


@pytest.fixture(scope="module")
def sentencepiece_model() -> bytes:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["go left", "turn right now", "stop", "go right"] * 20),
        model_writer=model, vocab_size=25, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"goal": np.zeros(5)}, r"the observation is \['goal'\], but test/robot shows"),
        (np.zeros(4, np.float32), r"shape \(4,\), expected float32 and \(5,\)"),
        (np.full(5, np.nan, np.float32), "is not finite"),
        (np.zeros(5, np.complex64), "is of complex64"),
        ("left", "expected float32"),
        (None, "expected float32"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(observation: object, message: str) -> None:
    policy = LoadedPolicy(policy_file(ROBOT))
    with pytest.raises(ValueError, match=r"call reset\(TASK\)"):
        policy.act(observation)
    policy.reset()
    with pytest.raises(ValueError, match=message):
        policy.act(observation)


def test_numbers_that_would_change_in_the_specs_dtype_are_refused() -> None:
    policy = LoadedPolicy(policy_file(GAME))
    policy.reset()
    image = np.zeros((32, 48, 3), np.uint8)
    with pytest.raises(ValueError, match="'image' has values that uint8 does not hold"):
        policy.act({"image": image.astype(np.int64) + 256, "lives": 1})
    with pytest.raises(ValueError, match=r"'image' is of float64"):
        policy.act({"image": image / 255, "lives": 1})
    with pytest.raises(ValueError, match=r"outside 0\.\.4"):
        policy.act({"image": image, "lives": 5})
    assert policy.act({"image": image, "lives": 4}).shape == ()


def test_a_task_that_is_not_in_the_file_and_a_target_that_is_not_used_are_refused() -> None:
    policy = LoadedPolicy(policy_file(ROBOT, GAME))
    with pytest.raises(ValueError, match="did you mean 'test/robot'"):
        policy.reset("test/robo")
    with pytest.raises(ValueError, match="name one of them"):
        policy.reset()
    with pytest.raises(ValueError, match="not return-conditioned"):
        policy.reset("test/robot", target_return=1.0)


def changed(file: Path, **changes: object) -> None:
    """Write the file again with other entries in its header; the format's number is `number`."""
    found = read_tensors(file)
    about = dict(found.metadata)
    about["gato-ray policy"] = str(changes.pop("number", 1))
    about["policy"] = json.dumps(json.loads(about["policy"]) | changes)
    write_tensors(file, TensorFile(metadata=about, arrays=found.arrays), replace=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"number": 2}, "has format 2, this version reads 1; update gato-ray"),
        ({"seed": "seven"}, "seed: expected a whole number"),
        ({"extra": 1}, "has no setting 'extra'"),
        ({"text": "sentencepiece"}, "'text/sentencepiece' is missing"),
        ({"tasks": []}, "at least one task"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    file = tmp_path / "p.safetensors"
    write_policy(file, policy_file(ROBOT))
    changed(file, **changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_policy(file)


def test_a_file_whose_steps_are_laid_out_in_another_way_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    write_policy(file, policy_file(ROBOT))
    header = json.loads(read_tensors(file).metadata["policy"])
    header["tasks"][0]["steps"]["separator"] = 2
    changed(file, tasks=header["tasks"])
    with pytest.raises(ValueError, match=r"steps of test/robot are .* here"):
        read_policy(file)


def test_a_file_without_a_policy_or_with_other_weights_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    write_tensors(plain, TensorFile(metadata={}, arrays={"a": np.zeros(2, np.float32)}))
    with pytest.raises(ValueError, match="holds no policy; make one with gato export"):
        load_policy(plain)
    policy = policy_file(ROBOT)
    fewer = dict(list(policy.weights.arrays.items())[1:])
    file = tmp_path / "fewer.safetensors"
    write_policy(file, replace(policy, weights=replace(policy.weights, arrays=fewer)))
    with pytest.raises(ValueError, match="weights of another model: 1 names differ"):
        load_policy(file)


def test_prompts_are_bounded_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gato.exported.policy_file.MOST_PROMPT_BYTES", 10_000)
    policy_file(GAME, prompts={GAME.name: prompt_of(GAME, 2)})
    with pytest.raises(ValueError, match="ask for shorter ones"):
        policy_file(GAME, prompts={GAME.name: prompt_of(GAME, 3)})
