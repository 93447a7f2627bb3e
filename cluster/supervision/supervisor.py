"""The supervisor: runs learner, replay and worker pool to the end of a run, obeys control words,
and journals what happens."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import ray
from ray.exceptions import RayError

from actors.config import PLAYING
from actors.remote import end_inference
from cluster.journal.records import Event
from cluster.journal.writer import JournalWriter
from cluster.runs.config import RunConfig
from cluster.supervision.best import BestCheckpoint
from cluster.supervision.head_watch import HeadWatch, own_node
from cluster.supervision.launch import Parts
from cluster.supervision.pace import Change, ReplayPace
from cluster.supervision.ray_errors import first_line, reason_of
from cluster.supervision.scheduler import Scheduler
from cluster.supervision.training import Ended, Training
from cluster.supervision.worker_pool import WorkerPool
from gato.metrics import ReplayStats
from replay.shards import merged

TICK_S = 0.1
STATS_EVERY_S = 2.0
MOVE_EVERY_S = 1.0
STOP_PATIENCE_S = 60.0
"""How long the learner may take to end its update, publish and save before the run ends without
it."""
NO_PROGRESS_S = 30.0
"""After this long without a sign of life a part is named in the journal."""
LAST_EPISODE_S = 75.0
"""How long evaluations after the training may take without one that ends, for each of its
episodes; at least 300 s."""
ROOM_KNOWN_S = 10.0
"""After this long a worker that has not started waits for a place, not for its own start."""


class Supervisor:
    """Runs a launched run to its end.

    supervisor = Supervisor(config, parts, journal, scheduler)
    ended, reason = supervisor.run()          # another thread, or another process by the journal,
    may ask it to stop
    """

    def __init__(
        self,
        config: RunConfig,
        parts: Parts,
        journal: JournalWriter,
        scheduler: Scheduler,
        *,
        keep: Callable[[Change], object] = lambda change: None,
        best: BestCheckpoint | None = None,
    ) -> None:
        """`keep`: changes the settings that the run is resumed with; `best`: sees evaluations."""
        self._config = config
        self._keep = keep
        self._journal = journal
        self._waiting: tuple[int, int] | None = None
        self._scaled_s = time.monotonic()
        self._parts = parts
        self._training = Training(parts.learner, journal.next_epoch, self._say)
        self._pace = ReplayPace(parts.replay, config.replay, self._say, keep)
        self._scheduler = scheduler
        self._crew = WorkerPool(
            parts.new_worker,
            scheduler,
            best or journal,
            hung_after_s=config.actors.hung_after_s,
            clips=parts.clips,
        )
        self._actors = config.actors
        self._asked_to_stop = threading.Event()
        self._why_stopped = ""
        self._head = HeadWatch() if parts.worker_cores else None
        self._home = own_node() if parts.worker_cores else ("", "")
        self._move_due_s = 0.0
        self._stats_read: list[ray.ObjectRef[ReplayStats]] = []
        self._stats_due_s = 0.0
        self._learner_heard_s = time.monotonic()
        self._learner_named = False
        self._stats: ReplayStats | None = None

    def stop(self, why: str = "") -> None:
        """End the run: the learner saves and publishes, the workers end what they do."""
        self._why_stopped = self._why_stopped or why
        self._asked_to_stop.set()

    def _say(self, kind: str, text: str) -> None:
        self._journal.append(Event(kind=kind, text=text))

    def run(self) -> tuple[Ended, str]:
        """How the run ended, and why where it failed."""
        try:
            self._crew.scale(self._config.actors.num_workers)
            ended = self._train()
            if ended[0] == "finished":
                self._finish_evaluations()
            self._crew.end()
            end_inference()
            self._read_stats(at_once=True)
        except RayError as failure:
            return "failed", f"Ray failed: {reason_of(failure)}"
        finally:
            if self._head is not None:
                self._head.close()
        return ("stopped", self._why_stopped) if ended[0] == "stopped" else ended

    def _train(self) -> tuple[Ended, str]:
        stop_by_s: float | None = None
        while True:
            self._tick(hand_out=stop_by_s is None)
            if stop_by_s is None and self._asked_to_stop.is_set():
                self._say("stopping", self._why_stopped or "the learner saves and publishes")
                self._training.stop()
                stop_by_s = time.monotonic() + STOP_PATIENCE_S
            if stop_by_s is None and self._scheduler.is_hopeless:
                tasks = ", ".join(dict.fromkeys(name for name, _ in self._scheduler.broken))
                return "failed", f"every task fails again and again ({tasks}); gato watch shows why"
            if stop_by_s is not None and time.monotonic() > stop_by_s:
                return (
                    "failed",
                    (
                        f"the learner did not stop within {STOP_PATIENCE_S:.0f} s; the last"
                        " checkpoint stands"
                    ),
                )
            ended = self._training.poll(TICK_S)
            if ended is not None:
                self._take_reports()
                return ended

    def _finish_evaluations(self) -> None:
        """Play the last version on every task. Workers end what they do first. A task that does not
        come to an end is given up."""
        self._learner_named = True  # it has ended: nobody waits to hear of it
        patience_s = max(900.0, LAST_EPISODE_S * self._config.actors.episodes(last=True))
        deadline_s, missing = time.monotonic() + patience_s, self._scheduler.num_unevaluated
        while time.monotonic() < deadline_s and not self._asked_to_stop.is_set():
            self._tick(hand_out=True, last=True)
            if not self._scheduler.num_unevaluated or not len(self._crew):
                return
            if self._scheduler.num_unevaluated != missing:
                missing, deadline_s = self._scheduler.num_unevaluated, time.monotonic() + patience_s
            time.sleep(TICK_S)

    def _tick(self, *, hand_out: bool, last: bool = False) -> None:
        self._obey()
        self._take_reports()
        self._read_stats()
        self._crew.collect()
        self._make_way()
        if hand_out:
            self._crew.hand_out(last=last)
        self._name_waiting()

    def _make_way(self) -> None:
        """Move the workers of nodes that are being drained; stop the run where its home is one."""
        if self._head is None or time.monotonic() < self._move_due_s:
            return
        self._move_due_s = time.monotonic() + MOVE_EVERY_S
        leaving, (home, name) = self._head.leaving(), self._home
        if home in leaving and not self._asked_to_stop.is_set():
            self.stop(f"its home {name} is being drained; gato resume when it is back")
        self._crew.move(leaving)

    def _name_waiting(self) -> None:
        """Say how many workers have no place, once it is known and whenever it changes."""
        waiting = (self._crew.num_waiting, len(self._crew))
        if self._head is not None:
            self._head.workers_wait = waiting[0] > 0
        if (
            self._head is None
            or time.monotonic() - self._scaled_s < ROOM_KNOWN_S
            or waiting == self._waiting
        ):
            return
        self._scaled_s = time.monotonic()
        if waiting[0] and self._head.free_cores >= self._parts.worker_cores:
            return  # there is room: they are being started
        before, self._waiting = self._waiting, waiting
        if waiting[0]:
            self._say("workers wait", self._room_text(*waiting, self._head.all_cores))
        elif before is not None and before[0]:
            self._say("workers play", f"all {waiting[1]}")

    def _obey(self) -> None:
        for control in self._journal.take_control():
            if control.word == "stop":
                self.stop(control.value)
            elif control.word == "scale" and control.value.isdecimal():
                self._scale(int(control.value))
            elif control.word == "roles":
                self._share(control.value)
            elif control.word.startswith("replay-"):
                self._pace.obey(control.word, control.value)

    def _scale(self, num_workers: int) -> None:
        self._keep(
            lambda config: replace(config, actors=replace(config.actors, num_workers=num_workers))
        )
        before = len(self._crew)
        # Others that have not answered yet are being started, and have their core.
        waiting = min(self._waiting[0], self._crew.num_waiting) if self._waiting else 0
        room = f"{num_workers} workers"
        if self._head is not None and num_workers > before:
            free = int(self._head.free_cores / self._parts.worker_cores)
            without = max(0, waiting + num_workers - before - free)
            cores = self._head.all_cores
            room = self._room_text(without, num_workers, cores) if without else room
        self._crew.scale(num_workers, room)
        self._scaled_s, self._waiting = time.monotonic(), None

    def _room_text(self, num_waiting: int, num_workers: int, cores: float) -> str:
        return room_text(num_waiting, num_workers, cores, self._config.learner.num_learners)

    def _share(self, value: str) -> None:
        """Give the roles other shares of the workers' time."""
        try:
            self._actors = replace(self._actors, **json.loads(value))
        except (ValueError, TypeError) as problem:
            self._say("problem", f"the roles keep their shares: {first_line(problem)}")
            return
        self._scheduler.configure(self._actors)
        shares = json.loads(value)
        self._keep(lambda config: replace(config, actors=replace(config.actors, **shares)))
        roles = ("evaluate", *PLAYING)
        self._say(
            "roles",
            ", ".join(f"{role} {self._actors.share(role):g}" for role in roles)
            + " of the workers' time",
        )

    def _take_reports(self) -> None:
        try:
            reports, events = ray.get(self._parts.learner.take_reports.remote(), timeout=5.0)
        except RayError:  # it is not there, or busy: `_train` sees what happened to it
            reports, events = [], []
        now_s = time.monotonic()
        for report in reports:
            self._journal.append(report)
            if report.version != self._scheduler.newest:
                self._scheduler.published(report.version)
                self._parts.replay.published(report.version)
            self._crew.learned(report.step)
            self._scheduler.learned(report.step)
            self._learner_heard_s, self._learner_named = now_s, False
            self._training.reported()
        for kind, text in events:
            self._say(kind, text)
        if now_s - self._learner_heard_s > NO_PROGRESS_S and not self._learner_named:
            self._learner_named = True
            self._say("no progress", f"nothing heard of the learner for {NO_PROGRESS_S:.0f} s")

    def _read_stats(self, *, at_once: bool = False) -> None:
        now_s = time.monotonic()
        if not self._stats_read and (now_s >= self._stats_due_s or at_once):
            self._stats_due_s = now_s + STATS_EVERY_S
            self._stats_read = self._parts.replay.ask_stats()
        if not self._stats_read:
            return
        _, missing = ray.wait(
            self._stats_read, num_returns=len(self._stats_read), timeout=5.0 if at_once else 0.0
        )
        if missing:
            return
        asked, self._stats_read = self._stats_read, []
        try:
            stats = merged(ray.get(asked))
        except RayError:
            return
        if self._stats is not None and stats.incarnation != self._stats.incarnation:
            self._pace.again()
            self._say(
                "replay restarted",
                f"it holds {sum(stats.episodes.values())} episodes, all that were acknowledged",
            )
        self._scheduler.replay_takes(stats.may_insert)
        if stats != self._stats:
            self._journal.append(stats)
        self._stats = stats


def room_text(num_waiting: int, num_workers: int, cores: float, num_learners: int = 1) -> str:
    """How many workers play, and what the others wait for."""
    wait = "wait" if num_waiting > 1 else "waits"
    taken = "one of them is" if num_learners == 1 else f"{num_learners} of them are"
    return (
        f"{num_workers - num_waiting} of {num_workers} play, {num_waiting} {wait}: the cluster has"
        f" {cores:g} cores, {taken} the learner's"
    )
