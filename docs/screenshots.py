"""The pictures of the page in these documents, from runs on this machine:

python -m docs.screenshots demo slow fast # writes docs/pictures/page-*.png
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.chromium import chromium
from cluster.runs.folder import RunFolder, find_run
from cluster.web.serve import serve

PICTURES = Path(__file__).parent / "pictures"
WIDE, PHONE = (1400, 1000), (390, 844)
READ_MS = 2000
"""Longer than the page takes to draw."""


@contextmanager
def page_of(folder: RunFolder) -> Generator[str]:
    """The address of a run's page."""
    stop, ready, urls = threading.Event(), threading.Event(), list[str]()

    def tell(url: str) -> None:
        urls.append(url)
        ready.set()

    thread = threading.Thread(
        target=serve, args=(folder,), kwargs={"port": 0, "when_ready": tell, "stop": stop}
    )
    thread.start()
    try:
        ready.wait()
        yield urls[0]
    finally:
        stop.set()
        thread.join()


def take(browser: Any, url: str, name: str, size: tuple[int, int], scheme: str) -> None:
    """One picture of what a screen of this size shows."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        device_scale_factor=2 if size == PHONE else 1,
    )
    tab = context.new_page()
    tab.goto(url)
    tab.wait_for_selector(".chart canvas")
    tab.wait_for_timeout(READ_MS)
    file = PICTURES / f"page-{name}.png"
    tab.screenshot(path=str(file))
    context.close()
    print(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="Its page is shown.")
    parser.add_argument("compared", nargs="+", help="These are laid over each other.")
    words = parser.parse_args()
    with page_of(find_run(words.run)) as url, chromium() as browser:
        one, both = f"{url}/?runs={words.run}", f"{url}/?runs={','.join(words.compared)}"
        take(browser, one, "light", WIDE, "light")
        take(browser, one, "dark", WIDE, "dark")
        take(browser, f"{one}&view=metrics&s=0.8", "metrics", WIDE, "light")
        take(browser, f"{both}&y=norm&x=time", "compare", WIDE, "light")
        take(browser, one, "phone", PHONE, "light")


if __name__ == "__main__":
    main()
