"""A damaged file of a run, a checkpoint or a specialist is one line that names the file and says
what to do."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from cluster.control.evaluation.evaluate import locate
from cluster.monitor.scores import read_scales
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from cluster.runs.replay_location import find_place
from cluster.supervision.weights_store import ABOUT, WeightsStore
from gato.config import ModelConfig
from gato.files import read_json
from gato.network.model import Gato
from learner.checkpoints.state import Progress, load_checkpoint, read_model_config, save_checkpoint

TINY = ModelConfig(num_layers=1, num_heads=1, width=16, feedforward=16, context_tokens=16)
BAD_JSON = (b"", b"{", b"\xff\xfe", b"[1, 2]", b"null", b"[" * 100_000)
BAD_SAFETENSORS = (b"", b"x", b"\xff" * 64, (10).to_bytes(8, "little") + b"{not json}")


def one_line(names: str, does: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as caught:
        does()
    said = str(caught.value)
    assert names in said
    assert "\n" not in said
    return said


def optimiser_of(model: Gato) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint with the moments of one update."""
    model = Gato(TINY)
    optimiser = optimiser_of(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return save_checkpoint(tmp_path / "checkpoints", model, optimiser, Progress(step=3, number=1))


@pytest.mark.parametrize("content", BAD_JSON)
def test_json_that_is_no_object_is_named_with_its_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "about.json"
    file.write_bytes(content)
    assert one_line(
        "about.json is damaged (", lambda: read_json(file, fix="copy it again")
    ).endswith("; copy it again")


@pytest.mark.parametrize("content", BAD_JSON)
def test_a_damaged_record_of_a_checkpoint_is_named(checkpoint: Path, content: bytes) -> None:
    (checkpoint / "checkpoint.json").write_bytes(content)
    said = one_line("checkpoint.json is damaged", lambda: read_model_config(checkpoint))
    assert "remove the checkpoint's folder" in said


@pytest.mark.parametrize(
    "change", [{"model": 3}, {"step": "x"}, {"number": None}, {"model": {"width": "wide"}}]
)
def test_a_record_with_values_of_other_kinds_is_named(
    checkpoint: Path, change: dict[str, object]
) -> None:
    file = checkpoint / "checkpoint.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    one_line("checkpoint.json is damaged", lambda: load_checkpoint(checkpoint, Gato(TINY)))


@pytest.mark.parametrize("content", [*BAD_SAFETENSORS, None])
@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors"])
def test_damaged_tensors_of_a_checkpoint_are_named(
    checkpoint: Path, name: str, content: bytes | None
) -> None:
    if content is None:
        (checkpoint / name).unlink()
    else:
        (checkpoint / name).write_bytes(content)
    model = Gato(TINY)
    one_line(f"{name} is damaged", lambda: load_checkpoint(checkpoint, model, optimiser_of(model)))


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors"])
def test_tensors_of_another_file_are_named(checkpoint: Path, name: str) -> None:
    other = {
        "model.safetensors": "optimiser.safetensors",
        "optimiser.safetensors": "model.safetensors",
    }[name]
    (checkpoint / name).write_bytes((checkpoint / other).read_bytes())
    model = Gato(TINY)
    one_line(f"{name} is damaged", lambda: load_checkpoint(checkpoint, model, optimiser_of(model)))


def test_a_whole_checkpoint_is_read_with_its_moments(checkpoint: Path) -> None:
    model = Gato(TINY)
    optimiser = optimiser_of(model)
    assert load_checkpoint(checkpoint, model, optimiser) == Progress(step=3, number=1)
    assert all(float(optimiser.state[parameter]["step"]) == 1.0 for parameter in model.parameters())


@pytest.mark.parametrize(
    "content", [*BAD_JSON, b'{"a": 1}', b'{"a": {"random_return": "x", "teacher_return": 1}}']
)
def test_damaged_scales_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scales.json").write_bytes(content)
    one_line("scales.json is damaged", lambda: read_scales(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"created_s": "x"}, {"state": 1}, {"supervisor_pid": "1"},
    ],
)  # fmt: skip
def test_a_damaged_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path, change: dict[str, object]
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    run = RunFolder.create(replace(RUNS["debug"], name="demo"))
    shutil.move(checkpoint.parent, run.path / "checkpoints")
    assert locate("demo").config == replace(RUNS["debug"], name="demo")
    file = run.path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    one_line("run.json is damaged", lambda: (run.info(), locate("demo")))


def test_damaged_settings_beside_a_store_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    run = RunFolder.create(replace(RUNS["debug"], name="demo"))
    (run.path / "replay").mkdir()
    (run.path / "replay" / "data.mdb").write_bytes(b"")
    (run.path / "config.yaml").write_text("{")
    one_line("config.yaml is damaged", lambda: find_place("demo"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "config.yaml is damaged"), ("[1]", "expected a mapping of settings, got list"),
        ("name: a\nname: b", "'name' is set twice"), ("tasks: 3", "tasks: expected a list"),
        ("preset: demo\nno_such: 1", "unknown setting 'no_such'"), ("name: x", "lacks one of"),
        ("preset: nope", "unknown run 'nope'"), ("preset: demo\nactors: 3", "expected a group"),
        (None, "config.yaml is damaged (the file is missing)"),
    ],
)  # fmt: skip
def test_damaged_settings_of_a_run_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, message: str
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    run = RunFolder.create(replace(RUNS["debug"], name="demo"))
    run.config_file.unlink()
    if content is not None:
        run.config_file.write_text(content)
    with pytest.raises(ValueError, match=r"config\.yaml") as raised:
        run.config()
    assert message in str(raised.value)


@pytest.mark.parametrize("about", [None, "{", "{}", "null", '{"version": 1, "learner_step": 3}'])
def test_a_weights_store_begins_without_a_damaged_copy(tmp_path: Path, about: str | None) -> None:
    whole = save({"w": np.zeros(4, np.uint16)}, metadata=None if about is None else {ABOUT: about})
    for damaged in (whole, whole[:-1], b"x", b""):
        (tmp_path / "latest.safetensors").write_bytes(damaged)
        assert WeightsStore(tmp_path).newer_than(None) is None
