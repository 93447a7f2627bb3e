"""The page of a run in figures: `python -m benchmarks.page`. Results: docs/results/page.json.

From a record's append to the journal to the pixels of its point in a headless Chromium; how long 60
tasks of 10,000 evaluations take to read from the journal, to read from the kept history, and to
draw; the memory of the server and of a tab that is fed for ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from benchmarks.chromium import chromium
from benchmarks.machine import ROOT, about
from benchmarks.tables import table
from benchmarks.written_runs import BEGIN_S, append, evaluation, learner_report, make_run
from cluster.runs.folder import RunFolder

RESULT = ROOT / "docs" / "results" / "page.json"
PAGE = ROOT / "docs" / "watching.md"
BEGIN, END = "<!-- figures -->", "<!-- figures: end -->"
HOPPER = "mujoco/hopper"
POINTS = f"Number(document.querySelector('[data-task=\"{HOPPER}\"] .chart')?.dataset.points)"
DRAWN = "() => document.querySelectorAll('.tile canvas').length >= 61"
FEED_S = 600.0
RECORDS_PER_S = 10


@contextmanager
def server(folder: RunFolder) -> Generator[tuple[str, int]]:
    """Address and process of the page's server, as a run starts it."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cluster.web.serve", str(folder.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.stdin.close()
        process.wait()


def seconds_to_read(url: str, run: str) -> float:
    """How long until the server has read the whole journal."""
    begun_s = time.monotonic()
    while True:
        with urlopen(f"{url}/api/runs/{run}?points=2", timeout=600) as answer:
            if json.loads(answer.read())["now"]["problem"] == "":
                return time.monotonic() - begun_s
        time.sleep(2.0)


def memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def heap_mb(tab: Any) -> float:
    """Of the tab's scripts, after their garbage was collected."""
    tools = tab.context.new_cdp_session(tab)
    tools.send("HeapProfiler.collectGarbage")
    tools.send("Performance.enable")
    found = {one["name"]: one["value"] for one in tools.send("Performance.getMetrics")["metrics"]}
    return found["JSHeapUsedSize"] / 2**20


def write_to_pixel(browser: Any, root: Path, records: int = 50) -> dict[str, float]:
    """From before the append to the frame after the one that drew the point."""
    folder = make_run(root, "live", tasks=(HOPPER,), reports=30, ends=False)
    waited_s: list[float] = []
    with server(folder) as (url, _):
        tab = browser.new_context(bypass_csp=True).new_page()
        tab.goto(url)
        tab.wait_for_function(f"() => {POINTS} >= 30")
        for number in range(31, 31 + records):
            begun_s = time.monotonic()
            record = evaluation(HOPPER, number, 500.0, np.random.default_rng(number))
            append(folder, [(BEGIN_S + 2.0 * number, record)])
            tab.wait_for_function(f"() => {POINTS} >= {number}", polling="raf")
            waited_s.append(time.monotonic() - begun_s)
    p50, p95 = np.quantile(waited_s, [0.5, 0.95])
    return {"write_to_pixel_p50_s": round(p50, 3), "write_to_pixel_p95_s": round(p95, 3)}


def week(browser: Any, root: Path, evaluations: int = 10_000) -> dict[str, float]:
    """Sixty tasks; a journal keeps the newest 500,000 records."""
    tasks = [f"suite/task-{number:02d}" for number in range(60)]
    folder = make_run(root, "week", tasks=tasks, reports=1, ends=False)
    rng = np.random.default_rng(0)
    means = 3000 * (1 - np.exp(-3 * np.arange(evaluations + 1) / evaluations))
    append(
        folder,
        (
            (BEGIN_S + 60.0 * number, evaluation(task, number, float(means[number]), rng))
            for number in range(1, evaluations + 1)
            for task in tasks
        ),
    )
    found: dict[str, float] = {"evaluations_of_a_task": evaluations}
    with server(folder) as (url, pid):
        found["read_journal_s"] = round(seconds_to_read(url, "week"), 1)
        found["server_mb"] = round(memory_mb(pid))
        drawn_ms: list[float] = []
        for _ in range(5):
            tab = browser.new_context(
                bypass_csp=True, viewport={"width": 1600, "height": 6000}
            ).new_page()
            tab.goto(url)
            tab.wait_for_function(DRAWN, polling="raf")
            drawn_ms.append(tab.evaluate("() => performance.now()"))
            tab.context.close()
        found["draw_60_tasks_s"] = round(float(np.median(drawn_ms)) / 1000, 2)
    with server(folder) as (url, _):
        begun_s = time.monotonic()
        curves: dict[str, Any] = {}
        while len(curves) < 60:
            with urlopen(f"{url}/api/runs/week", timeout=600) as answer:
                curves = json.loads(answer.read())["curves"]
        found["read_kept_s"] = round(time.monotonic() - begun_s, 1)
    return found


