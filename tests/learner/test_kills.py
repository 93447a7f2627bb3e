"""kill -9 of a learner's process in a checkpoint, in a publication, in an update; and SIGTERM."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from learner.checkpoints.files import list_checkpoints
from learner.termination import STATUS
from tests.learner.test_learner import make, weights_of


@pytest.mark.parametrize("where", ["checkpoint", "publication", "step"])
def test_a_learner_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path: Path, where: str) -> None:
    whole = make(tmp_path / "whole")
    list(whole.run())
    ended = subprocess.run(
        [sys.executable, "-m", "tests.learner.dying", str(tmp_path / "killed"), where],
        timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL
    has_draft = bool(list((tmp_path / "killed").glob(".draft-*/model.safetensors")))
    assert has_draft == (where == "checkpoint")
    assert [path.name for path in list_checkpoints(tmp_path / "killed")] == ["step-000000004"]
    resumed = make(tmp_path / "killed", epoch=2)
    assert resumed.progress.step == 4
    assert not resumed.notes
    assert not list((tmp_path / "killed").glob(".draft-*"))
    list(resumed.run())
    for name, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(resumed)[name]), name


def test_a_learner_that_gets_sigterm_saves_its_last_update_and_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.learner.dying", str(tmp_path), "sigterm"],
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while int(process.stdout.readline()) < 3:
            pass
        process.send_signal(signal.SIGTERM)
        begun_s = time.monotonic()
        steps = [int(line) for line in process.stdout]
        assert process.wait(20) == STATUS
    assert time.monotonic() - begun_s < 20
    [saved] = list_checkpoints(tmp_path)
    assert saved.name == f"step-{steps[-1]:09d}"
    assert make(tmp_path, epoch=2).progress.step == steps[-1]
