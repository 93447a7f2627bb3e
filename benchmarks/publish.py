"""From a publication to the first step that is played with it, in a real run: `python -m
benchmarks.publish`.

Starts `gato start debug` with two workers and long training, and watches its files. When a version
is published is when the weights store's copy names it; when an assignment with it began is when its
report reached the journal, less how long it took. The report waits for the supervisor to collect
it, up to 0.1 s, so the delays are upper bounds, but for the first step itself (milliseconds). A
worker plays an assignment to its end with the version that it began with, so the delay is that of
the shortest assignments under way. Results: docs/results/publish.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learner_page import write_tables
from benchmarks.machine import ROOT, about
from cluster.journal.journal_file import JournalFile
from cluster.supervision.weights_store import copied_version
from gato.metrics import WorkerReport
from gato.version import Version

RESULT = ROOT / "docs" / "results" / "publish.json"
WORKERS = 2
UPDATES = 2000
PUBLISH_EVERY = 50
SETTINGS = (
    f"learner.num_updates={UPDATES}",
    f"learner.publish_every={PUBLISH_EVERY}",
    "learner.checkpoint_every=1000",
    "learner.num_threads=1",
    "actors.generate_share=0.5",
    "actors.evaluate_share=0.5",
    "actors.evaluate_every_s=0.1",
)


def publications(run: Path, process: subprocess.Popen[bytes]) -> dict[Version, float]:
    """When each version was there, until the run ends. Wall-clock time."""
    seen: dict[Version, float] = {}
    file = run / "weights" / "latest.safetensors"
    while process.poll() is None:
        time.sleep(0.01)
        try:
            version, _ = copied_version(file)
            seen.setdefault(version, file.stat().st_mtime)
        except FileNotFoundError:
            continue  # before the first
    return seen


def first_plays(run: Path) -> dict[Version, float]:
    """When the first assignment with each version began. Wall-clock time."""
    journal, after, began = JournalFile(run / "journal"), "0-0", dict[Version, float]()
    while entries := journal.read(after):
        after = entries[-1].id
        for entry in entries:
            report = entry.record
            if isinstance(report, WorkerReport) and report.version is not None:
                version, begun_s = Version(*report.version), entry.time_s - report.wall_s
                began[version] = min(begun_s, began.get(version, begun_s))
    return began


def measure(folder: Path) -> dict[str, Any]:
    """Run, and the delays of the versions that were played."""
    words = [sys.executable, "-P", "-m", "cluster.cli.main", "start", "debug"]
    words += ["--name", "publish", "--workers", str(WORKERS)]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    environment = {**os.environ, "GATO_RUNS": str(folder), "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, cwd=folder)
        seen = publications(folder / "publish", process)
    assert process.returncode == 0, (folder / "log").read_text()[-2000:]
    began = first_plays(folder / "publish")
    delays = [began[version] - at for version, at in sorted(seen.items()) if version in began]
    between = np.diff(sorted(seen.values()))
    return {
        "workers": WORKERS,
        "publications": len(seen),
        "played": len(delays),
        "between_median_s": round(float(np.median(between)), 2),
        **{f"delay_p{p}_s": round(float(np.percentile(delays, p)), 2) for p in (50, 95, 100)},
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    print(json.dumps(found), flush=True)
    measured = about()
    RESULT.write_text(json.dumps(measured | found, indent=1) + "\n")
    write_tables({"publish": [found]}, measured)


if __name__ == "__main__":
    main()
