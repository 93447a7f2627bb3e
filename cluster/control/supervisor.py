"""The supervisor: runs learner, replay and worker pool to the end of a run, obeys control words,
and journals what happens."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import Literal

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from actors.config import PLAYING
from actors.remote import end_inference
from cluster.control.launch import Parts
from cluster.control.scheduler import Scheduler
from cluster.control.worker_pool import WorkerPool, first_line
from cluster.journal.records import Event
from cluster.journal.writer import JournalWriter
from cluster.runs.config import RunConfig
from gato.metrics import ReplayStats
from replay.shards import merged

TICK_S = 0.1
STATS_EVERY_S = 2.0
STOP_PATIENCE_S = 60.0
"""How long the learner may take to end its update, publish and save before the run ends without
it."""
NO_PROGRESS_S = 30.0
"""After this long without a sign of life a part is named in the journal."""

Ended = Literal["finished", "stopped", "failed"]


class Supervisor:
    """Runs a launched run to its end.

    supervisor = Supervisor(config, parts, journal, scheduler)
    ended, reason = supervisor.run()          # another thread, or another process by the journal,
    may ask it to stop
    """

    def __init__(
        self, config: RunConfig, parts: Parts, journal: JournalWriter, scheduler: Scheduler
    ) -> None:
        self._config = config
        self._parts = parts
        self._replay_config = config.replay
        self._journal = journal
        self._scheduler = scheduler
        self._crew = WorkerPool(
            parts.new_worker,
            scheduler,
            journal,
            hung_after_s=config.actors.hung_after_s,
            clips=parts.clips,
        )
        self._actors = config.actors
        self._asked_to_stop = threading.Event()
        self._stats_read: list[ray.ObjectRef[ReplayStats]] = []
        self._stats_due_s = 0.0
        self._learner_heard_s = time.monotonic()
        self._learner_named = False
        self._stats: ReplayStats | None = None

    def stop(self) -> None:
        """End the run: the learner saves and publishes, the workers end what they do."""
        self._asked_to_stop.set()

    def _say(self, kind: str, text: str) -> None:
        self._journal.append(Event(kind=kind, text=text))

    def run(self) -> tuple[Ended, str]:
        """How the run ended, and why where it failed."""
        self._crew.scale(self._config.actors.num_workers)
        ended = self._train()
        if ended[0] == "finished":
            self._finish_evaluations()
        self._crew.end()
        end_inference()
        self._read_stats(at_once=True)
        return ended

    def _train(self) -> tuple[Ended, str]:
        epoch = self._journal.next_epoch()
        training = self._parts.learner.train.remote(epoch)
        stop_by_s: float | None = None
        failures = 0
        while True:
            self._tick(hand_out=stop_by_s is None)
            if stop_by_s is None and self._asked_to_stop.is_set():
                self._say("stopping", "the learner saves and publishes")
                self._parts.learner.stop.remote()
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
            done, _ = ray.wait([training], timeout=TICK_S)
            if not done:
                continue
            try:
                outcome = ray.get(training)
            except (
                RayTaskError
            ) as failure:  # an exception in the learner's code: again would be the same
                return "failed", f"the learner failed: {failure.cause!r}"
            except (
                RayError
            ) as failure:  # its process died: Ray starts it again, from its checkpoint
                failures += 1
                if failures > 20 or stop_by_s is not None:
                    return (
                        "failed",
                        f"the learner died {failures} times, last: {first_line(failure)}",
                    )
                epoch = self._journal.next_epoch()
                self._say(
                    "learner died", f"started again from its last checkpoint, as epoch {epoch}"
                )
                training = self._parts.learner.train.remote(epoch)
                continue
            self._take_reports()
            if outcome == "finished" or outcome == "stopped":
                return outcome, ""
            return "failed", outcome

    def _finish_evaluations(self) -> None:
        """Play the last version on every task. Workers end what they do first."""
        deadline_s = time.monotonic() + 300.0
        while time.monotonic() < deadline_s and not self._asked_to_stop.is_set():
            self._tick(hand_out=True, last=True)
            if self._scheduler.everything_evaluated() or not len(self._crew):
                return
            time.sleep(TICK_S)

    def _tick(self, *, hand_out: bool, last: bool = False) -> None:
        self._obey()
        self._take_reports()
        self._read_stats()
        self._crew.collect()
        if hand_out:
            self._crew.hand_out(last=last)

    def _obey(self) -> None:
        for control in self._journal.take_control():
            if control.word == "stop":
                self.stop()
            elif control.word == "scale":
                self._crew.scale(int(control.value))
            elif control.word == "roles":
                self._share(control.value)
            elif control.word.startswith("replay-"):
                self._pace(control.word, control.value)

    def _share(self, value: str) -> None:
        """Give the roles other shares of the workers' time."""
        try:
            self._actors = replace(self._actors, **json.loads(value))
        except (ValueError, TypeError) as problem:
            self._say("problem", f"the roles keep their shares: {first_line(problem)}")
            return
        self._scheduler.configure(self._actors)
        roles = ("evaluate", *PLAYING)
        self._say(
            "roles",
            ", ".join(f"{role} {self._actors.share(role):g}" for role in roles)
            + " of the workers' time",
        )

    def _pace(self, word: str, value: str) -> None:
        """Hold replay's readers and writers back by other settings, or for a while not at all."""
        try:
            if word == "replay-pause":
                self._parts.replay.pause()
                self._say("replay paused", "the rate limiter is off until gato replay resume")
            elif word == "replay-resume":
                self._parts.replay.resume()
                self._say("replay resumed", "its limiter holds back again")
            elif word == "replay-limit":
                limiter = replace(self._replay_config.limiter, **json.loads(value))
                self._replay_config = replace(self._replay_config, limiter=limiter)
                self._parts.replay.reconfigure(self._replay_config)
                self._say(
                    "replay limited", ", ".join(f"{k} {v}" for k, v in json.loads(value).items())
                )
        except (RayError, GetTimeoutError, ValueError, TypeError) as problem:
            self._say("problem", f"{word} was not obeyed: {first_line(problem)}; try it again")

    def _pace_again(self) -> None:
        """A part of replay that was started again has the settings that the run began with."""
        try:
            if self._replay_config != self._config.replay:
                self._parts.replay.reconfigure(self._replay_config)
        except (RayError, GetTimeoutError) as problem:
            self._say(
                "problem",
                f"replay has its first limiter again: {first_line(problem)}; gato replay limit"
                " sets it again",
            )

    def _take_reports(self) -> None:
        try:
            reports, problems = ray.get(self._parts.learner.take_reports.remote(), timeout=5.0)
        except (RayActorError, GetTimeoutError):
            reports, problems = [], []
        now_s = time.monotonic()
        for report in reports:
            self._journal.append(report)
            if report.version != self._scheduler.newest:
                self._scheduler.published(report.version)
                self._parts.replay.published(report.version)
            self._crew.learned(report.step)
            self._scheduler.learned(report.step)
            self._learner_heard_s, self._learner_named = now_s, False
        for problem in problems:
            self._say("problem", problem)
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
            self._pace_again()
            self._say(
                "replay restarted",
                f"it holds {sum(stats.episodes.values())} episodes, all that were acknowledged",
            )
        self._scheduler.replay_takes(stats.may_insert)
        if stats != self._stats:
            self._journal.append(stats)
        self._stats = stats
