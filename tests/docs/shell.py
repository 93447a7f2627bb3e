"""The command `gato` and Python as the pages show them: in this process, with one run for all
pages."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from typer.main import get_command

from cluster.cli.main import app, main
from cluster.control import lifecycle
from cluster.control.run_control import summary_of
from tests.docs.blocks import ROOT

RUN = "debug"
"""The run that pages which say `debug` or `demo` are tested with."""
STARTS = 3
BUSY = "a local Ray did not start"
"""Ray gives up after half a minute on a busy machine; the next start may do."""
LIVE = ("scale", "roles", "stop", "replay pause", "replay resume", "replay limit")
"""Commands that need a run which goes on."""


def name_of(words: Sequence[str]) -> str:
    """The command in `gato` words, such as `replay ls`."""
    return " ".join(words[1:3]) if words[1] in ("replay", "config", "sweep") else words[1]


def is_live(words: Sequence[str]) -> bool:
    return words[0] == "gato" and len(words) > 1 and name_of(words) in LIVE


def on_our_run(words: Sequence[str]) -> tuple[str, ...]:
    """The same words for the run of the tests, in place of the demo."""
    return tuple(RUN if word == "demo" else word for word in words)


def parse(words: Sequence[str]) -> None:
    """Raise if the command line would not take these words."""
    command: Any = get_command(app)
    parent, name, rest = None, "gato", split_redirection(words)[0][1:]
    while True:
        context = command.make_context(name, rest, parent=parent)
        if not hasattr(command, "list_commands"):
            return
        name, command, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        parent = context


def gato(words: Sequence[str]) -> tuple[int, str]:
    """Exit status and output of one command, in this process."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
        patch.setattr("sys.argv", list(words))
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
    return status, out.getvalue()


def split_redirection(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The command, and the file that its output goes to if it ends with `> FILE`."""
    if len(words) > 2 and words[-2] == ">":
        return list(words[:-2]), words[-1]
    return list(words), None


def run(words: Sequence[str]) -> None:
    """Run a command; AssertionError with its output if it fails."""
    command, file = split_redirection(words)
    status, out = gato(command)
    assert status == 0, f"{' '.join(words)}: exit status {status}\n{out}"
    if file is not None:
        Path(file).write_text(out)


def check_start(words: Sequence[str]) -> None:
    """Everything that `gato start` does before Ray is started: names, data, settings, teachers."""
    started: list[object] = []

    def keep(config: object, **_: object) -> None:
        started.append(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "start", keep)
        run(words)
    assert started or "--plan" in words


def script(code: list[str], folder: Path) -> None:
    """Run Python in a process of its own."""
    done = subprocess.run(
        [sys.executable, *code], cwd=folder, env=os.environ | {"PYTHONPATH": f"{ROOT}:{folder}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def until(condition: Callable[[], object], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.5)


@contextmanager
def live_run(folder: Path) -> Iterator[None]:
    """A debug run that goes on until it is stopped; it has a checkpoint and episodes of each
    role."""
    words = [
        sys.executable, "-m", "cluster.cli.main", "start", RUN, "--detach", "--updates", "1000000",
        "--set", "actors.relabel_share=0.3", "--set", "learner.checkpoint_every=20",
        "--set", "actors.clip_every_s=0", "--set", "actors.evaluate_every_s=2",
    ]  # fmt: skip
    for _ in range(STARTS):
        done = subprocess.run(
            words, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if BUSY not in done.stderr:
            break
        shutil.rmtree(Path(os.environ["GATO_RUNS"], RUN))  # or the next would be called debug-2
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    def is_ready() -> bool:
        checkpoints = Path(os.environ["GATO_RUNS"], RUN, "checkpoints")
        return (
            bool(list(checkpoints.glob("step-*/checkpoint.json")))
            and bool(summary_of(RUN).tasks)
            and gato(["gato", "replay", "ls", RUN, "--source", "agent:relabelled"])[0] == 0
        )

    try:
        until(is_ready, timeout_s=240.0)
        yield
    finally:
        if lifecycle.find_run(RUN).info().is_active:
            gato(["gato", "stop", RUN])


@contextmanager
def modules_of(folder: Path) -> Iterator[None]:
    """What a page's own modules leave in this process is taken away again."""
    path, registered = list(sys.path), set(gymnasium.registry)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(gymnasium.registry) - registered:
            # A package registers once, when it is imported: what it has registered stays.
            entry = gymnasium.registry[name].entry_point
            module = sys.modules.get(entry.partition(":")[0]) if isinstance(entry, str) else None
            if "site-packages" not in str(getattr(module, "__file__", None)):
                del gymnasium.registry[name]
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}"):
                del sys.modules[name]
