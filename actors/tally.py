"""A tally: counts what came of one assignment, and turns it into its report and evaluation."""

from __future__ import annotations

import math
import time
from collections import Counter

from actors.assignment import Assignment
from actors.delivery import Delivery
from actors.records.marks import Marks
from actors.rollout import Dropped
from gato.compatibility.coverage import Coverage
from gato.episode import Episode
from gato.metrics import Evaluation, Mean, WorkerReport
from gato.task import Task
from gato.tokenizer import TokenLayout
from gato.version import Version
from gato.weights import Weights


class Tally:
    """Counts the episodes of one assignment.

    tally = Tally(task, assignment, weights, begun_s=time.monotonic())
    tally.add(episode)
    report, evaluation = tally.report("w0", delivery), tally.evaluation("w0")
    """

    def __init__(
        self,
        task: Task,
        assignment: Assignment,
        weights: Weights | None,
        demonstrated: Demonstrated | None = None,
        *,
        begun_s: float,
    ) -> None:
        """Begin to count.

        Args:
            weights: The weights that act; None if a teacher demonstrates.
            demonstrated: With it, and its layout, evaluations warn of what tokens lose;
                demonstrations are added to it.
            begun_s: When the assignment began, in seconds of `time.monotonic`.
        """
        self._task = task
        self._assignment = assignment
        self._weights = weights
        self._begun_s = begun_s
        self.episodes = 0
        """Episodes that ended."""
        self.failed: str | None = None
        """Why the assignment ended early."""
        self.env_steps = 0
        """Steps of those episodes."""
        self._returns: dict[int, float] = {}
        """By seed: episodes end in another order than they are assigned in."""
        self._successes: dict[int, bool] = {}
        self._dropped: Counter[str] = Counter()
        self._last_reason = ""
        self._demonstrated = demonstrated.of(task) if demonstrated else None
        self._coverage: Coverage | None = None
        if assignment.role == "demonstrate":
            self._coverage = self._demonstrated
        elif assignment.role == "evaluate" and demonstrated and demonstrated.layout:
            self._coverage = Coverage(task.observations, demonstrated.layout)
        self._marks = Marks()
        self._num_cut = 0

    @property
    def version(self) -> Version | None:
        """Of the weights that act."""
        return self._weights.version if self._weights else None

    def add(self, episode: Episode) -> None:
        """Count an episode that ended."""
        self.episodes += 1
        self.env_steps += episode.num_steps
        self._returns[episode.seed] = episode.episode_return
        if episode.success is not None:
            self._successes[episode.seed] = episode.success
        self._num_cut += episode.truncated and episode.num_steps == self._assignment.max_steps
        self._marks.add(episode)
        if self._coverage is not None:
            self._coverage.observe(episode.observations)

    def drop(self, dropped: Dropped) -> None:
        """Count an episode whose environment broke."""
        self._dropped[dropped.reason] += 1
        self._last_reason = dropped.reason

    @property
    def only_drops(self) -> str:
        """A message if every episode was dropped, else an empty string."""
        if self.episodes or not self._dropped:
            return ""
        return f"{self._task.name} broke in every episode, the last time with {self._last_reason}"

    def report(self, worker: str, delivery: Delivery, *, node: str = "") -> WorkerReport:
        """The report of `worker`, with what `delivery` waited, kept and could not store."""
        returns = self._returns.values()
        return WorkerReport(
            worker=worker,
            role=self._assignment.role,
            task=self._task.name,
            version=self.version,
            episodes=self.episodes,
            env_steps=self.env_steps,
            wall_s=time.monotonic() - self._begun_s,
            wait_s=delivery.wait_s,
            refused=delivery.rejected,
            kept=delivery.kept,
            dropped=dict(self._dropped),
            returns=Mean(sum(returns, 0.0), len(returns)),
            failed=self.failed,
            node=node,
        )

    def evaluation(self, worker: str) -> Evaluation | None:
        """The evaluation, with returns and successes by seed in order; None in other roles."""
        if self._assignment.role != "evaluate" or self._weights is None:
            return None
        failed = self.failed
        if failed is None and not all(map(math.isfinite, self._returns.values())):
            failed = "a return is not finite"
        returns = () if failed else [self._returns[seed] for seed in self._assignment.seeds]
        # One environment says it in each step, another only once it is solved.
        says = bool(self._successes) and not failed
        solved = [self._successes.get(s, False) for s in self._assignment.seeds] if says else []
        return Evaluation(
            task=self._task.name,
            version=self._weights.version,
            learner_step=self._weights.learner_step,
            returns=tuple(returns),
            num_cut=0 if failed else self._num_cut,
            successes=tuple(solved),
            measures={} if failed else self._marks.measures(),
            env_steps=self.env_steps,
            wall_s=time.monotonic() - self._begun_s,
            failed=failed,
            worker=worker,
            warnings=self._warnings(),
        )

    def _warnings(self) -> tuple[str, ...]:
        if self._coverage is None:
            return ()
        return tuple(self._coverage.warnings(self._task.name, beside=self._demonstrated))


class Demonstrated:
    """What this worker's demonstrations showed of tasks. A novice alone may see values that hardly
    change, those of things that it never moves: an evaluation does not call them lost if a
    demonstration of this worker told them apart."""

    def __init__(self, layout: TokenLayout | None) -> None:
        """`layout`: of the tokens of observations; None: nothing is to be observed."""
        self.layout = layout
        self._by_task: dict[str, Coverage] = {}

    def of(self, task: Task) -> Coverage | None:
        """The task's, which grows."""
        if self.layout is not None and task.name not in self._by_task:
            self._by_task[task.name] = Coverage(task.observations, self.layout)
        return self._by_task.get(task.name)
