"""The picture of a run at 80 columns cuts neither words nor numbers, uses a tall screen, and tells
what the learner measures."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from cluster.journal.records import Event
from cluster.monitor.format import broken, flowed, unbroken_columns
from cluster.monitor.summary import Summary
from cluster.monitor.terminal.watch import render, watch_live
from gato.metrics import LearnerReport, Mean, WorkerReport
from gato.version import Version
from tests.cluster.monitor.terminal.test_watch import (
    BEGIN_S,
    Script,
    entries,
    folded,
    records,
    task_names,
)

NODE = "a-machine-of-ours.example.org"
LONG = "it was killed by a signal and is started again on another machine of this cluster"


def long_records(num_tasks: int) -> list[object]:
    report = LearnerReport(
        step=123_456,
        num_updates=1_000_000,
        version=Version(12, 3456),
        loss=Mean(6.0, 4),
        learning_rate=1e-4,
        gradient_norm=1.25,
        tokens=250_000,
        wall_s=2.0,
        wait_s=0.5,
        seconds={"data": 0.5, "forward": 0.5, "backward": 1.0},
        accuracy_by_task={"a": Mean(3, 4), "b": Mean(0, 4)},
        norm_by_part={"embedding": 0.375, "blocks": 0.875},
        mfu=0.31,
        memory_bytes=3_200_000_000,
    )
    worker = WorkerReport(
        worker="w",
        role="demonstrate",
        task=task_names(1)[0],
        version=None,
        episodes=1,
        env_steps=100,
        wall_s=1.0,
        node=NODE,
    )
    workers = [replace(worker, worker=f"worker-{number}") for number in range(12)]
    events = [Event(kind="worker died", text=f"w{n}: {LONG}", time_s=BEGIN_S) for n in range(12)]
    return [*records(num_tasks), report, *workers, *events]


def screen(summary: Summary, columns: int, rows: int) -> list[str]:
    console = Console(
        file=io.StringIO(), width=columns, height=rows, force_terminal=True, color_system=None
    )
    with console.capture() as captured:
        console.print(render(summary))
    return captured.get().splitlines()


def words(lines: list[str]) -> str:
    """What is on the screen without the frame, and without what breaks lines."""
    return "".join(line.strip("│ ").replace(" ", "") for line in lines)


@pytest.mark.parametrize("columns", [80, 90, 120])
@pytest.mark.parametrize("num_tasks", [1, 4])
def test_nothing_is_cut(columns: int, num_tasks: int) -> None:
    lines = screen(folded(num_tasks, long_records(num_tasks)), columns, 60)  # pyright: ignore
    text = "\n".join(lines)
    assert max(map(len, lines)) <= columns
    assert "…" not in text
    for part in ("123k/1.0M", "loss 1.50", "waits", "2,120 ± 100", "3,220", "teacher"):
        assert part in text
    assert all(name.rpartition("/")[2][:8] in text for name in task_names(num_tasks))
    assert LONG.replace(" ", "") in words([line[24:] for line in lines])


def test_a_tall_screen_tells_what_the_learner_measures_and_more_events() -> None:
    summary = folded(2, long_records(2))  # pyright: ignore
    tall, low = screen(summary, 80, 60), screen(summary, 80, 24)
    text = "\n".join(tall)
    for part in (
        "data 25%", "forward 25%", "backward 50%", "accuracy 38%", "gradient 1.25",
        "embedding 0.38", "blocks 0.88", "MFU 31%", "memory 3.2 GB", "a-machine-of-",
    ):  # fmt: skip
        assert part in text, part
    assert len(tall) < 60
    assert len(low) < 24
    assert text.count("worker died") > 4
    assert 4 <= "\n".join(low).count("worker died") < text.count("worker died")
    assert "MFU" not in "\n".join(low)


def test_columns_make_way_before_numbers_are_cut() -> None:
    text = "\n".join(screen(folded(2, records(2)), 50, 60))
    assert "2,120 ± 100" in text
    assert "env/s" not in text.split("worker")[0]
    assert "…" not in text


def test_a_name_is_broken_where_it_is_joined() -> None:
    assert broken("mujoco/hopper-v5", 10) == "mujoco/\nhopper-v5"
    assert broken("short", 10) == "short"
    name = "window-halfcheetah"
    assert broken(name, unbroken_columns(name)) == "window-\nhalfcheetah"
    assert broken("abcdefghij-klm", 4) == "abcd\nefgh\nij-\nklm"
    assert flowed(["a b", "c", "d e f"], 8, " · ") == "a b · c\nd e f"


def test_a_run_that_is_killed_while_it_is_watched_is_shown_dead() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    asked = iter([False, True])
    summary = watch_live(
        Script([entries(records(1)), [], []]),
        run="demo",
        scales={},
        console=console,
        is_dead=lambda: next(asked),
    )
    assert summary.state == "dead"
    assert isinstance(console.file, io.StringIO)
    assert "gato resume demo goes on" in " ".join(console.file.getvalue().split())
