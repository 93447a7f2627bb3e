"""How a run stands now, as its page is told every second."""

from __future__ import annotations

import json
import math
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from cluster.monitor.alerts import standing_alerts
from cluster.monitor.format import natural
from cluster.monitor.summary import Summary
from cluster.monitor.terminal.waits import waits_text
from cluster.monitor.terminal.watch import ENDED
from cluster.runs.folder import RunFolder
from cluster.web.measures import ages, finite_only
from gato.serialization import to_plain

MAX_WORKERS = 200
ACTIVE = ("starting", "running", "stopping")
FAULTS = ("worker died", "worker failed", "no progress")
FAULT = re.compile(r"(?:worker )?(w\d+) (?:at|has) ")


def now_of(summary: Summary, folder: RunFolder, problem: str, is_dead: bool) -> dict[str, Any]:
    """The summary without its histories, with what else the page shows."""
    state = "dead" if is_dead and summary.state in ACTIVE else summary.state
    now_s = summary.last_s if state in (*ENDED, "dead") else max(time.time(), summary.last_s)
    plain = summary.to_json(now_s, histories=False)
    everyone = sorted(plain["workers"], key=lambda worker: natural(worker["id"]))
    workers, faults = everyone[:MAX_WORKERS], last_faults(summary)
    return plain | {
        "state": state,
        "problem": problem,
        "time_s": now_s,
        "waits": waits_text(summary, now_s),
        "alerts": [{"kind": a.kind, "text": a.text} for a in standing_alerts(summary, now_s)],
        "weights_age": ages(summary, now_s),
        "num_workers": len(everyone),
        "num_gone": len(summary.workers) - len(everyone),
        "workers": [
            worker
            | {
                "fault": faults.get(worker["id"], ""),
                # of reports that name it
                "node": to_plain(summary.workers[worker["id"]].latest).get("node", ""),
            }
            for worker in workers
        ],
        "learner": plain["learner"] | _learner(summary),
        "clips": clips_of(folder.path / "clips"),
    }


def last_faults(summary: Summary) -> dict[str, str]:
    """What went wrong last with each worker, by the run's events and its own report."""
    faults: dict[str, str] = {}
    for event in summary.events:
        named = FAULT.match(event.text)
        if event.kind in FAULTS and named is not None:
            faults[named[1]] = f"{event.kind}: {event.text.removeprefix(named[0]).strip()}"
    for name, worker in summary.workers.items():
        if worker.latest.failed:
            faults[name] = f"failed: {worker.latest.failed}"
    return faults


def _learner(summary: Summary) -> dict[str, Any]:
    """What the summary leaves out: of the newest report, and of those of the last minute what its
    time went into."""
    report, recent = summary.learner, [report for _, report in summary.learner_recent]
    if report is None:
        return {}
    seconds: dict[str, float] = {}
    for name, spent_s in (part for one in recent for part in one.seconds.items()):
        seconds[name] = seconds.get(name, 0.0) + spent_s
    wall_s = math.fsum(one.wall_s for one in recent)
    able = math.fsum(one.mfu * one.wall_s for one in recent)
    return {
        "accuracy_by_task": finite_only({n: m.value for n, m in report.accuracy_by_task.items()}),
        "norm_by_part": finite_only(report.norm_by_part),
        "seconds": finite_only(seconds),
        "mfu": able / wall_s if wall_s > 0 and math.isfinite(able) else None,
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
