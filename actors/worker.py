"""A worker: plays one assignment after another, with the newest weights."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, runtime_checkable

from actors.assignment import Assignment, Role, WorkerProgress
from actors.delivery import Delivery, EpisodeSink, Outbox
from actors.envs.env import EnvFailedError
from actors.envs.factory import WorkerEnvs
from actors.envs.kept import KeptEnvs
from actors.envs.vector import VectorEnv
from actors.players.dagger import RelabelledPlayer
from actors.players.filming import Clip, Filming
from actors.players.heartbeat import Heartbeat
from actors.players.player import Player, Teacher
from actors.records.examine import ROWS, Examiner
from actors.records.source import NoRecords, RecordSource
from actors.rollout import Dropped, rollout
from actors.tally import Demonstrated, Tally
from actors.teachers.resolve import Teachers
from gato.episode import AGENT, RELABELLED, Episode
from gato.metrics import Evaluation, WorkerReport
from gato.task import Task
from gato.tokenizer import TokenLayout
from gato.version import Version
from gato.weights import Weights


@runtime_checkable
class WeightsSource(Protocol):
    """Source of weights."""

    def newer_than(self, version: Version | None) -> Weights | None:
        """The newest weights, or None if they are not newer than `version`."""
        ...


@runtime_checkable
class WeightedPlayer(Player, Protocol):
    """A player with weights."""

    def load(self, weights: Weights) -> None:
        """Act with these weights from now on; called between episodes."""
        ...


@runtime_checkable
class Resting(Protocol):
    """A player that must know when an assignment is over: others wait for its steps, or it holds
    memory."""

    def rest(self) -> None:
        """The assignment is over, however it ended."""
        ...


PlayerFactory = Callable[[Task, int, str], WeightedPlayer]
"""Makes a player, of (task, number of rows, role)."""
TeacherFactory = Callable[[Task, str], Teacher]
"""Makes the teacher of (task, role)."""
SHIPPED_TEACHERS = Teachers()
WORKER_ENVS = WorkerEnvs()


class Worker:
    """Plays assignments, sends their episodes to replay, and reports.

    worker = Worker("w0", tasks, players, sink, source)
    assignment = Assignment(role="evaluate", task="mujoco/hopper", seeds=(1, 2))
    report, evaluation = worker.perform(assignment)

    Environments, players and teachers are made when they are first needed, and then reused;
    environments as long as memory allows (`actors.envs.kept`).
    """

    def __init__(
        self,
        name: str,
        tasks: Mapping[str, Task],
        players: PlayerFactory,
        sink: EpisodeSink,
        source: WeightsSource,
        *,
        outbox: Outbox | None = None,
        make: Callable[[Task, int], VectorEnv] = WORKER_ENVS,
        teachers: TeacherFactory = SHIPPED_TEACHERS,
        layout: TokenLayout | None = None,
        node: str = "",
        seen: Callable[[Episode], None] | None = None,
        records: RecordSource | None = None,
    ) -> None:
        """Args:
        name: Unique in the run; part of each episode's key.
        tasks: Tasks by name.
        players: Makes the players of all roles but `demonstrate`.
        sink: Where episodes are sent.
        source: Where weights come from.
        outbox: Keeps episodes while replay holds writers back. None: one of the usual size.
        make: Makes N environments of a task.
        teachers: Makes the teachers of `demonstrate` and `relabel`.
        layout: The tokens of observations; with it, evaluations warn of what they lose.
        node: The name of this machine, for the worker's reports.
        seen: Told of each episode as it ends.
        records: Where held-out records come from, for tasks without an environment.
        """
        self.name = name
        self._tasks = tasks
        self._players = players
        self._sink = sink
        self._source = source
        self._outbox = Outbox() if outbox is None else outbox
        self._teachers = teachers
        self._demonstrated = Demonstrated(layout)
        self._node = node
        self._seen = seen
        self._held_out = Examiner(records or NoRecords())
        self._incarnation = uuid.uuid4().hex[:12]
        self._sequence = 0
        self._weights: Weights | None = None
        self._envs = KeptEnvs(make)
        self._made_teachers: dict[tuple[str, Role], Teacher] = {}
        self._made_players: dict[tuple[str, int, str], tuple[WeightedPlayer, Version]] = {}
        self._assignment: Assignment | None = None
        self._begun_s = time.monotonic()
        self._tally: Tally | None = None
        self._heartbeat: Heartbeat | None = None
        self._alive_s = self._begun_s
        """When something other than a step was done."""
        self._filming: Filming | None = None
        self._clip: Clip | None = None

    def _new_key(self) -> str:
        """A unique key, also after this worker was restarted under its name."""
        self._sequence += 1
        return f"{self.name}.{self._incarnation}.{self._sequence}"

    def _newest(self) -> Weights:
        """The newest weights of the source; never older than those before."""
        newer = self._source.newer_than(self._weights.version if self._weights else None)
        if newer is not None and (self._weights is None or newer.version > self._weights.version):
            self._weights = newer
        if self._weights is None:
            raise RuntimeError("no weights were published yet; publish some before assigning play")
        return self._weights

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
        """Play an assignment to its end.

        A broken environment ends an evaluation early, which then counts as failed. In other roles
        it costs its episode alone. The worker goes on in any case.

        Returns:
            The report, and for the role `evaluate` the evaluation, else None.

        Raises:
            RuntimeError: if weights are needed, and none were published yet.
        """
        task, is_evaluation = self._tasks[assignment.task], assignment.role == "evaluate"
        self._begun_s, self._assignment = time.monotonic(), assignment
        self._tally = self._heartbeat = None
        weights = None if assignment.role == "demonstrate" else self._newest()
        delivery = Delivery(self._sink, self._outbox, on_answer=self._note_life)
        self._tally = tally = Tally(
            task, assignment, weights, self._demonstrated, begun_s=self._begun_s
        )
        try:
            delivery.hand_in()  # what earlier assignments have left
            for episode in self._play(task, assignment, weights):
                if isinstance(episode, Dropped):
                    tally.drop(episode)
                    self._note_life()  # an environment that hung was ended, which took time
                    if is_evaluation:  # without this episode it cannot be compared with others
                        raise EnvFailedError(str(episode))
                    continue
                tally.add(episode)
                if self._seen is not None:
                    self._seen(episode)
                if not is_evaluation:
                    delivery.send(episode, task)
            if tally.only_drops:
                raise EnvFailedError(tally.only_drops)
        except EnvFailedError as problem:
            tally.failed = str(problem)
            # The environments are in an unknown state: new ones are made next time.
            self._envs.drop(task, assignment.rows)
        finally:
            # Encode the clip now, so that `take_clip` does not take long.
            if self._filming is not None:
                self._clip, self._filming = self._filming.clip(), None
            rows = assignment.rows if task.has_environment else ROWS
            made = self._made_players.get((task.name, rows, assignment.role))
            if made is not None and isinstance(made[0], Resting):
                made[0].rest()
        return tally.report(self.name, delivery, node=self._node), tally.evaluation(self.name)

    def _teacher(self, task: Task, role: Role) -> Teacher:
        if (task.name, role) not in self._made_teachers:
            self._made_teachers[task.name, role] = self._teachers(task, role)
        return self._made_teachers[task.name, role]

    def _play(
        self, task: Task, assignment: Assignment, weights: Weights | None
    ) -> Iterator[Episode | Dropped]:
        role, rows = assignment.role, assignment.rows
        if not task.has_environment:
            return self._examine(task, assignment, weights)
        envs = self._envs.of(task, rows)
        self._note_life()  # they may take long to make
        teacher = self._teacher(task, role) if role in ("demonstrate", "relabel") else None
        # Episodes of evaluations are not stored. If they took numbers, those of stored episodes
        # would have gaps, which replay's deduplication would have to remember.
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
            envs,
            self._heartbeat,
            assignment.seeds,
            source=source,
            new_key=new_key,
            labels_of=labels_of,
            version=weights.version if weights else None,
            with_extras=teacher is not None and teacher.needs_extras,
            notes=teacher.notes if teacher else (),
            max_steps=assignment.max_steps,
            on_reset=self._note_life,
        )

    def _examine(
        self, task: Task, assignment: Assignment, weights: Weights | None
    ) -> Iterator[Episode]:
        """Answer held-out records; there is nothing else to do without an environment."""
        if assignment.role != "evaluate" or weights is None:
            raise EnvFailedError(f"{task.name} has no environment to {assignment.role} in")
        player = self._player(task, ROWS, assignment.role, weights)
        heartbeat = self._heartbeat = Heartbeat(player)
        return self._held_out.examine(
            task, player, assignment.seeds, version=weights.version, beat=heartbeat.beat
        )

    def progress(self) -> WorkerProgress:
        """The progress; may be called from another thread."""
        heartbeat, tally = self._heartbeat, self._tally
        # Records are answered without steps in an environment: the tally alone knows of them.
        env_steps = (heartbeat.env_steps if heartbeat else 0, tally.env_steps if tally else 0)
        return WorkerProgress(
            assignment=self._assignment,
            episodes=tally.episodes if tally else 0,
            steps=heartbeat.steps if heartbeat else 0,
            env_steps=max(env_steps),
            last_step_age_s=time.monotonic()
            - max(heartbeat.last_step_s if heartbeat else self._begun_s, self._alive_s),
            version=tally.version if tally else None,
        )

    def take_clip(self) -> Clip:
        """The clip of the last assignment that was filmed; returned once."""
        clip, self._clip = self._clip, None
        return clip or Clip(problem="nothing was filmed")

    def _note_life(self) -> None:
        """Count as alive, though no step was made."""
        self._alive_s = time.monotonic()
