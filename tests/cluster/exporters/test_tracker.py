"""Trackers get a log call for each entry of the journal; those that are installed are tried, with
what they write without a network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cluster.exporters.series import Sample
from cluster.exporters.tracker import TRACKERS, Tracker, TrackerName

SAMPLES = [Sample("learner/loss", 20, 5.0, 0.5), Sample("learner/mfu", 20, 5.0, 0.25)]
OLDER = [Sample("evaluate/return/a", 10, 6.0, 40.0)]


class Run:
    def __init__(self, said: list[Any]) -> None:
        self._said = said

    def define_metric(self, name: str, step_metric: str) -> None:
        self._said.append(("define", name, step_metric))


def stand_in(name: str, said: list[Any]) -> ModuleType:
    """A module with the three functions that trackers share, which keeps what it is told."""
    module = ModuleType(name)

    def init(**given: Any) -> Run:
        said.append(("init", given["project"], given["name"], given["config"]))
        return Run(said)

    def log(values: Mapping[str, float], step: int | None = None) -> None:
        said.append(("log", dict(values), step))

    module.init, module.log = init, log  # pyright: ignore[reportAttributeAccessIssue]
    module.finish = lambda: said.append("finish")  # pyright: ignore[reportAttributeAccessIssue]
    return module


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_is_begun_told_of_each_entry_and_finished(
    name: TrackerName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    monkeypatch.setitem(sys.modules, name, stand_in(name, said))
    tracker = Tracker(
        name, project="p", run="demo", run_id="1a", settings={"seed": 1}, folder=tmp_path / "x"
    )
    tracker.write(SAMPLES)
    tracker.write(OLDER)
    tracker.close()
    assert said[0] == ("init", "p", "demo", {"seed": 1})
    assert said[-1] == "finish"
    logged = [entry[1:] for entry in said if entry[0] == "log"]
    values = {"learner/loss": 0.5, "learner/mfu": 0.25}
    if name == "wandb":
        assert ("define", "*", "updates") in said
        assert logged == [
            ({**values, "updates": 20}, None),
            ({"evaluate/return/a": 40.0, "updates": 10}, None),
        ]
    else:
        assert logged == [(values, 20), ({"evaluate/return/a": 40.0}, 10)]


def test_a_tracker_that_does_not_begin_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = stand_in("swanlab", [])

    def init(**_: Any) -> None:
        raise RuntimeError("no login")

    module.init = init  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "swanlab", module)
    with pytest.raises(ValueError, match="swanlab did not begin: no login"):
        Tracker("swanlab", project="p", run="r", run_id="1", settings={}, folder=tmp_path)


CODE = """
import sys
from pathlib import Path
from cluster.exporters.series import Sample
from cluster.exporters.tracker import Tracker
folder = Path(sys.argv[2])
tracker = Tracker(sys.argv[1], project="p", run="demo", run_id="1a2b", settings={"seed": 1},
                  folder=folder)
for step in range(3):
    tracker.write([Sample("learner/loss", step, 5.0, 0.5 + step)])
tracker.write([Sample("evaluate/return/a", 1, 5.0, 40.0)])
tracker.close()
"""


@pytest.mark.parametrize("name", TRACKERS)
def test_an_installed_tracker_writes_its_files_without_a_network(
    name: TrackerName, tmp_path: Path
) -> None:
    import os

    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed (pip install {name})")
    offline = {
        "WANDB_MODE": "offline",
        "SWANLAB_MODE": "offline",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run(
        [sys.executable, "-c", CODE, name, str(tmp_path / name)],
        env={**os.environ, **offline},
        check=True,
        timeout=120.0,
    )
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    for series in (b"learner/loss", b"evaluate/return/a"):
        assert series in written