def fed(browser: Any, root: Path, feed_s: float) -> dict[str, float]:
    """Memory of tab and server at the beginning and at the end of a long feed."""
    tasks = [f"suite/task-{number}" for number in range(8)]
    folder = make_run(root, "fed", tasks=tasks, reports=1500, ends=False)
    rng = np.random.default_rng(0)
    with server(folder) as (url, pid):
        tab = browser.new_context(
            bypass_csp=True, viewport={"width": 1400, "height": 3000}
        ).new_page()
        tab.goto(url)
        tab.wait_for_selector(".tile canvas")
        seconds_to_read(url, "fed")
        seen: list[tuple[float, float]] = []
        begun_s, number, reports = time.monotonic(), 1501, 0
        while time.monotonic() - begun_s < feed_s:
            if len(seen) <= (time.monotonic() - begun_s) / (feed_s / 10):
                seen.append((heap_mb(tab), memory_mb(pid)))
            for _ in range(RECORDS_PER_S // 2):
                task = tasks[number % len(tasks)]
                now_s = BEGIN_S + 2.0 * number
                append(folder, [(now_s, evaluation(task, number, 900.0, rng))])
                number += 1
            append(folder, [(BEGIN_S + 2.0 * number, learner_report(tasks, number, 10**6, rng))])
            reports += 1
            tab.wait_for_timeout(500)
        seen.append((heap_mb(tab), memory_mb(pid)))
    return {
        "fed_s": feed_s, "fed_records": number - 1501 + reports,
        "tab_heap_mb_begin": round(seen[1][0], 1), "tab_heap_mb_end": round(seen[-1][0], 1),
        "tab_heap_mb_most": round(max(heap for heap, _ in seen), 1),
        "fed_server_mb_begin": round(seen[1][1]), "fed_server_mb_end": round(seen[-1][1]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--feed-s", type=float, default=FEED_S)
    parser.add_argument("--evaluations", type=int, default=10_000, help="Of each of 60 tasks.")
    measures: dict[str, Any] = {"live": write_to_pixel, "week": week, "fed": fed}
    parser.add_argument("--only", choices=measures, help="Keep what the others have measured.")
    words = parser.parse_args()
    measures["week"] = partial(week, evaluations=words.evaluations)
    measures["fed"] = partial(fed, feed_s=words.feed_s)
    found: dict[str, Any] = json.loads(RESULT.read_text()) if words.only else dict(about())
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        for name, measure in measures.items():
            if words.only in (None, name):
                found |= {"of_" + name: about()["commit"], **measure(browser, Path(folder))}
                RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(RESULT.read_text())
    write_figures(found)


def write_figures(found: dict[str, Any]) -> None:
    """The table of the page that says what was measured, between its marks."""
    text = {name: f"{value:g}" for name, value in found.items() if isinstance(value, int | float)}
    tab = [text[f"tab_heap_mb_{when}"] for when in ("begin", "end", "most")]
    fed_for = f"fed {found['fed_records']:,} records in {text['fed_s']} s"
    week_of = f"60 tasks of {found['evaluations_of_a_task']:,} evaluations"
    seconds = {
        "a record's append to its pixels, median": "write_to_pixel_p50_s",
        "the same, 95th percentile of 50": "write_to_pixel_p95_s",
        f"{week_of} drawn, from the request on": "draw_60_tasks_s",
        "their journal read from its beginning": "read_journal_s",
        "their curves from the kept history": "read_kept_s",
    }
    measured = {what: f"{text[name]} s" for what, name in seconds.items()} | {
        "memory of the server with them": f"{text['server_mb']} MB",
        f"memory of a tab's scripts, {fed_for}": f"{tab[0]} MB, at the end {tab[1]}, at most"
        f" {tab[2]}",
        "memory of its server": f"{text['fed_server_mb_begin']} MB, at the end"
        f" {text['fed_server_mb_end']}",
    }
    rows = [{"what": what, "measured": said} for what, said in measured.items()]
    commits = {str(found.get(f"of_{name}", found["commit"])) for name in ("live", "week", "fed")}
    on = f"On {found['cpu']}, {found['date']}, commit {', '.join(sorted(commits))}."
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n\n{on}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
