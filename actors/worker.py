"""A worker: does one assignment after another (evaluate, generate, teach, relabel) with the newest
weights it can get."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Protocol, runtime_checkable

from actors.assignment import Assignment, Role, WorkerProgress
from actors.delivery import Delivery, EpisodeSink
from actors.envs.env import EnvFailedError
from actors.envs.factory import WorkerEnvs
from actors.envs.vector import VectorEnv
from actors.players.dagger import RelabelledPlayer
from actors.players.filming import Clip, Filming
from actors.players.heartbeat import Heartbeat
from actors.players.player import Player, Teacher
from actors.rollout import Dropped, rollout
from actors.teachers.resolve import Teachers
from gato.compatibility.coverage import Coverage
from gato.episode import AGENT, RELABELLED, Episode
from gato.metrics import Evaluation, Mean, WorkerReport
from gato.task import Task
from gato.tokenizer import TokenLayout
from gato.version import Version
from gato.weights import Weights


@runtime_checkable
class WeightsSource(Protocol):
    """Where weights come from."""

    def newer_than(self, version: Version | None) -> Weights | None:
        """The newest weights, where they are newer than `version`."""
        ...


@runtime_checkable
class WeightedPlayer(Player, Protocol):
    """A player that weights are put into."""

    def load(self, weights: Weights) -> None: ...


@runtime_checkable
class Resting(Protocol):
    """A player that wants to know when an assignment is over, because others wait for its
    decisions."""

    def rest(self) -> None: ...


PlayerFactory = Callable[[Task, int, str], WeightedPlayer]
"""(task, number of rows, role) to a player."""
TeacherFactory = Callable[[Task, str], Teacher]
"""(task, role) to who plays, or who says what it would have done."""
SHIPPED_TEACHERS = Teachers()
WORKER_ENVS = WorkerEnvs()


class Worker:
    """Plays what it is told.

    worker = Worker("w0", tasks, players, sink, source)
    report, evaluation = worker.perform(Assignment(role="evaluate", task="mujoco/hopper", seeds=(1,
    2)))
    """

    def __init__(
        self,
        name: str,
        tasks: Mapping[str, Task],
        players: PlayerFactory,
        sink: EpisodeSink,
        source: WeightsSource,
        *,
        patience_s: float = 30.0,
        make: Callable[[Task, int], VectorEnv] = WORKER_ENVS,
        teachers: TeacherFactory = SHIPPED_TEACHERS,
        layout: TokenLayout | None = None,
    ) -> None:
        """`layout`: what the tokens of observations are, to warn in evaluations of what they lose;
        None: nothing is warned of."""
        self.name = name
        self._tasks = tasks
        self._players = players
        self._sink = sink
        self._source = source
        self._patience_s = patience_s
        self._make = make
        self._teachers = teachers
        self._layout = layout
        self._incarnation = uuid.uuid4().hex[:12]
        self._sequence = 0
        self._weights: Weights | None = None
        self._made_envs: dict[tuple[str, int], VectorEnv] = {}
        self._made_teachers: dict[tuple[str, Role], Teacher] = {}
        self._made_players: dict[tuple[str, int, str], tuple[WeightedPlayer, Version]] = {}
        self._assignment: Assignment | None = None
        self._begun_s = time.monotonic()
        self._episodes = 0
        self._heartbeat: Heartbeat | None = None
        self._filming: Filming | None = None
        self._clip: Clip | None = None

    def _new_key(self) -> str:
        """Never the same twice, also after this worker was started again under its name."""
        self._sequence += 1
        return f"{self.name}.{self._incarnation}.{self._sequence}"

    def _newest(self) -> Weights:
        """The newest weights there are; never older ones than before."""
        newer = self._source.newer_than(self._weights.version if self._weights else None)
        if newer is not None and (self._weights is None or newer.version > self._weights.version):
            self._weights = newer
        if self._weights is None:
            raise RuntimeError("no weights were published yet; there is nothing to play with")
        return self._weights

    def _envs(self, task: Task, num_envs: int) -> VectorEnv:
        key = (task.name, num_envs)
        if key not in self._made_envs:
            try:
                self._made_envs[key] = self._make(task, num_envs)
            except ValueError as problem:
                raise EnvFailedError(f"{task.name} could not be made: {problem}") from problem
        return self._made_envs[key]

    def _player(self, task: Task, num_envs: int, role: str, weights: Weights) -> WeightedPlayer:
        key = (task.name, num_envs, role)
        if key not in self._made_players:
            player = self._players(task, num_envs, role)
            player.load(weights)
            self._made_players[key] = (player, weights.version)
        player, version = self._made_players[key]
        if version != weights.version:
            player.load(weights)
            self._made_players[key] = (player, weights.version)
        return player

    def perform(self, assignment: Assignment) -> tuple[WorkerReport, Evaluation | None]:
        """Do it. A broken environment ends it early: an evaluation is then failed, and the worker
        lives on."""
        task = self._tasks[assignment.task]
        self._begun_s, self._assignment, self._episodes, self._heartbeat = (
            time.monotonic(),
            assignment,
            0,
            None,
        )
        weights = None if assignment.role == "demonstrate" else self._newest()
        returns: dict[int, float] = {}  # by seed
        env_steps = 0
        delivery = Delivery(self._sink, patience_s=self._patience_s, on_answer=self._note_life)
        coverage = (
            Coverage(task.observations, self._layout)
            if self._layout and assignment.role == "evaluate"
            else None
        )
        dropped: Counter[str] = Counter()
        failed: str | None = None
        try:
            for episode in self._play(task, assignment, weights):
                if isinstance(episode, Dropped):
                    dropped[episode.reason] += 1
                    self._note_life()  # what hung was ended; that is a step, too
                    if assignment.role == "evaluate":
                        raise EnvFailedError(str(episode))
                    continue
                self._episodes += 1
                env_steps += episode.num_steps
                returns[episode.seed] = episode.episode_return
                if coverage is not None:
                    coverage.observe(episode.observations)
                if assignment.role != "evaluate":
                    delivery.send(episode, task)
            if dropped and not self._episodes:
                raise EnvFailedError(
                    f"{task.name} broke in every episode, the last time with {[*dropped][-1]}"
                )
        except EnvFailedError as problem:
            failed = str(problem)
            # They may be anywhere by now: new ones are made next time.
            broken = self._made_envs.pop((task.name, assignment.rows), None)
            if broken is not None:
                with suppress(EnvFailedError):
                    broken.close()
        finally:
            # here, and not when it is asked for: whoever asks does not wait
            if self._filming is not None:
                self._clip, self._filming = self._filming.clip(), None
            made = self._made_players.get((task.name, assignment.rows, assignment.role))
            if made is not None and isinstance(made[0], Resting):
                made[0].rest()
        wall_s = time.monotonic() - self._begun_s
        report = WorkerReport(
            worker=self.name,
            role=assignment.role,
            task=task.name,
            version=weights.version if weights else None,
            episodes=self._episodes,
            env_steps=env_steps,
            wall_s=wall_s,
            wait_s=delivery.wait_s,
            refused=delivery.refused,
            dropped=dict(dropped),
            returns=Mean(sum(returns.values(), 0.0), len(returns)),
            failed=failed,
        )
        if assignment.role != "evaluate" or weights is None:
            return report, None
        evaluation = Evaluation(
            task=task.name,
            version=weights.version,
            learner_step=weights.learner_step,
            returns=() if failed else tuple(returns[seed] for seed in assignment.seeds),
            env_steps=env_steps,
            wall_s=wall_s,
            failed=failed,
            worker=self.name,
            warnings=tuple(coverage.warnings(task.name)) if coverage else (),
        )
        return report, evaluation

    def _teacher(self, task: Task, role: Role) -> Teacher:
        if (task.name, role) not in self._made_teachers:
            self._made_teachers[task.name, role] = self._teachers(task, role)
        return self._made_teachers[task.name, role]

    def _play(
        self, task: Task, assignment: Assignment, weights: Weights | None
    ) -> Iterator[Episode | Dropped]:
        role, rows = assignment.role, assignment.rows
        envs = self._envs(task, rows)
        teacher = self._teacher(task, role) if role in ("demonstrate", "relabel") else None
        # Evaluations are not stored: were they numbered, what is stored would have holes, which
        # replay remembers.
        new_key = (lambda: f"{self.name}.evaluation") if role == "evaluate" else self._new_key
        source, labels_of = AGENT, None
        if weights is None:
            assert teacher is not None
            player: Player = teacher
            source, labels_of = f"teacher:{teacher.name}", teacher.labels
        else:
            player = self._player(task, rows, role, weights)
        if teacher is not None and weights is not None:
            player = RelabelledPlayer(player, teacher)
            source, labels_of = RELABELLED, player.labels
        if assignment.film:
            player = self._filming = Filming(
                player, envs, caption=f"version {weights.version if weights else '-'}"
            )
        self._heartbeat = Heartbeat(player)
        return rollout(
            envs, self._heartbeat, assignment.seeds, source=source, new_key=new_key, labels_of=labels_of,
            version=weights.version if weights else None, with_extras=teacher is not None and teacher.needs_extras,
            notes=teacher.notes if teacher else (),
        )  # fmt: skip

    def progress(self) -> WorkerProgress:
        """How far it is; may be asked from another thread."""
        heartbeat = self._heartbeat
        return WorkerProgress(
            assignment=self._assignment,
            episodes=self._episodes,
            steps=heartbeat.steps if heartbeat else 0,
            last_step_age_s=time.monotonic()
            - (heartbeat.last_step_s if heartbeat else self._begun_s),
        )

    def take_clip(self) -> Clip:
        """What was filmed in the last assignment that said so; once."""
        clip, self._clip = self._clip, None
        return clip or Clip(problem="nothing was filmed")

    def _note_life(self) -> None:
        """The worker did something other than a step: it is not stuck."""
        if self._heartbeat is not None:
            self._heartbeat.beat()
