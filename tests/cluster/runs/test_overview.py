"""`gato runs`: how far runs are, how good and how large, in any order, whatever their journals
are."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cluster.cli.watch import print_runs
from cluster.journal.records import Record
from cluster.journal.tail import newest_entries
from cluster.runs import overview as module
from cluster.runs.folder import RunFolder
from cluster.runs.overview import overviews
from cluster.runs.presets import RUNS
from gato.metrics import Evaluation
from gato.version import Version
from tests.cluster.journals import learner_report, written

TASK = "mujoco/hopper"


def run(root: Path, name: str, *, step: int, score: float, filler: int = 0) -> RunFolder:
    folder = RunFolder.create(replace(RUNS["debug"], name=name), root=root)
    scale = {"random_return": 0.0, "teacher_return": 100.0}
    (folder.path / "scales.json").write_text(json.dumps({TASK: scale}))
    reports: list[Record] = [learner_report(n) for n in range(filler)]
    old = Evaluation(task=TASK, version=Version(1, 1), learner_step=1, returns=(1.0,))
    new = replace(old, version=Version(1, 2), returns=(100 * score,))
    written(folder, [old, new, *reports, learner_report(step)])
    folder.set_state("stopped")
    return folder


def test_runs_are_sorted_by_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "b", step=20, score=0.25)
    run(tmp_path, "a", step=10, score=0.75)
    large = run(tmp_path, "c", step=5, score=0.5)
    (large.path / "large").write_bytes(bytes(1 << 20))
    with (large.path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
    for order, names in (
        ("name", "abc"), ("step", "bac"), ("iqm", "acb"), ("size", "c"), ("started", "cab"),
    ):  # fmt: skip
        found = overviews(tmp_path, order)  # pyright: ignore[reportArgumentType]
        assert "".join(each.name for each in found).startswith(names)
    best = overviews(tmp_path, "iqm")[0]
    assert (best.step, best.num_updates, best.iqm) == (10, 1000, 0.75)
    assert 1 << 20 < overviews(tmp_path, "size")[0].disk_bytes < 1 << 24

    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    print_runs(console, order="iqm")
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0].split() == ["run", "state", "step", "IQM", "size", "started", "tasks"]
    assert lines[1].split()[:4] == ["a", "stopped", "10/1,000", "0.75"]
    print_runs(console, as_json=True)
    assert json.loads(capsys.readouterr().out.splitlines()[0])["name"] == "c"


def test_the_newest_evaluation_is_found_far_from_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_BYTES", 1 << 10)
    run(tmp_path, "long", step=300, score=0.5, filler=50)
    assert overviews(tmp_path)[0].iqm == 0.5
    monkeypatch.setattr(module, "MOST_BYTES", 1 << 10)
    found = overviews(tmp_path)[0]
    assert (found.step, found.iqm) == (300, None), "no more than it may read"


def test_the_end_of_a_journal_is_whole_lines_across_segments(tmp_path: Path) -> None:
    folder = run(tmp_path, "x", step=3, score=0.5).path / "journal"
    (file,) = folder.glob("*.log")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]))
    (folder / f"{3:012d}.log").write_bytes(b"".join(lines[2:]) + b"4 00000000 cut")
    assert [entry.id for entry in newest_entries(folder, 1 << 20)] == ["1-0", "2-0", "3-0"]
    assert [entry.id for entry in newest_entries(folder, len(lines[2]) + 20)] == ["3-0"]
    assert newest_entries(tmp_path / "none", 100) == []


def test_runs_without_a_journal_or_with_damaged_files_are_listed(tmp_path: Path) -> None:
    RunFolder.create(replace(RUNS["debug"], name="new"), root=tmp_path)
    broken = run(tmp_path, "broken", step=1, score=0.1)
    (broken.path / "scales.json").write_text("{")
    broken.config_file.write_text("]")
    by_name = {each.name: each for each in overviews(tmp_path)}
    assert by_name["new"].step is None
    assert (by_name["broken"].step, by_name["broken"].iqm, by_name["broken"].tasks) == (1, None, ())
