"""The command line answers at once: what its words import, how a shell completes them, and its
version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from cluster.cli.lazy import LazyGroup
from cluster.cli.main import Commands
from cluster.cli.replay.main import ReplayCommands
from cluster.cli.sweep.main import SweepCommands
from cluster.journal.records import Event
from cluster.journal.redis_server import RedisServer
from cluster.journal.writer import JournalWriter
from cluster.runs.folder import RunFolder
from cluster.runs.overview import overviews
from cluster.runs.presets import RUNS
from gato.metrics import Evaluation
from gato.version import Version
from tests.cluster.cli.test_main import gato, here
from tests.cluster.journals import written
from tests.cluster.wait import until

__all__ = ["here"]

SLOW = (
    "torch", "ray", "gymnasium", "mujoco", "ale_py", "cv2", "redis", "valkey", "h5py", "pyarrow",
    "pandas", "aiohttp", "matplotlib", "minari", "scipy", "sentencepiece",
)  # fmt: skip
"""Each takes 0.1 s to 4 s to import."""
CALLS = """
import contextlib, io, json, sys
from cluster.cli.main import main
late = {}
for words in json.loads(sys.argv[1]):
    sys.argv = ["gato", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
    slow = sorted(set(json.loads(sys.stdin.readline())) & sys.modules.keys())
    late[" ".join(words)] = [status, slow]
print(json.dumps(late))
"""


def called(
    *words: tuple[str, ...], watched: Sequence[str] = SLOW
) -> dict[str, tuple[int, list[str]]]:
    """Exit status of each, one after another in a process, and which of the watched modules are
    imported by then."""
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps(words)],
        input=f"{json.dumps(watched)}\n" * len(words),
        capture_output=True,
        text=True,
        check=True,
        timeout=120.0,
    )
    return {call: (status, slow) for call, (status, slow) in json.loads(done.stdout).items()}


def every_word() -> list[tuple[str, ...]]:
    groups: dict[str, type[LazyGroup]] = {"replay": ReplayCommands, "sweep": SweepCommands}
    inner = [(name, word) for name, group in groups.items() for word in group.MODULES]
    return [(word,) for word in Commands.MODULES] + inner


def test_no_help_waits_for_torch_ray_or_environments() -> None:
    words = [("--help",), *((*word, "--help") for word in every_word())]
    found = called(*words)
    assert len(found) == len(words)
    assert {call: said for call, said in found.items() if said != (0, [])} == {}


def test_a_word_that_only_reads_does_not_wait_for_torch_ray_or_environments(here: Path) -> None:
    run = RunFolder.create(replace(RUNS["debug"], name="old"))
    written(run, [Event(kind="finished", text="all updates")])
    run.set_state("finished")
    words = [
        ("--version",), ("runs",), ("status",), ("watch", "old", "--once"), ("config", "show"),
        ("watch", "old", "--once", "--json"), ("config", "show", "demo"), ("logs",),
    ]  # fmt: skip
    found = called(*words)
    assert {call: said for call, said in found.items() if said != (0, [])} == {}
    assert called(("stop", "old"), ("watch", "odl")) == {"stop old": (2, []), "watch odl": (2, [])}


def test_runs_and_a_status_do_not_wait_for_numpy(here: Path) -> None:
    run = RunFolder.create(replace(RUNS["debug"], name="old"))
    (run.path / "scales.json").write_text('{"t": {"random_return": 0.0, "teacher_return": 2.0}}')
    written(run, [Evaluation(task="t", version=Version(1, 1), learner_step=3, returns=(1.0, 1.0))])
    (overview,) = overviews(run.root)
    assert (overview.iqm, overview.tasks) == (0.5, RUNS["debug"].tasks)
    watched = ("numpy", "jaxtyping", "torch")
    assert called(("runs",), watched=watched) == {"runs": (0, [])}
    run.set_state("finished")
    young = RunFolder.create(replace(RUNS["debug"], name="young"))
    written(young, [Event(kind="started", text="")])
    assert called(("status", "young"), watched=watched) == {"status young": (0, [])}


def test_the_version_is_the_installed_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gato(monkeypatch, capsys, "--version") == (0, f"gato-ray {version('gato-ray')}\n", "")


def completed(typed: str) -> list[str]:
    """What bash is offered after `typed`."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'gato'; from cluster.cli.main import main"
         "; main()"],
        env={**os.environ, "_GATO_COMPLETE": "complete_bash", "COMP_WORDS": typed,
             "COMP_CWORD": str(typed.count(" "))},
        capture_output=True, text=True, check=True, timeout=60.0,
    )  # fmt: skip
    return done.stdout.split()


def test_a_shell_completes_words_runs_tasks_and_options(here: Path) -> None:
    RunFolder.create(replace(RUNS["debug"], name="mine"))
    bad = here / "runs" / "$(reboot)"
    bad.mkdir()
    (bad / "run.json").write_text("{}")
    assert completed("gato wa") == ["watch"]
    assert completed("gato replay ver") == ["verify"]
    assert completed("gato watch ") == ["mine"]
    assert completed("gato check mujoco/hop") == ["mujoco/hopper"]
    assert completed("gato start de") == ["demo", "decision-transformer", "debug"]
    assert "--once" in completed("gato watch --")


def test_completion_of_words_imports_no_command() -> None:
    code = (
        "import sys; from cluster.cli.main import Commands, app; import typer.main\n"
        "group = typer.main.get_group(app)\n"
        "context = group.make_context('gato', [], resilient_parsing=True)\n"
        "print(len(group.shell_complete(context, '')), 'cluster.cli.watch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60.0
    )
    assert done.stdout.split() == [str(len(Commands.MODULES)), "False"]


def test_a_journal_in_redis_is_read_without_ray(here: Path) -> None:
    run = RunFolder.create(replace(RUNS["debug"], name="old"))
    with (
        RedisServer.start(here / "redis") as server,
        JournalWriter(here / "elsewhere", run.claim_id(), server=server.url) as journal,
    ):
        journal.append(Event(kind="finished", text="all updates"))
        until(lambda: journal.status().waiting == 0)
        found = called(("watch", "old", "--once", "--redis", server.url))
    ((status, slow),) = found.values()
    assert status == 0
    assert not {"ray", "torch", "gymnasium"} & set(slow)
