"""The page beside a run is started again when it dies, ends with the run, and never harms it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.written_runs import make_run
from cluster.control.page import PageProcess, live_page, page_of
from cluster.runs.config import PageConfig
from tests.cluster.wait import until


def pids_of(folder: Path) -> list[int]:
    """Processes that serve the page of this run."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"cluster.web.serve" in words and str(folder).encode() in words:
                found.append(int(entry.name))
    return found


def test_it_is_there_again_at_the_same_address_after_kill_9_and_ends_with_the_run(
    tmp_path: Path,
) -> None:
    folder = make_run(tmp_path, "one", reports=2)
    said: list[str] = []
    page = PageProcess(folder, 0, say=said.append)
    page.start()
    url = until(lambda: live_page(folder))
    assert said == [f"page: {url}"]
    (pid,) = pids_of(folder.path)
    os.kill(pid, signal.SIGKILL)
    until(lambda: pids_of(folder.path) not in ([], [pid]))
    assert until(lambda: live_page(folder)) == url
    page.close()
    assert live_page(folder) is None
    assert pids_of(folder.path) == []


def test_it_ends_when_the_process_of_the_run_is_killed(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", reports=2)
    code = (
        "import sys, time; from pathlib import Path; from cluster.runs.folder import RunFolder;"
        "from cluster.control.page import PageProcess;"
        f"PageProcess(RunFolder(Path({str(tmp_path)!r}), 'one'), 0, say=print).start();"
        "time.sleep(60)"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    until(lambda: live_page(folder))
    run.kill()
    run.wait()
    until(lambda: not pids_of(folder.path))


def test_it_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, cluster.web.serve;"
        "assert not {'torch', 'ray', 'gymnasium', 'mujoco'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("is_on", "switch"), [(False, "on"), (True, "off")])
def test_a_run_has_none_where_it_is_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_on: bool, switch: str
) -> None:
    monkeypatch.setenv("GATO_PAGE", switch)
    folder = make_run(tmp_path, "one", reports=1)
    with page_of(folder, PageConfig(is_on=is_on), Console()):
        assert not (folder.path / "page").exists()


def test_a_port_is_checked() -> None:
    with pytest.raises(ValueError, match="port is 70000"):
        PageConfig(port=70_000)
