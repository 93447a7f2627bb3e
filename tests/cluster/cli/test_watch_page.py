"""`gato watch --web` serves the page of any run, and says where it is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.written_runs import make_run
from cluster.cli.main import app
from cluster.control.page import live_page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "8080"], "--port is of the page; add --web"),
        (["--web", "--once"], "--web serves a page; leave out --once, --json and --redis"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["watch", *words])
    assert said in str(result.exception)


def test_it_serves_a_finished_run_until_ctrl_c(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", reports=3)
    words = [sys.executable, "-P", "-m", "cluster.cli.main", "watch", "--web"]
    environment = os.environ | {"GATO_RUNS": str(tmp_path), "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    said = process.stdout.readline()
    url = live_page(folder)
    assert url is not None
    assert said.startswith(f"page: {url} (Ctrl-C ends it, not the run")
    # A second one says where the first is; one that insists on the port is refused.
    again = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    assert again.stdout == f"run one has its page at {url}\n"
    taken = subprocess.run(
        [*words, "--port", url.rpartition(":")[2]],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert taken.returncode == 2
    assert "give another --port, or none for a free one" in " ".join(taken.stderr.split())
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    process.stdout.close()
