"""The scheduler: picks each idle worker's next assignment. Pure logic: no clock, no Ray."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from actors.assignment import Assignment, Role
from actors.config import PLAYING, ActorsConfig
from cluster.supervision.task_progress import first_progress, is_hopeless
from gato.metrics import WorkerReport
from gato.version import Version

EVALUATION_SEED = 10_000
"""Evaluations of every version and run play the seeds 10,000, 10,001, ..."""
FAILURE_PAUSE_S = 2.5
"""Pause after a first failure; it doubles up to 160 s."""


class Scheduler:
    """Picks each idle worker's next assignment: demonstrations first, then evaluations of the
    newest version between the roles that fill replay. It is told what ended and what was published.

    scheduler = Scheduler(config, tasks, demonstration_steps={"mujoco/hopper": 0},
                          teachable=["mujoco/hopper"], seed=0)
    scheduler.published(Version(1, 1))
    assignment = scheduler.next(worker="w0", now_s=12.0)
    """

    def __init__(
        self,
        config: ActorsConfig,
        tasks: Sequence[str],
        *,
        demonstration_steps: Mapping[str, int],
        teachable: Sequence[str],
        seed: int,
        has_data: Sequence[str] = (),
        recorded: Collection[str] = (),
        longest: Mapping[str, int] | None = None,
        used_seeds: int = 0,
    ) -> None:
        """`teachable`: tasks that have a teacher; those of them that `has_data` names need no
        demonstrations of it. `recorded`: tasks without an environment, which are only evaluated.
        `longest`: steps of a task after which episodes are cut off that are relabelled, or
        evaluated before the end of the training. `used_seeds`: how many seeds of a task an earlier
        process of the run has used at most."""
        self._config = config
        self._recorded = frozenset(recorded)
        self._has_data = bool(has_data)
        self._newest: Version | None = None
        self._tasks = first_progress(
            config,
            tasks,
            demonstration_steps=demonstration_steps,
            teachable=teachable,
            has_data=has_data,
            longest=longest or {},
            seed=seed,
            used_seeds=used_seeds,
        )
        self._may_insert = True
        self._step = 0
        self._spent_s: dict[str, float] = dict.fromkeys(
            ("first_demonstrations", "evaluate", *PLAYING), 0.0
        )
        """By all workers since the start; what came before anything else does not count."""
        self._due_s: dict[tuple[str, Role], float] = {}
        """When a worker may go on with a role."""

    def configure(self, config: ActorsConfig) -> None:
        """Go on with other settings; the shares count from now on."""
        self._config = config
        self._spent_s = dict.fromkeys(self._spent_s, 0.0)
        self._due_s.clear()

    def published(self, version: Version) -> None:
        """A version can be played from now on."""
        if self._newest is None or version > self._newest:
            self._newest = version

    def learned(self, step: int) -> None:
        """How many updates the learner has made. Where the agent may play from now on, the shares
        count from now on."""
        begins = self._step < self._config.play_from <= step
        self._step = step
        if begins:
            self.configure(self._config)

    def replay_takes(self, may_insert: bool) -> None:
        """Whether replay accepts episodes now; if not, only evaluations go on."""
        self._may_insert = may_insert

    @property
    def newest(self) -> Version | None:
        return self._newest

    @property
    def broken(self) -> list[tuple[str, Role]]:
        """Tasks and the roles in which they failed too often to be tried again."""
        return [
            (name, role)
            for name, state in self._tasks.items()
            for role in state.failures
            if state.is_broken(role)
        ]

    @property
    def is_hopeless(self) -> bool:
        """Whether no task has anything left to try."""
        return is_hopeless(list(self._tasks.values()), has_data=self._has_data)

    @property
    def num_unevaluated(self) -> int:
        """Tasks whose last evaluation of the newest version has not ended, of those that can be."""
        return sum(
            state.evaluated_last != self._newest and not state.is_broken("evaluate")
            for state in self._tasks.values()
        )

    def next(self, worker: str, now_s: float, *, last: bool = False) -> Assignment | None:
        """The worker's next assignment; None: it had better rest. `last`: only evaluations."""
        if last:
            return self._evaluate(worker, now_s, at_once=True)
        first = self._demonstrate(now_s, at_most=self._config.first_demonstration_steps)
        if first is not None:
            return first
        # While demonstrations are missing, making them has half of the time.
        demonstrated = (
            self._demonstrate(now_s)
            if self._spent_s["first_demonstrations"] < self._spent_s["evaluate"]
            else None
        )
        if demonstrated is not None:
            return demonstrated
        by_need = sorted(PLAYING, key=self._over_its_share_s)
        for role in by_need:
            owed = self._play(role, worker, now_s) if self._is_owed(role) else None
            if owed is not None:
                return owed
        chosen = self._evaluate(worker, now_s, at_once=False) or self._demonstrate(now_s)
        return chosen or next(
            (given for role in by_need if (given := self._play(role, worker, now_s))), None
        )

    def _over_its_share_s(self, role: Role) -> float:
        """Time that a role had beyond its share of all time; negative where it is behind."""
        all_s = sum(self._spent_s[name] for name in ("evaluate", *PLAYING))
        return self._spent_s[role] - self._config.share(role) * all_s

    def _is_owed(self, role: Role) -> bool:
        """Whether evaluations, of which there may always be one more to do, have kept a role from
        its share. The first of each task come before generation, but by turns with relabelled
        play, which the learner waits for: those of fifty tasks take half an hour."""
        evaluated = all(
            state.evaluated is not None or state.is_broken("evaluate")
            for state in self._tasks.values()
        )
        by_turns = role == "relabel" and self._spent_s[role] < self._spent_s["evaluate"]
        return (evaluated or by_turns) and self._over_its_share_s(role) < 0.0

    def _demonstrate(self, now_s: float, *, at_most: int | None = None) -> Assignment | None:
        """The task that is furthest from its demonstrations, of those that have less than `at_most`
        steps."""
        if not self._may_insert:
            return None
        short: dict[str, float] = {}
        for name, state in self._tasks.items():
            wanted = state.wanted_steps if at_most is None else min(at_most, state.wanted_steps)
            if (
                state.demonstration_steps < wanted
                and not state.teaching_in_flight
                and state.may_try("demonstrate", now_s)
            ):
                short[name] = state.demonstration_steps / wanted
        return (
            self._assign("demonstrate", min(short, key=lambda task: short[task])) if short else None
        )

    def _evaluate(self, worker: str, now_s: float, *, at_once: bool) -> Assignment | None:
        config = self._config
        over = config.evaluate_share <= 0.0 or now_s < self._due_s.get((worker, "evaluate"), now_s)
        waiting = {
            name: state.evaluation_ended_s
            for name, state in self._tasks.items()
            if state.wants_evaluation(self._newest, last=at_once)
            and (at_once or not over or state.evaluated is None)
            and (at_once or now_s - state.evaluation_ended_s >= config.evaluate_every_s)
        }
        if not waiting:
            return None
        name = min(waiting, key=lambda task: waiting[task])
        state = self._tasks[name]
        state.evaluation_in_flight = True
        film = config.clip_every_s > 0.0 and name not in self._recorded
        film &= at_once or now_s - state.filmed_s >= config.clip_every_s
        seeds = range(EVALUATION_SEED, EVALUATION_SEED + self._num_episodes(name, last=at_once))
        return Assignment(
            role="evaluate", task=name, seeds=tuple(seeds), num_envs=config.num_envs, film=film,
            max_steps=None if at_once else state.longest,
        )  # fmt: skip

    def _num_episodes(self, name: str, *, last: bool) -> int:
        is_recorded, config = name in self._recorded, self._config
        return config.evaluation_records if is_recorded else config.episodes(last=last)

    def _play(self, role: Role, worker: str, now_s: float) -> Assignment | None:
        """An assignment, if the worker has rested so long that the role keeps to its share."""
        if (
            self._config.share(role) <= 0.0
            or not self._may_insert
            or (self._newest is None and role != "demonstrate")
        ):
            return None
        if now_s < self._due_s.get((worker, role), now_s) or (
            role != "demonstrate" and self._step < self._config.play_from
        ):
            return None
        ready = [
            name
            for name, state in self._tasks.items()
            if state.may_try(role, now_s)
            and (state.teachable or role == "generate")
            and name not in self._recorded
        ]
        # The task of which least was asked for.
        return (
            self._assign(role, min(ready, key=lambda task: self._tasks[task].asked[role]))
            if ready
            else None
        )

    def _assign(self, role: Role, name: str) -> Assignment:
        state = self._tasks[name]
        seeds = tuple(range(state.next_seed, state.next_seed + self._config.num_envs))
        state.next_seed += len(seeds)
        state.asked[role] += len(seeds)
        state.teaching_in_flight += role == "demonstrate"
        max_steps = state.longest if role == "relabel" else None
        return Assignment(role=role, task=name, seeds=seeds, max_steps=max_steps)

    def failed(
        self, assignment: Assignment, version: Version | None, *, given_s: float, now_s: float
    ) -> None:
        """An assignment cannot be done. An evaluation, of `version`, waits for the next one; the
        rest waits longer each time."""
        self.died(assignment, given_s=given_s, now_s=now_s)
        state, role = self._tasks[assignment.task], assignment.role
        if role == "evaluate":
            state.was_evaluated(version, with_all=assignment.max_steps is None)
            state.evaluation_ended_s = now_s
        else:
            state.not_before_s[role] = now_s + FAILURE_PAUSE_S * 2 ** min(state.failures[role], 6)

    def died(self, assignment: Assignment, *, given_s: float, now_s: float) -> None:
        """The worker died during this assignment: retry at once, at most `BREAKS_AFTER` times in a
        row. Several workers that fail together, as when a machine leaves, are one failure."""
        self.taken_back(assignment)
        state, role = self._tasks[assignment.task], assignment.role
        if given_s >= state.failed_s.get(role, given_s):
            state.failures[role] = state.failures.get(role, 0) + 1
            state.failed_s[role] = now_s

    def taken_back(self, assignment: Assignment) -> None:
        """No worker has the assignment any more; it is still to be done."""
        state = self._tasks[assignment.task]
        if assignment.role == "demonstrate":
            state.teaching_in_flight -= 1
        elif assignment.role == "evaluate":
            state.evaluation_in_flight = False

    def done(self, worker: str, assignment: Assignment, report: WorkerReport, now_s: float) -> None:
        """An assignment ended."""
        begun_s = now_s - report.wall_s
        if report.failed is not None:
            self.failed(assignment, report.version, given_s=begun_s, now_s=now_s)
            return
        self.taken_back(assignment)
        state, role = self._tasks[assignment.task], assignment.role
        state.failures[role] = 0
        missing = state.demonstration_steps < state.wanted_steps
        # A task whose teacher fails is not waited for.
        begun = all(
            t.demonstration_steps or not t.wanted_steps or t.failures.get("demonstrate")
            for t in self._tasks.values()
        )
        if begun:
            self._spent_s[
                "first_demonstrations" if role == "demonstrate" and missing else role
            ] += report.wall_s
        if role == "demonstrate":
            state.demonstration_steps += report.env_steps
        elif role == "evaluate":
            has_all = len(assignment.seeds) >= self._num_episodes(assignment.task, last=True)
            has_all &= assignment.max_steps is None
            state.was_evaluated(report.version, with_all=has_all)
            state.evaluation_ended_s = now_s
            state.filmed_s = now_s if assignment.film else state.filmed_s
        share = self._config.share(role)
        if not (role == "demonstrate" and missing) and share > 0.0:
            # Rest so long that it has its share, counted from when it was due: who began late
            # catches up, by one at most.
            due_s = max(self._due_s.get((worker, role), begun_s), begun_s - report.wall_s)
            self._due_s[worker, role] = due_s + report.wall_s / share
