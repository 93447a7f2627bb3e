"""`gato export`: what is in the file acts as the run's evaluations do; what cannot be written is
refused, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.players.player import TimeStep
from actors.tasks.catalog import TASKS
from actors.tasks.resolve import resolve_task
from cluster.control.evaluation.evaluate import load_player, locate
from cluster.control.export import export_policy, policy_of, text_model_of
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from gato.array_spec import Kind
from gato.episode import Episode
from gato.exported.policy import load_policy
from gato.network.model import Gato
from gato.task import Task
from learner.checkpoints.state import Progress, save_checkpoint
from replay.shards import shard_folder
from replay.storage.store import EpisodeStore
from tests.cluster.command import gato
from tests.gato.models import random_observations

HOPPER, FREEWAY = TASKS["mujoco/hopper"], TASKS["atari/freeway"]
Export = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made_run(config: RunConfig = RUNS["demo"], *, has_checkpoint: bool = True) -> RunFolder:
    run = RunFolder.create(config)
    torch.manual_seed(0)
    model = Gato(run.config().model)
    if has_checkpoint:
        optimiser = torch.optim.AdamW(model.parameters())
        save_checkpoint(run.path / "checkpoints", model, optimiser, Progress(step=40, number=4))
    return run


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Export:
    """Runs `gato export`; exit status and all output."""

    def command(*words: str) -> tuple[int, str]:
        status, out, err = gato(monkeypatch, capsys, "export", *words)
        return status, out + err

    return command


def of_player(what: str, task: Task, seen: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Actions of the policy that evaluates the checkpoint."""
    player = load_player(locate(what), task.name)
    steps = len(next(iter(seen.values())))
    first = TimeStep.first({name: v[:1] for name, v in seen.items()}, seeds=[0])
    return [
        player.act(
            replace(
                first,
                observations={name: v[t : t + 1] for name, v in seen.items()},
                is_first=np.array([t == 0]),
            )
        )[0]
        for t in range(steps)
    ]


@pytest.mark.parametrize("task", [HOPPER, FREEWAY], ids=lambda task: task.name)
def test_the_file_of_a_run_acts_as_its_evaluations_do(task: Task, export: Export) -> None:
    made_run()
    status, said = export("demo", "policy.safetensors")
    assert status == 0, said
    assert "mujoco/hopper, atari/freeway; weights of step 40 of demo, bf16" in said
    seen = random_observations(task, 4, np.random.default_rng(0))
    policy = load_policy("policy.safetensors")
    policy.reset(task.name)
    expected = of_player("demo", task, seen)
    for t in range(4):
        action = policy.act({name: values[t] for name, values in seen.items()})
        np.testing.assert_array_equal(action, expected[t])


def test_a_checkpoint_and_a_policy_file_are_exported_too(export: Export) -> None:
    run = made_run()
    assert export(str(run.path / "checkpoints" / "step-000000040"), "all.safetensors")[0] == 0
    status, said = export("all.safetensors", "one.safetensors", "--tasks", "Hopper-v5")
    assert status == 0, said
    one, both = load_policy("one.safetensors"), load_policy("all.safetensors")
    assert (list(one.tasks), list(both.tasks)) == ([HOPPER.name], [HOPPER.name, FREEWAY.name])
    seen = random_observations(HOPPER, 1, np.random.default_rng(0))["state"][0]
    one.reset()
    both.reset("hopper")
    np.testing.assert_array_equal(one.act(seen), both.act(seen))


def test_weights_in_float32_are_those_of_the_checkpoint_and_can_be_rounded(export: Export) -> None:
    made_run()
    assert export("demo", "fp32.safetensors", "--dtype", "fp32")[0] == 0
    assert export("demo", "bf16.safetensors")[0] == 0
    assert export("fp32.safetensors", "rounded.safetensors")[0] == 0
    sizes = {name: Path(f"{name}.safetensors").stat().st_size for name in ("fp32", "bf16")}
    assert sizes["fp32"] > 1.9 * sizes["bf16"]
    rounded, bf16 = load_policy("rounded.safetensors"), load_policy("bf16.safetensors")
    for name, array in bf16.file.weights.arrays.items():
        np.testing.assert_array_equal(rounded.file.weights.arrays[name], array)
    status, said = export("bf16.safetensors", "no.safetensors", "--dtype", "fp32")
    assert (status, "fp32 is lost" in said) == (2, True)


