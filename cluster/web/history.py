"""Everything that a run's page draws over time, from its journal: bounded, and the same whether it
was followed live or read again."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, final

from cluster.journal.journal import START, Entry
from cluster.journal.records import Event
from cluster.monitor.iqm import interquartile_mean_of
from cluster.monitor.summary import Summary
from cluster.web.curve import Curve, load_curves
from cluster.web.line import At, Line
from cluster.web.measures import finite_only, learner_values, player_values, replay_values
from gato.metrics import AssignmentProgress, Evaluation, LearnerReport, ReplayStats, WorkerReport

FORMAT = 1
MAX_EVENTS = 300
MAX_STEPS = 4096
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
        self._learned: deque[tuple[int, float]] = deque(maxlen=MAX_STEPS)
        """Updates of the learner, and the tokens that it had trained on by then."""
        self._replay: tuple[float, ReplayStats] | None = None
        self._players_s = 0.0
        self._iqm_s = self._interval_s = 0.0

    def add(self, entry: Entry, summary: Summary) -> Change | None:
        """Take one more entry, which `summary` has been folded over. What it changed, or None if
        it was taken before or changes nothing."""
        if _number(entry.id) <= _number(self.last_id):
            return None
        self.last_id = entry.id
        time_s, record = entry.time_s, entry.record
        self.first_s = time_s if self.first_s is None else min(self.first_s, time_s)
        self._at = self._at._replace(time_s=time_s)
        match record:
            case Evaluation():
                return self._evaluated(record, summary)
            case LearnerReport():
                self._learn(record)
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

    def _learn(self, report: LearnerReport) -> None:
        tokens = self._at.tokens + report.tokens
        if self._learned and report.step < self._learned[-1][0]:
            # It went back to a checkpoint: places after that step are of weights that were lost.
            kept = [learned for learned in self._learned if learned[0] < report.step]
            self._learned = deque(kept, maxlen=MAX_STEPS)
        self._learned.append((report.step, tokens))
        self._at = self._at._replace(step=float(report.step), tokens=tokens)

    def _evaluated(self, record: Evaluation, summary: Summary) -> Change | None:
        at = self._at._replace(
            step=float(record.learner_step), tokens=self._tokens_at(record.learner_step)
        )
        point = self.curves.setdefault(record.task, Curve()).add(record, at)
        if point is None:
            return None
        change: Change = {"task": record.task, "point": point.row(self.first_s or 0.0)}
        values = {
            f"records/{record.task}/{name}": mean.value for name, mean in record.measures.items()
        }
        if not 0 <= self._at.time_s - self._iqm_s < IQM_EVERY_S:
            values |= self._over_tasks(summary)
        return change | (self._append(values, at) or {})

    def _over_tasks(self, summary: Summary) -> dict[str, float]:
        """The interquartile mean over tasks and, now and then, its interval."""
        self._iqm_s = time_s = self._at.time_s
        value = interquartile_mean_of(summary.newest_scores("teacher"))
        if value is None:
            return {}
        every_s = max(IQM_EVERY_S, INTERVAL_EVERY * (time_s - (self.first_s or time_s)))
        over = None if 0 <= time_s - self._interval_s < every_s else summary.aggregate("teacher")
        if over is None:
            return {"tasks/iqm": value}
        self._interval_s = time_s
        return {"tasks/iqm": value, "tasks/iqm/low": over.low, "tasks/iqm/high": over.high}

    def _tokens_at(self, step: int) -> float:
        """Tokens that the learner had trained on at an update that it made lately."""
        place = bisect_right(self._learned, step, key=lambda learned: learned[0])
        return self._learned[place - 1][1] if place else (0.0 if step == 0 else self._at.tokens)

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
            "learned": [list(learned) for learned in self._learned],
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
        history._learned.extend((int(step), float(tokens)) for step, tokens in state["learned"])
        if not all(map(math.isfinite, history._at)):
            raise ValueError("places that are not finite")
        return history


def to_json_text(value: object) -> str:
    """Compact JSON; a number that is not finite is a mistake of ours."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _number(entry_id: str) -> tuple[int, int]:
    number, _, part = entry_id.partition("-")
    return int(number), int(part or 0)
