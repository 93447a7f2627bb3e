"""Everything that a run's page draws over time, from its journal: bounded, and the same whether it
was followed live or read again."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, final

from cluster.journal.journal import START, Entry
from cluster.journal.records import Event, Record
from cluster.monitor.epochs import Epochs
from cluster.monitor.iqm import interquartile_mean_of
from cluster.monitor.summary import Summary
from cluster.web.curve import Curve, load_curves
from cluster.web.line import At, Line
from cluster.web.measures import finite_only, learner_values, player_values, replay_values
from cluster.web.places import Places
from gato.metrics import AssignmentProgress, Evaluation, LearnerReport, ReplayStats, WorkerReport

FORMAT = 2
MAX_EVENTS = 300
PLAYERS_EVERY_S = 5.0
IQM_EVERY_S = 1.0
INTERVAL_EVERY = 1 / 30
"""An interval takes a thousand times as long as its mean, so it comes at times that grow with the
run's age, by this part."""
Change = dict[str, Any]
"""What one entry changed, as the page is told."""


@final
class History:
    """Curves of tasks, lines of everything else, and events.

    history = History()
    for entry in journal.read():
        summary = fold(summary, *entry)
        change = history.add(entry, summary)
    """

    def __init__(self) -> None:
        self.last_id = START
        self.first_s: float | None = None
        self.curves: dict[str, Curve] = {}
        self.lines: dict[str, Line] = {}
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._at = At(0.0, 0.0, 0.0, 0.0)
        self._places, self._epochs = Places(), Epochs()
        self.num_cuts = 0
        """How often points were removed because a resume lost their weights. Open pages then
        reload all curves."""
        self._replay: tuple[float, ReplayStats] | None = None
        self._players_s = 0.0
        self._iqm_s = self._interval_s = 0.0
        self._iqm_waits = False
        """Whether an evaluation came too soon after another for a new mean over tasks."""

    def add(self, entry: Entry, summary: Summary) -> Change | None:
        """Take one more entry, which `summary` has been folded over. What it changed, or None if
        it was taken before or changes nothing."""
        if _number(entry.id) <= _number(self.last_id):
            return None
        self.last_id = entry.id
        time_s, record = entry.time_s, entry.record
        self.first_s = time_s if self.first_s is None else min(self.first_s, time_s)
        self._at = self._at._replace(time_s=time_s)
        if self._epochs.note(record):
            self.num_cuts += 1
            for curve in self.curves.values():
                curve.cut(self._epochs)
        change = self._changed(record, time_s, summary)
        is_due = isinstance(record, Event) or self._is_iqm_due
        if self._iqm_waits and is_due and not isinstance(record, Evaluation):
            more = self._append(self._over_tasks(summary)) or {"values": {}}
            values = (change or {}).get("values", {}) | more["values"]
            return (change or {}) | more | {"values": values}
        return change

    def _changed(self, record: Record, time_s: float, summary: Summary) -> Change | None:
        match record:
            case Evaluation():
                return self._evaluated(record, summary)
            case LearnerReport():
                step, tokens = float(record.step), self._at.tokens + record.tokens
                self._at = self._at._replace(step=step, tokens=tokens)
                self._places.note(self._at)
                return self._append(learner_values(record))
            case ReplayStats():
                values = replay_values(record, self._replay, time_s)
                self._replay = (time_s, record)
                return self._append(values)
            case WorkerReport() | AssignmentProgress():
                if isinstance(record, WorkerReport) and record.role != "evaluate":
                    self._at = self._at._replace(env_steps=self._at.env_steps + record.env_steps)
                if 0 <= time_s - self._players_s < PLAYERS_EVERY_S:
                    return None
                self._players_s = time_s
                return self._append(player_values(summary, time_s))
            case Event():
                self.events.append(record)
                return {"event": asdict(record)}

    def _evaluated(self, record: Evaluation, summary: Summary) -> Change | None:
        if self._epochs.has_lost(record.version, record.learner_step):
            return None
        begin = At(0.0, self.first_s or 0.0, 0.0, 0.0)
        made = self._places.at(record.learner_step, begin=begin, now=self._at)
        point = self.curves.setdefault(record.task, Curve()).add(record, made)
        if point is None:
            return None
        at = self._at._replace(step=made.step, tokens=made.tokens)
        change: Change = {"task": record.task, "point": point.row(self.first_s or 0.0)}
        values = {
            f"records/{record.task}/{name}": mean.value for name, mean in record.measures.items()
        }
        self._iqm_waits = not self._is_iqm_due
        if not self._iqm_waits:
            values |= self._over_tasks(summary)
        return change | (self._append(values, at) or {})

    def _over_tasks(self, summary: Summary) -> dict[str, float]:
        """The interquartile mean over tasks and, now and then, its interval."""
        self._iqm_s, self._iqm_waits = (time_s := self._at.time_s), False
        value = interquartile_mean_of(summary.newest_scores("teacher"))
        if value is None:
            return {}
        every_s = max(IQM_EVERY_S, INTERVAL_EVERY * (time_s - (self.first_s or time_s)))
        over = None if 0 <= time_s - self._interval_s < every_s else summary.aggregate("teacher")
        bounds = over.bounds if over is not None else None
        if bounds is None:
            return {"tasks/iqm": value}
        self._interval_s = time_s
        return {"tasks/iqm": value, "tasks/iqm/low": bounds[0], "tasks/iqm/high": bounds[1]}

    @property
    def _is_iqm_due(self) -> bool:
        return not 0 <= self._at.time_s - self._iqm_s < IQM_EVERY_S

    def _append(self, values: Mapping[str, float], at: At | None = None) -> Change | None:
        at = at or self._at
        kept = finite_only(values)
        for name, value in kept.items():
            line = self.lines.get(name)
            if line is None:
                line = self.lines[name] = Line()
            line.append(at, value)
        step, time_s, tokens, env_steps = at
        place = [step, round(time_s - (self.first_s or 0.0), 2), tokens, env_steps]
        return {"at": place, "values": kept} if kept else None

    def state(self) -> dict[str, Any]:
        """What `load` takes back, as JSON has it."""
        return {
            "format": FORMAT,
            "last_id": self.last_id,
            "first_s": self.first_s,
            "curves": {task: curve.state() for task, curve in self.curves.items()},
            "lines": {name: line.state() for name, line in self.lines.items()},
            "events": [asdict(event) for event in self.events],
            "at": list(self._at),
            "places": self._places.state(),
            "epochs": self._epochs.state(),
            "iqm_waits": self._iqm_waits,
        }

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> History:
        """A history from its `state`. Raises KeyError, TypeError or ValueError if it is none."""
        if state["format"] != FORMAT:
            raise ValueError(f"format {state['format']}, expected {FORMAT}")
        history = cls()
        _number(str(state["last_id"]))
        history.last_id = str(state["last_id"])
        history.first_s = None if state["first_s"] is None else float(state["first_s"])
        history.curves = load_curves(state["curves"])
        history.lines = {name: Line.load(line) for name, line in state["lines"].items()}
        history.events.extend(Event(**event) for event in state["events"])
        history._at = At(*map(float, state["at"]))
        history._places, history._epochs = Places(state["places"]), Epochs(state["epochs"])
        history._iqm_waits = bool(state["iqm_waits"])
        if not all(map(math.isfinite, history._at)):
            raise ValueError("places that are not finite")
        return history


def to_json_text(value: object) -> str:
    """Compact JSON; a number that is not finite is a mistake of ours."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _number(entry_id: str) -> tuple[int, int]:
    number, _, part = entry_id.partition("-")
    return int(number), int(part or 0)
