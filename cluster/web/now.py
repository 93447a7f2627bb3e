"""How a run stands now, as its page is told every second."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from cluster.monitor.format import natural
from cluster.monitor.summary import Summary
from cluster.monitor.waits import waits_text
from cluster.monitor.watch import ENDED
from cluster.runs.folder import RunFolder
from cluster.web.measures import ages, finite_only
from gato.metrics import LearnerReport
from gato.serialization import to_plain

MAX_WORKERS = 200
ACTIVE = ("starting", "running", "stopping")


def now_of(summary: Summary, folder: RunFolder, problem: str, is_dead: bool) -> dict[str, Any]:
    """The summary without its histories, with what else the page shows."""
    state = "dead" if is_dead and summary.state in ACTIVE else summary.state
    now_s = summary.last_s if state in (*ENDED, "dead") else max(time.time(), summary.last_s)
    plain = summary.to_json(now_s, histories=False)
    workers = sorted(plain["workers"], key=lambda worker: natural(worker["id"]))
    return plain | {
        "state": state,
        "problem": problem,
        "time_s": now_s,
        "waits": waits_text(summary, now_s),
        "weights_age": ages(summary, now_s),
        "num_workers": len(workers),
        "num_gone": len(summary.workers) - len(workers),
        "workers": workers[:MAX_WORKERS],
        "learner": plain["learner"] | (_learner(summary.learner) if summary.learner else {}),
        "clips": clips_of(folder.path / "clips"),
    }


def _learner(report: LearnerReport) -> dict[str, Any]:
    """What the summary leaves out of the newest report."""
    wall_s = sum(report.seconds.values())
    return {
        "accuracy_by_task": finite_only({n: m.value for n, m in report.accuracy_by_task.items()}),
        "norm_by_part": finite_only(report.norm_by_part),
        "seconds": finite_only(report.seconds),
        "seconds_in_all": wall_s,
        "mfu": report.mfu,
        "memory_bytes": report.memory_bytes,
    }


def clips_of(folder: Path) -> dict[str, dict[str, Any]]:
    """What the newest clip of each task shows, by task; `mark` differs from clip to clip."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.rglob("*.json")):
        try:
            mark = file.stat().st_mtime_ns
        except OSError:
            continue
        facts = _facts(file, mark)
        if (
            facts is not None
            and file.relative_to(folder).with_suffix("").as_posix() == facts["task"]
        ):
            found[facts["task"]] = {**facts, "mark": str(mark)}
    return found


@lru_cache(maxsize=512)
def _facts(file: Path, mark: int) -> dict[str, Any] | None:
    """What a clip's file of facts says; None if it cannot be read."""
    try:
        facts: Any = json.loads(file.read_text())
        return to_plain(
            {name: facts[name] for name in ("task", "file", "version", "learner_step", "return")}
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
