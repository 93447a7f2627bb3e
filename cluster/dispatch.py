"""Who does what next: demonstrations first, then evaluations of the newest version beside generation. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from actors.worker import Assignment
from cluster.config import ActorsConfig
from gato.metrics import WorkerReport
from gato.version import Version

EVALUATION_SEED = 10_000
"""Evaluations of every version and run play the seeds 10,000, 10,001, ..."""


FAILURE_PAUSE_S = 2.5
"""Pause after a first failure to teach or generate; it doubles up to 160 s."""


@dataclass(slots=True)
class _TaskState:
    demonstration_steps: int = 0
    wanted_steps: int = 0
    evaluated: Version | None = None
    evaluation_in_flight: bool = False
    evaluation_ended_s: float = float("-inf")
    filmed_s: float = float("-inf")
    teaching_in_flight: int = 0
    next_seed: int = 0
    generated: int = 0
    """Episodes asked for."""
    not_before_s: float = float("-inf")
    """Until then the task is neither taught nor generated, because it failed."""
    failures: int = 0


class Dispatcher:
    """Decides each free worker's next assignment; told of what ended and what was published.

    dispatcher = Dispatcher(config, tasks, demonstration_steps={"mujoco/hopper": 0}, demonstrations={"mujoco/hopper"})
    dispatcher.published(Version(1, 1))
    assignment = dispatcher.next(worker="w0", now_s=12.0)
    """

    def __init__(
        self,
        config: ActorsConfig,
        tasks: Sequence[str],
        *,
        demonstration_steps: Mapping[str, int],
        teachable: Sequence[str],
        seed: int,
    ) -> None:
        self._config = config
        self._newest: Version | None = None
        self._tasks = {
            task: _TaskState(
                demonstration_steps=demonstration_steps.get(task, 0),
                wanted_steps=config.demonstration_steps_of.get(task, config.demonstration_steps)
                if task in teachable
                else 0,
                # Seeds of demonstrations and generation begin where no evaluation and no other run's seed looks.
                next_seed=1_000_000 * (1 + seed) + demonstration_steps.get(task, 0),
            )
            for task in tasks
        }
        self._may_insert = True
        self._spent_s: dict[str, float] = {"teach": 0.0, "evaluate": 0.0, "generate": 0.0}
        """By all workers, in each role, since the run was started; what came before anything else does not count."""
        self._idle_from_s: dict[str, float] = {}

    def published(self, version: Version) -> None:
        """A version can be played from now on."""
        if self._newest is None or version > self._newest:
            self._newest = version

    def replay_takes(self, may_insert: bool) -> None:
        """Whether replay takes episodes now: while its readers are behind nobody generates, and evaluations go on."""
        self._may_insert = may_insert

    @property
    def newest(self) -> Version | None:
        return self._newest

    def everything_evaluated(self) -> bool:
        """Whether the newest version has been evaluated on every task."""
        return all(state.evaluated == self._newest for state in self._tasks.values())

    def next(self, worker: str, now_s: float, *, last: bool = False) -> Assignment | None:
        """The worker's next assignment, or None where it had better rest. `last`: only what is still to be evaluated."""
        if last:
            return self._evaluate(now_s, at_once=True)
        first = self._teach(now_s, at_most=self._config.first_demonstration_steps)
        if first is not None:
            return first
        # While demonstrations are missing, making them has half of the time.
        taught = self._teach(now_s) if self._spent_s["teach"] < self._spent_s["evaluate"] else None
        if taught is not None:
            return taught
        generated = self._generate(worker, now_s) if self._generation_is_owed() else None
        return generated or self._evaluate(now_s, at_once=False) or self._teach(now_s) or self._generate(worker, now_s)

    def _generation_is_owed(self) -> bool:
        """Whether evaluations, of which there may always be one more to do, have kept generation from its share."""
        playing_s = self._spent_s["evaluate"] + self._spent_s["generate"]
        return (
            all(state.evaluated is not None for state in self._tasks.values())
            and self._spent_s["generate"] < self._config.generate_share * playing_s
        )

    def _teach(self, now_s: float, *, at_most: int | None = None) -> Assignment | None:
        """The task that is furthest from its demonstrations, of those that have less than `at_most` steps."""
        short: dict[str, float] = {}
        for name, state in self._tasks.items():
            wanted = state.wanted_steps if at_most is None else min(at_most, state.wanted_steps)
            if state.demonstration_steps < wanted and not state.teaching_in_flight and now_s >= state.not_before_s:
                short[name] = state.demonstration_steps / wanted
        if not short:
            return None
        name = min(short, key=lambda task: short[task])
        self._tasks[name].teaching_in_flight += 1
        return self._play("teach", name)

    def _evaluate(self, now_s: float, *, at_once: bool) -> Assignment | None:
        waiting = {
            name: state.evaluation_ended_s
            for name, state in self._tasks.items()
            if self._newest is not None
            and not state.evaluation_in_flight
            and (state.evaluated is None or state.evaluated < self._newest)
            and (at_once or now_s - state.evaluation_ended_s >= self._config.evaluate_every_s)
        }
        if not waiting:
            return None
        name = min(waiting, key=lambda task: waiting[task])
        state, every_s = self._tasks[name], self._config.clip_every_s
        state.evaluation_in_flight = True
        film = every_s > 0.0 and (at_once or now_s - state.filmed_s >= every_s)
        seeds = tuple(EVALUATION_SEED + i for i in range(self._config.num_envs))
        return Assignment(role="evaluate", task=name, seeds=seeds, film=film)

    def _generate(self, worker: str, now_s: float) -> Assignment | None:
        """An assignment, where the worker has rested long enough that generation has no more than its share of the time."""
        share = self._config.generate_share
        if share <= 0.0 or self._newest is None or not self._may_insert:
            return None
        rest_until = self._idle_from_s.get(worker, now_s)
        if now_s < rest_until:
            return None
        ready = [name for name, state in self._tasks.items() if now_s >= state.not_before_s]
        if not ready:
            return None
        # The task of which least was generated.
        return self._play("generate", min(ready, key=lambda task: self._tasks[task].generated))

    def _play(self, role: Literal["teach", "generate"], name: str) -> Assignment:
        state = self._tasks[name]
        seeds = tuple(range(state.next_seed, state.next_seed + self._config.num_envs))
        state.next_seed += len(seeds)
        state.generated += len(seeds) if role == "generate" else 0
        return Assignment(role=role, task=name, seeds=seeds)

    def failed(self, worker: str, assignment: Assignment, now_s: float) -> None:
        """An assignment cannot be done. An evaluation waits for the next version; the rest waits longer each time."""
        self.done(worker, assignment, None, now_s)
        state = self._tasks[assignment.task]
        if assignment.role == "evaluate":
            state.evaluated, state.evaluation_ended_s = self._newest, now_s
        else:
            state.failures += 1
            state.not_before_s = now_s + FAILURE_PAUSE_S * 2 ** min(state.failures, 6)

    def done(self, worker: str, assignment: Assignment, report: WorkerReport | None, now_s: float) -> None:
        """An assignment ended; with `report` None it failed or its worker died, and is to be done again."""
        state = self._tasks[assignment.task]
        # A task whose teacher fails is not waited for.
        begun = all(t.demonstration_steps or not t.wanted_steps or t.failures for t in self._tasks.values())
        if report is not None and begun:
            self._spent_s[assignment.role] += report.wall_s
        if assignment.role == "teach":
            state.teaching_in_flight -= 1
            if report is not None:
                state.demonstration_steps += report.env_steps
        elif assignment.role == "evaluate":
            state.evaluation_in_flight = False
            if report is not None:
                state.evaluated = report.version
                state.evaluation_ended_s = now_s
                state.filmed_s = now_s if assignment.film else state.filmed_s
        elif report is not None and self._config.generate_share > 0.0:
            rest_s = report.wall_s * (1.0 / self._config.generate_share - 1.0)
            self._idle_from_s[worker] = now_s + rest_s
