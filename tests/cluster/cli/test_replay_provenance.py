"""`gato replay provenance` and `stats` say where episodes came from, what was done to them, and
what is not read."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from actors.tasks.catalog import TASKS
from cluster.cli.replay.inspect import stats
from cluster.cli.replay.provenance import provenance
from cluster.runs.data import dataset_import as importing
from replay.formats.detect import read_source
from replay.formats.reader import ImportOptions


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of a D4RL file: 1,500 rows that no mark divides, then two good episodes of 100,
    with actions beyond the bounds."""
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    rows = 1700
    actions = np.zeros((rows, 3))
    actions[1510:1520, 1] = -1.25
    rewards = np.where(np.arange(rows) < 1500, 0.0, 3.0)
    with h5py.File(tmp_path / "hopper-v2.hdf5", "w") as file:
        file["observations"], file["actions"], file["rewards"] = (
            np.zeros((rows, 11)),
            actions,
            rewards,
        )
        file["terminals"] = np.isin(np.arange(rows), (1499, 1599, 1699))
        file["timeouts"] = np.zeros(rows, np.bool_)
    options = ImportOptions(allowed=frozenset({"version"}))
    importing.make(
        "mine",
        lambda known: read_source(
            str(tmp_path / "hopper-v2.hdf5"), TASKS, known=known, options=options
        ),
        TASKS,
        Console(quiet=True),
        origin="hopper-v2.hdf5",
    )


def printed() -> str:
    console = Console(record=True, width=200)
    provenance("mine", task=None, each=False, as_json=False, console=console)
    return console.export_text()


def test_episodes_are_grouped_by_origin_with_what_was_done() -> None:
    text = printed()
    assert "mujoco/hopper from file:hopper-v2: 4 episodes, 1,700 steps" in text
    assert "hopper-v2.hdf5" in text
    assert "Hopper-v2 ran on mujoco-py; it becomes Hopper-v5" in text
    assert "2 at the task's limit: the file does not mark their ends" in text
    assert "1: 3.33% of their action values, by up to 0.25" in text


def test_each_episode_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    provenance("mine", task="hopper", each=True, as_json=True, console=Console(quiet=True))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["split_from"] for line in lines] == [1500, 1500, None, None]
    assert [line["clipped"] for line in lines] == [
        None, None, {"values": 300, "outside": 10, "furthest": 0.25}, None
    ]  # fmt: skip
    provenance("mine", task=None, each=True, as_json=False, console=Console(width=200))
    assert capsys.readouterr().out.count("d4rl:hopper-v2:") == 4


def test_stats_say_what_the_filter_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    stats("mine", as_json=True, console=Console(quiet=True))
    (reasons,) = json.loads(capsys.readouterr().out)["left_out"].values()
    assert list(reasons.values()) == [{"episodes": 2, "steps": 1500}]
    console = Console(record=True, width=200)
    stats("mine", as_json=False, console=console)
    assert (
        "2 of 4 episodes (1,500 steps) are not read: below 80% of the best demonstrations' return"
        in (console.export_text())
    )
