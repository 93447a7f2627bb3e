"""Runs that differ in their seeds alone, averaged for the page as `gato compare` averages them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import final

from cluster.monitor.compare import ComparedRun, Group, compare
from cluster.monitor.curves import Axis
from cluster.web.follower import Follower
from cluster.web.history import to_json_text
from gato.serialization import to_plain

AXES: dict[str, Axis] = {
    "step": "updates",
    "time": "hours",
    "tokens": "tokens",
    "env": "env_steps",
}
"""The axes of `gato compare` by the page's names for them."""
MOST_POINTS = 60
MAX_RUNS = 8
MAX_KEPT = 8


@final
class Seeds:
    """Averages over seeds, computed once for what the runs have.

    seeds = Seeds()
    text = seeds.averages([follower, other], "step")
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[object, ...], str] = {}

    def averages(self, followers: Sequence[Follower], axis: str) -> str:
        """The groups of runs of equal settings as JSON, with a band for each task; "" is all tasks
        together. Values are normalised where a task has a scale; hours come as seconds.

        Raises:
            ValueError: There is no such axis.
        """
        if axis not in AXES:
            raise ValueError(f"x={axis[:20]!r} is none of {', '.join(AXES)}")
        # Scales may come after records: raw returns are not kept as normalised ones.
        key = (
            axis,
            *((one.folder.name, one.last, *one.summary.scales.items()) for one in followers),
        )
        with self._lock:  # others who want the same wait for it
            if key not in self._kept:
                runs = [
                    ComparedRun(
                        curves=one.curves(MOST_POINTS), settings=to_plain(one.folder.config())
                    )
                    for one in followers
                ]
                groups = compare(runs, axis=AXES[axis], most_points=MOST_POINTS)
                while len(self._kept) >= MAX_KEPT:
                    del self._kept[next(iter(self._kept))]
                self._kept[key] = to_json_text({"groups": [_plain(each, axis) for each in groups]})
            return self._kept[key]


def run_names(text: str) -> list[str]:
    """Names of runs, separated by commas, each once. Raises ValueError if there are none or too
    many."""
    names = list(dict.fromkeys(name for name in text.split(",") if name))
    if not 1 <= len(names) <= MAX_RUNS:
        raise ValueError(f"runs={text[:40]!r} is no list of at most {MAX_RUNS} runs")
    return names


def _plain(group: Group, axis: str) -> dict[str, object]:
    unit = 3600.0 if axis == "time" else 1.0
    return {
        "label": group.label,
        "runs": [run.name for run in group.runs],
        "settings": dict(group.settings),
        "bands": {
            task: {
                "x": [x * unit for x in band.xs],
                "y": list(band.values),
                "low": list(band.lows),
                "high": list(band.highs),
                "seeds": band.num_seeds,
                "tasks": band.num_tasks,
            }
            for task, band in group.bands.items()
        },
    }
