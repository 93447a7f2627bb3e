"""A specialist's two files with one thing wrong are rejected in one line that names the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from actors.players.player import TimeStep
from actors.tasks.catalog import TASKS
from actors.teachers.resolve import teacher_for
from actors.teachers.specialist import SHIPPED, load_specialist

TASK = TASKS["mujoco/inverted-pendulum"]
NAME = "inverted-pendulum"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in SHIPPED.glob(f"{NAME}.*"):
        shutil.copy(file, tmp_path)
    return tmp_path


def refused(folder: Path) -> str:
    with pytest.raises(ValueError, match=str(folder / NAME)) as problem:
        load_specialist(TASK.name, folder)
    assert "\n" not in str(problem.value)
    return str(problem.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_a_file_of_arrays_that_is_cut_is_named(folder: Path, share: float) -> None:
    weights = folder / f"{NAME}.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(len(content) * share)])
    assert f"{NAME}.safetensors is damaged" in refused(folder)


@pytest.mark.report("safetensors/safetensors#668")
@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        b"\x08" + bytes(7) + b"{bad hea",
        b"\x02" + bytes(7) + b"{}",
        b"not a file of tensors",
    ],
)
def test_a_bad_header_is_named(folder: Path, header: bytes) -> None:
    (folder / f"{NAME}.safetensors").write_bytes(header)
    assert f"{NAME}.safetensors" in refused(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"task": "mujoco/hopper"}'],
)
def test_a_record_that_is_none_is_named(folder: Path, content: bytes) -> None:
    (folder / f"{NAME}.json").write_bytes(content)
    assert f"{NAME}.json" in refused(folder)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"observation_clip": None}, "observation_clip is None"),
        ({"observation_clip": float("nan")}, "observation_clip is nan"),
        ({"observation_clip": -1}, "observation_clip is -1"),
        ({"output_clip": "2"}, "output_clip is '2'"),
        ({"activation": "swish"}, "activation is 'swish', known here are elu"),
        ({"squash": "no"}, "squash is 'no'"),
        ({"action_low": float("-inf")}, "bounds of actions"),
        ({"action_low": 5.0}, r"5.0 above"),
        ({"action_low": [-1.0, -1.0]}, "bounds of actions"),
        (
            {"action_low": [-1.0] * 3, "action_high": [1.0] * 3},
            "has 3 numbers in action_low, its network returns 1",
        ),
        ({"env_id": 3}, "env_id is 3"),
        ({"output_scale": 2.0}, "it has output_scale, which may change what it plays"),
        ({"played_low": -9.0}, "it has played_low"),
    ],
)
def test_an_entry_of_a_record_that_is_wrong_or_unknown_is_named(
    folder: Path, entry: dict[str, Any], problem: str
) -> None:
    record = json.loads((folder / f"{NAME}.json").read_text())
    (folder / f"{NAME}.json").write_text(json.dumps(record | entry))
    assert problem in refused(folder)


@pytest.mark.parametrize(
    "entry", ["task", "env_id", "observation_clip", "action_low", "action_high"]
)
def test_an_entry_that_lacks_is_named(folder: Path, entry: str) -> None:
    record = json.loads((folder / f"{NAME}.json").read_text())
    del record[entry]
    (folder / f"{NAME}.json").write_text(json.dumps(record))
    assert f"it lacks {entry}" in refused(folder)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("layer0.weight", None), ("layer1.weight", None), ("obs_mean", None), ("log_std", None),
        ("layer0.weight", np.zeros((64, 5), np.float32)), ("layer1.bias", np.zeros(3, np.float32)),
        ("layer1.weight", np.zeros(64, np.float32)), ("obs_std", np.zeros(4, np.float32)),
        ("obs_std", np.ones(3, np.float32)), ("log_std", np.zeros(2, np.float32)),
        ("log_std", np.full(1, np.nan, np.float32)), ("layer0.weight", np.zeros((64, 4), np.int32)),
        ("norm0.weight", np.ones(64, np.float32)), ("layer9.weight", np.zeros((1, 1), np.float32)),
        ("obs_scale", np.ones(4, np.float32)),
    ],
)  # fmt: skip
def test_arrays_that_are_no_network_are_named(
    folder: Path, name: str, array: np.ndarray | None
) -> None:
    weights = folder / f"{NAME}.safetensors"
    arrays = load_file(weights)
    arrays.pop(name, None)
    save_file(arrays | ({} if array is None else {name: array}), weights)
    assert "layer" in (message := refused(folder)) or name in message


@pytest.mark.report("isaac-sim/IsaacLab#5080")
def test_a_specialist_of_other_bounds_is_scaled_and_says_so(folder: Path) -> None:
    record = json.loads((folder / f"{NAME}.json").read_text())
    (folder / f"{NAME}.json").write_text(
        json.dumps(record | {"action_low": -1.5, "action_high": 1.5})
    )
    half, whole = (
        load_specialist(TASK.name, folder),
        teacher_for(TASK, f"specialist:{folder}", noise=0.0),
    )
    seen = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32) * 0.05
    np.testing.assert_allclose(
        whole.act(TimeStep.first({"state": seen}, seeds=range(9))), 2.0 * half.mean(seen), rtol=1e-5
    )
    np.testing.assert_allclose(half.fitted(TASK).action_std, 2.0 * half.action_std)
    assert any("actions are scaled from [-1.5, 1.5]" in note for note in whole.notes)
    assert not teacher_for(TASK, f"specialist:{SHIPPED}").notes
