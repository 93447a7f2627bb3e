"""Safetensors files: as the package writes and reads them, and never half or damaged."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gato.exported.tensor_file import TensorFile, read_tensors, write_tensors

ARRAYS = {
    "picture": np.arange(30, dtype=np.uint8).reshape(2, 5, 3),
    "weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "half": torch.linspace(0, 1, 5).to(torch.bfloat16).view(torch.uint16).numpy(),
    "count": np.array(3, np.int64),
    "return": np.array([1.5, 0.5]),
    "empty": np.zeros((0, 4), np.float32),
}


def written(folder: Path, *, replace: bool = False) -> Path:
    file = folder / "policy.safetensors"
    write_tensors(file, TensorFile(metadata={"a": "b"}, arrays=ARRAYS), replace=replace)
    return file


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    found = read_tensors(written(tmp_path))
    assert found.metadata["a"] == "b"
    assert set(found.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)


def test_the_package_reads_what_is_written(tmp_path: Path) -> None:
    file = written(tmp_path)
    theirs = load_file(file)
    np.testing.assert_array_equal(theirs["weight"].numpy(), ARRAYS["weight"])
    assert theirs["half"].dtype == torch.bfloat16
    np.testing.assert_array_equal(theirs["half"].view(torch.uint16).numpy(), ARRAYS["half"])
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["a"] == "b"


def test_what_the_package_writes_is_read(tmp_path: Path) -> None:
    file = tmp_path / "theirs.safetensors"
    save_file({"b": torch.ones(3), "a": torch.arange(4)}, file, {"x": "y"})
    found = read_tensors(file)
    assert found.metadata == {"x": "y"}
    np.testing.assert_array_equal(found.arrays["a"], np.arange(4))


def test_a_file_is_replaced_only_on_demand_and_no_draft_is_left(tmp_path: Path) -> None:
    file = written(tmp_path)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="is there already"):
        written(tmp_path)
    assert file.read_bytes() == before
    written(tmp_path, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_write_that_fails_leaves_the_file_before_and_no_draft(tmp_path: Path) -> None:
    file = written(tmp_path)
    before = file.read_bytes()
    with pytest.raises(KeyError):
        write_tensors(
            file,
            TensorFile(metadata={}, arrays={"odd": np.zeros(3, np.complex64)}),
            replace=True,
        )
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def with_header(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    def changed(raw: bytes) -> bytes:
        (size,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + size])
        text = json.dumps(change(header) or header).encode()
        return struct.pack("<Q", len(text)) + text + raw[8 + size :]

    return changed


def offset(name: str, by: int) -> Callable[[dict], None]:
    def change(header: dict) -> None:
        header[name]["data_offsets"] = [at + by for at in header[name]["data_offsets"]]

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"", "it has 0 bytes"),
        (lambda raw: raw[:5], "it has 5 bytes"),
        (lambda raw: raw[:60], "its header would have"),
        (lambda raw: b"PK\3\4" * 100, "its header would have"),
        (lambda raw: raw[:-1], "cut off"),
        (lambda raw: raw + b"x", "follow the last tensor"),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "its checksum differs"),
        (lambda raw: raw[:8] + b"[" + raw[9:], "is damaged"),
        (with_header(lambda header: [1]), "its header is a list"),
        (with_header(offset("weight", 4)), "expected it after"),
        (with_header(offset("count", -8)), "whole numbers"),
        (with_header(lambda h: h["weight"].update(dtype="F4")), "has dtype F4"),
        (with_header(lambda h: h["weight"].update(shape=[2, 4])), "expected it after"),
        (with_header(lambda h: h["weight"].update(shape=[-2, -3])), "whole numbers"),
        (with_header(lambda h: h["weight"].clear()), "'data_offsets' is missing"),
        (with_header(offset("return", -8)), "expected it after"),
        (with_header(lambda h: h.update(weight=7)), "is damaged"),
        (with_header(lambda h: h.update(__metadata__={"a": 1})), "is not texts"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_what_is_wrong(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    file = written(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match="is damaged") as caught:
        read_tensors(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_name_that_stands_twice_in_the_header_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "twice.safetensors"
    text = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{}}'
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"x")
    with pytest.raises(ValueError, match="a name twice"):
        read_tensors(file)
