"""The pictures of the page in these documents, docs/pictures/page-*.png:

make pictures                              # trains what they show, 20 minutes, then takes them
python -m docs.screenshots demo slow fast  # of runs on this machine
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.chromium import chromium
from cluster.runs.folder import RunFolder, find_run, runs_root
from cluster.web.serve import serve

PICTURES = Path(__file__).parent / "pictures"
SHOWN = "demo"
COMPARED_TASKS = "mujoco/inverted-pendulum,mujoco/reacher,mujoco/hopper"
RATES, SEEDS, UPDATES = ("3e-4", "2e-3"), (0, 1), 400
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


def train(name: str, *words: str) -> str:
    """Train the demo with settings of its own, or to its end, unless that is done; its name."""
    gato = [sys.executable, "-P", "-m", "cluster.cli.main"]
    if not (runs_root() / name).is_dir():
        subprocess.run([*gato, "start", "demo", "--name", name, *words], check=True)
    elif find_run(name).info().state != "finished":
        subprocess.run([*gato, "resume", name], check=True)
    return name


def train_all() -> tuple[str, list[str]]:
    """The run that is shown, and those that are compared: two learning rates, two seeds each."""
    compared = [
        train(
            f"rate-{rate}-seed-{seed}", "--tasks", COMPARED_TASKS, "--updates", str(UPDATES),
            "--seed", str(seed), "--set", f"learner.max_rate={rate}",
        )
        for rate in RATES
        for seed in SEEDS
    ]  # fmt: skip
    return train(SHOWN), compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "runs", nargs="*",
        help="The first one's page is shown, the others are laid over each other; default: trained"
        " now.",
    )  # fmt: skip
    words = parser.parse_args()
    run, compared = (words.runs[0], words.runs[1:]) if words.runs else train_all()
    with page_of(find_run(run)) as url, chromium() as browser:
        one, both = f"{url}/?runs={run}", f"{url}/?runs={','.join(compared)}"
        take(browser, one, "light", WIDE, "light")
        take(browser, one, "dark", WIDE, "dark")
        take(browser, f"{one}&view=metrics&s=0.8", "metrics", WIDE, "light")
        take(browser, f"{both}&y=norm&g=1", "compare", WIDE, "light")
        take(browser, one, "phone", PHONE, "light")


if __name__ == "__main__":
    main()
