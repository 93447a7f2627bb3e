"""Commands that take long say how far they are: a bar on a terminal, a line now and then
elsewhere, and nothing on the standard output."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cluster.monitor.progress import LINE_EVERY_S, Progressing


def test_without_a_terminal_a_line_comes_every_few_seconds_with_the_time_left() -> None:
    now_s = 0.0
    console = Console(file=io.StringIO(), width=80)
    assert isinstance(console.file, io.StringIO)
    with Progressing(
        "a[b]\x1b[2J", total=40, unit="episodes", clock=lambda: now_s, console=console
    ) as progress:
        for _ in progress.track(range(40)):
            now_s += 1.0
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 40 // LINE_EVERY_S
    assert lines[0] == "a[b]\\x1b[2J: 10 of 40 episodes, 25 %, about 30 s left"
    assert lines[-1] == "a[b]\\x1b[2J: 40 of 40 episodes, 100 %"


def test_what_is_done_soon_or_of_unknown_size_says_little() -> None:
    now_s = 0.0
    console = Console(file=io.StringIO(), width=80)
    assert isinstance(console.file, io.StringIO)
    with Progressing("soon", total=3, clock=lambda: now_s, console=console) as progress:
        progress.update(3)
    assert console.file.getvalue() == ""
    with Progressing("reading", clock=lambda: now_s, console=console) as progress:
        now_s = 11.0
        progress.advance(1234)
    assert console.file.getvalue() == "reading: 1,234\n"


def test_a_terminal_shows_a_bar_that_goes_away(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    assert isinstance(console.file, io.StringIO)
    with Progressing("copying demo", total=4, unit="episodes", console=console) as progress:
        progress.update(2, what="comparing demo")
        progress._bar.refresh()  # pyright: ignore[reportPrivateUsage]
    text = console.file.getvalue()
    assert "comparing demo" in text
    assert "50%" in text
    assert capsys.readouterr().out == ""
