"""Tabs of a headless Chromium for tests of the page, where this machine has one."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.chromium import lacking

needs_browser = pytest.mark.skipif(bool(lacking()), reason=lacking() or "all is there")


def open_page(context: Any, url: str, problems: list[str]) -> Any:
    """A tab at `url`; errors of its scripts, and what its policy blocked, go to `problems`."""
    tab = context.new_page()
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on(
        "console",
        lambda said: (
            problems.append(said.text)
            if said.type == "error" and "Failed to load resource" not in said.text
            else None
        ),
    )
    tab.goto(url)
    return tab


def is_drawn(tab: Any, task: str) -> Any:
    """Waits until the tile of a task shows its curve."""
    return tab.wait_for_selector(f'.tile[data-task="{task}"] canvas', timeout=20_000)
