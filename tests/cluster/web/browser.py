"""A headless Chromium for tests of the page, where this machine has one."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or sync_playwright is None,
    reason=(
        "no chromium (apt-get install chromium)" if CHROMIUM is None
        else "no playwright (pip install playwright; it needs no download of browsers)"
    ),
)  # fmt: skip


@contextmanager
def browser() -> Generator[Any]:
    """A browser; `new_context()` has tabs of its own that share locks and channels."""
    assert sync_playwright is not None
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()


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
