"""A headless Chromium: for measurements, pictures and tests of the page."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def lacking() -> str:
    """What this machine lacks for it, and how to get it; empty if nothing."""
    if not any(map(shutil.which, NAMES)):
        return "no Chromium here: apt-get install chromium"
    if find_spec("playwright") is None:
        return "no Playwright here: pip install playwright (it needs no download of browsers)"
    return ""


@contextmanager
def chromium() -> Generator[Any]:
    """Playwright's browser; the tabs of one `new_context()` share locks and channels.

    Raises:
        ValueError: This machine lacks something.
    """
    if problem := lacking():
        raise ValueError(problem)
    path = next(filter(None, map(shutil.which, NAMES)))
    with import_module("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