def with_demonstrations(run: RunFolder, num_episodes: int = 4, num_steps: int = 6) -> None:
    config = run.config()
    store = EpisodeStore(
        shard_folder(run.path / "replay", 0, 1), capacity_bytes=config.replay.capacity_bytes
    )
    rng = np.random.default_rng(0)
    for index in range(num_episodes):
        store.add(
            Episode(
                key=f"k{index}",
                task=HOPPER.name,
                source="teacher:made",
                observations={"state": rng.normal(size=(num_steps, 11)).astype(np.float32)},
                actions=rng.uniform(-1, 1, (num_steps, 3)).astype(np.float32),
                rewards=np.full(num_steps, index, np.float32),
                terminated=True,
                truncated=False,
                seed=index,
            ),
            tokens=15 * num_steps,
        )
    store.close()


def prompted_run(prompt_steps: int) -> RunFolder:
    demo = RUNS["demo"]
    acting = replace(demo.actors.evaluate, window_steps=3, prompt_steps=prompt_steps)
    run = made_run(
        replace(
            demo,
            tasks=(HOPPER.name,),
            actors=replace(demo.actors, evaluate=acting, evaluate_of={}, demonstration_steps_of={}),
        )
    )
    with_demonstrations(run)
    return run


def test_prompts_are_those_of_evaluations_unless_they_are_asked_for() -> None:
    prompted_run(2)
    policy = policy_of("demo", command="gato export")
    prompt = policy.tasks[HOPPER.name].prompt
    assert prompt is not None
    assert len(prompt.actions) == 2
    seen = random_observations(HOPPER, 3, np.random.default_rng(0))
    export_policy("demo", Path("policy.safetensors"))
    loaded = load_policy("policy.safetensors")
    loaded.reset()
    expected = of_player("demo", HOPPER, seen)
    for t in range(3):
        np.testing.assert_array_equal(loaded.act(seen["state"][t]), expected[t])
    assert policy_of("demo", command="x", prompt_steps=0).tasks[HOPPER.name].prompt is None
    one = policy_of("demo", command="x", prompt_steps=1).tasks[HOPPER.name]
    assert one.prompt is not None
    assert (len(one.prompt.actions), one.acting.prompt_steps) == (1, 1)
    with pytest.raises(ValueError, match="a prompt has at most 2"):
        policy_of("demo", command="x", prompt_steps=5)


def test_what_cannot_be_exported_is_one_line_and_leaves_no_file(export: Export, here: Path) -> None:
    made_run()
    (here / "there.safetensors").write_text("mine")
    (here / "broken.safetensors").write_text("half of a file")
    made_run(replace(RUNS["debug"], name="fresh"), has_checkpoint=False)
    (here / "locked").mkdir(mode=0o500)
    for words, message in (
        (("fresh", "p.safetensors"), "run fresh has no checkpoint yet"),
        (("nobody", "p.safetensors"), "there is no run 'nobody'"),
        (("demo", "there.safetensors"), "is there already; name another file, or add --force"),
        (("demo", "no/p.safetensors"), "it is not a folder"),
        (("demo", "locked"), "is a folder; name a file in it"),
        (("demo", "p.safetensors", "--tasks", "walker2d"), "has mujoco/hopper, atari/freeway"),
        (("demo", "p.safetensors", "--tasks", ","), "names no task"),
        (("demo", "p.safetensors", "--dtype", "fp8"), "expected one of 'bf16', 'fp32', got 'fp8'"),
        (("demo", "p.safetensors", "--prompts", "1"), "a prompt has at most 0"),
        (("missing.safetensors", "p.safetensors"), "there is no file missing.safetensors"),
        (("broken.safetensors", "p.safetensors"), "broken.safetensors is damaged"),
    ):
        status, said = export(*words)
        assert status == 2, words
        assert said.startswith("error:")
        assert message in said, said
        assert len(said.splitlines()) == 1
    assert (here / "there.safetensors").read_text() == "mine"
    assert not list(here.rglob("*p.safetensors*"))
    assert export("demo", "there.safetensors", "--force")[0] == 0
    assert load_policy(here / "there.safetensors").file.run == "demo"


def test_a_task_that_only_writes_text_keeps_its_text_encoder(here: Path) -> None:
    (here / "text.model").write_bytes(b"words")
    shows, writes = (resolve_task(name) for name in ("vqa/easy-vqa", "text/notes"))
    assert not any(spec.kind is Kind.TEXT for spec in writes.observations.values())
    for task in (shows, writes):
        assert text_model_of("text.model", here, [task]) == b"words"
    assert text_model_of("text.model", here, [HOPPER]) is None
