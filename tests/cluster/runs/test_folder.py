"""Runs are found by name, never share a folder, and say how they stand even when nobody is left to
say it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.runs.disk_space import require_space
from cluster.runs.folder import RunFolder, find_run, list_runs, runs_root
from cluster.runs.folder_name import RunExists
from cluster.runs.presets import RUNS

DEMO = RUNS["demo"]


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    names = [RunFolder.create(DEMO, root=tmp_path).name for _ in range(3)]
    assert names == ["demo", "demo-2", "demo-3"]


def test_a_run_keeps_its_config_and_its_state(tmp_path: Path) -> None:
    run = RunFolder.create(DEMO, root=tmp_path)
    assert (run.info().state, run.info().supervisor_pid) == ("starting", os.getpid())
    run.set_state("running")
    assert run.info().is_active
    run.set_state("failed", reason="loss is not finite")
    info = run.info()
    assert (info.state, info.reason, info.supervisor_pid) == ("failed", "loss is not finite", None)
    assert run.config() == DEMO
    assert {file.name for file in run.path.iterdir()} == {"run.json", "config.yaml"}


def test_a_run_whose_supervisor_is_gone_is_dead(tmp_path: Path) -> None:
    code = "import sys; from tests.cluster.runs.test_folder import DEMO, RunFolder\n"
    code += "RunFolder.create(DEMO, root=sys.argv[1]).set_state('running')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert find_run("demo", tmp_path).info().state == "dead"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_another_process_with_the_supervisors_number_is_not_taken_for_it(tmp_path: Path) -> None:
    run = RunFolder.create(DEMO, root=tmp_path)
    file = run.path / "run.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "supervisor_born": "another boot/1"})
    )
    assert run.info().state == "dead"


def test_without_a_name_the_newest_active_run_is_meant_else_the_newest(tmp_path: Path) -> None:
    runs = [RunFolder.create(DEMO, root=tmp_path) for _ in range(3)]
    assert [info.name for info in list_runs(tmp_path)] == ["demo-3", "demo-2", "demo"]
    runs[2].set_state("stopped")
    assert find_run(root=tmp_path).name == "demo-2"
    runs[0].set_state("stopped")
    runs[1].set_state("stopped")
    assert find_run(root=tmp_path).name == "demo-3"


def test_an_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there are no runs in .*; start one with: gato start"):
        find_run("demo", tmp_path)
    RunFolder.create(DEMO, root=tmp_path)
    with pytest.raises(ValueError, match=r"no run 'dmeo' in .*; did you mean 'demo'"):
        find_run("dmeo", tmp_path)
    with pytest.raises(ValueError, match="there are: demo"):
        find_run("zzz", tmp_path)


def test_a_damaged_run_is_left_out_of_the_list_and_named_when_asked_for(tmp_path: Path) -> None:
    run = RunFolder.create(DEMO, root=tmp_path)
    (run.path / "run.json").write_text("{}")
    assert list_runs(tmp_path) == []
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        run.info()


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", "x" * 65])
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a run"):
        RunFolder.create(replace(DEMO, name=name), root=tmp_path)


def test_runs_are_kept_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "elsewhere"))
    assert RunFolder.create(DEMO).path == tmp_path / "elsewhere" / "demo"
    monkeypatch.delenv("GATO_RUNS")
    assert runs_root() == Path.cwd() / "runs"


def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file.*; set GATO_RUNS"):
        RunFolder.create(DEMO, root=tmp_path / "file")


def test_too_little_space_is_said_before_anything_starts(tmp_path: Path) -> None:
    require_space(tmp_path / "new", 1)
    with pytest.raises(ValueError, match=r"GB free, the run needs 1000000000\.0 GB; free some"):
        require_space(tmp_path, 10**18)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to .*; choose another folder"):
        require_space(tmp_path / "file", 1)


def test_a_folder_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        assert list_runs(tmp_path) == []
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "_write_config", full)
        with pytest.raises(ValueError, match=r"cannot make .*demo \(No space left on device\)"):
            RunFolder.create(DEMO, root=tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "demo").mkdir()  # a start was killed before runs were made at once
    left, young = tmp_path / ".999999999.ab.new", tmp_path / ".999999999.cd.new"
    for draft in (left, young):
        draft.mkdir()
    os.utime(left, (0, 0))
    assert RunFolder.create(DEMO, root=tmp_path, is_exact=True).name == "demo"
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, "demo"]
    assert [run.name for run in list_runs(tmp_path)] == ["demo"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(RunExists):
        RunFolder.create(replace(DEMO, name="mine"), root=tmp_path, is_exact=True)


def test_a_long_name_that_is_taken_stays_one_that_can_be_named(tmp_path: Path) -> None:
    long = replace(DEMO, name="x" * 64)
    names = [RunFolder.create(long, root=tmp_path).name for _ in range(2)]
    assert names == ["x" * 64, "x" * 62 + "-2"]
    assert find_run(names[1], tmp_path).config().name == names[1]


@pytest.mark.parametrize("name", ["data", "sweeps"])
def test_a_run_cannot_have_the_name_of_a_folder_beside_the_runs(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a run"):
        RunFolder.create(replace(DEMO, name=name), root=tmp_path)
