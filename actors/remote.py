"""Ray actors: a worker, and the inference server of a node."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeVar

import numpy as np
import ray
from ray.actor import ActorProxy
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.assignment import Assignment, WorkerProgress
from actors.delivery import EpisodeSink
from actors.envs.factory import WorkerEnvs
from actors.players.filming import Clip
from actors.players.gato_player import GatoPlayers
from actors.players.inference_batch import Ticket
from actors.players.inference_client import ServedPlayers
from actors.players.inference_server import InferenceServer, NotServedError
from actors.players.player import TimeStep
from actors.records.source import RecordSource
from actors.teachers.resolve import Teachers
from actors.worker import WeightsSource, Worker
from gato.metrics import Evaluation, WorkerReport
from gato.part_log import name_log, node_name
from gato.task import Task
from gato.threads import use_threads
from gato.version import Version
from gato.weights import Weights

T = TypeVar("T")


INFERENCE = "inference-"
"""An inference actor is called this, then the id of the launch and that of the node."""


class InferenceActor:
    """An `InferenceServer`; each call of a worker waits in a thread of its own."""

    def __init__(
        self,
        players: GatoPlayers,
        tasks: Mapping[str, Task],
        source: WeightsSource,
        niceness: int,
        num_threads: int,
    ) -> None:
        name_log(ray.get_runtime_context())
        os.nice(niceness)
        use_threads(num_threads)  # Ray sets one thread for an actor that claims no core
        self._server = InferenceServer(players, tasks, source)

    @ray.method(max_task_retries=-1)
    def newer_than(self, client: str, version: Version | None) -> Weights | None:
        return self._server.newer_than(client, version)

    @ray.method
    def begin(self, client: str, task: str, role: str, num_rows: int, version: Version) -> Ticket:
        return self._server.begin(client, task, role, num_rows, version)

    @ray.method(max_task_retries=-1)
    def end(self, ticket: Ticket) -> None:
        self._server.end(ticket)

    @ray.method
    def act(self, ticket: Ticket, step: TimeStep) -> np.ndarray:
        return self._server.act(ticket, step)

    @ray.method
    def pid(self) -> int:
        """The id of its process, which tests kill."""
        return os.getpid()


RemoteInference = ray.remote(InferenceActor)


def inference_of_node(
    players: GatoPlayers,
    tasks: Mapping[str, Task],
    source: WeightsSource,
    *,
    launch: str,
    niceness: int = 0,
    num_threads: int = 1,
) -> ActorProxy[InferenceActor]:
    """The inference actor of this node and launch; the first caller makes it. It outlives that
    caller: see `end_inference`.

    The arguments must be small (below 100 kB in all): Ray loses larger ones with the worker that
    made the actor, and could not restart it.

    Args:
        launch: An id that is new each time a run is started or resumed, so that an actor left by a
            killed run is never used.
        niceness: Added to the niceness of its process.
        num_threads: PyTorch's threads.
    """
    node = ray.get_runtime_context().get_node_id()
    return RemoteInference.options(
        name=f"{INFERENCE}{launch}-{node}",
        get_if_exists=True,
        lifetime="detached",
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=128,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    ).remote(players, tasks, source, niceness, num_threads)


def end_inference() -> None:
    """Kill the inference actors of all nodes and launches in this namespace."""
    for name in ray.util.list_named_actors():
        if name.startswith(INFERENCE):
            ray.kill(ray.get_actor(name), no_restart=True)


class ServedByNode:
    """The client's `Server`, of a node's inference actor. Calls raise NotServedError if it died:
    the assignment is lost with it."""

    def __init__(self, actor: ActorProxy[InferenceActor]) -> None:
        self._actor = actor

    def newer_than(self, client: str, version: Version | None) -> Weights | None:
        return _answer(self._actor.newer_than.remote(client, version))

    def begin(self, client: str, task: str, role: str, num_rows: int, version: Version) -> Ticket:
        return _answer(self._actor.begin.remote(client, task, role, num_rows, version))

    def end(self, ticket: Ticket) -> None:
        with suppress(NotServedError):  # a dead server makes no group wait
            _answer(self._actor.end.remote(ticket))

    def act(self, ticket: Ticket, step: TimeStep) -> np.ndarray:
        return _answer(self._actor.act.remote(ticket, step))


def _answer(reference: ray.ObjectRef[T]) -> T:
    try:
        return ray.get(reference)
    except RayTaskError as failure:  # raise the cause, without Ray's traceback
        raise failure.cause from None
    except RayActorError as death:
        raise NotServedError("the inference process of this node died; Ray restarts it") from death


class WorkerActor:
    """A `Worker` in a process of its own, on one core."""

    def __init__(
        self,
        name: str,
        tasks: Mapping[str, Task],
        players: GatoPlayers,
        sink: EpisodeSink,
        source: WeightsSource,
        teachers: Teachers,
        make: WorkerEnvs,
        niceness: int,
        shares_inference: bool = False,
        launch: str = "",
        inference_threads: int = 1,
        records: RecordSource | None = None,
    ) -> None:
        """`shares_inference`: whether the inference actor of the node and of this `launch` acts for
        it."""
        name_log(ray.get_runtime_context())
        os.nice(niceness)
        use_threads(1)
        self._playing = threading.Lock()
        if shares_inference:
            assert launch, "shared inference needs the id of the launch"
            actor = inference_of_node(
                players,
                tasks,
                source,
                launch=launch,
                niceness=niceness,
                num_threads=inference_threads,
            )
            shared = ServedPlayers(server=ServedByNode(actor), client=name)
            self._worker = Worker(
                name,
                tasks,
                shared,
                sink,
                shared,
                make=make,
                teachers=teachers,
                layout=players.layout,
                node=node_name(),
                records=records,
            )
        else:
            self._worker = Worker(
                name,
                tasks,
                players,
                sink,
                source,
                make=make,
                teachers=teachers,
                layout=players.layout,
                node=node_name(),
                records=records,
            )

    @ray.method
    def perform(self, assignment: Assignment) -> tuple[WorkerReport, Evaluation | None]:
        """Play an assignment. One at a time, whatever `max_concurrency` is: environments are not
        thread-safe."""
        with self._playing:
            return self._worker.perform(assignment)

    @ray.method
    def progress(self) -> WorkerProgress:
        """Answers while `perform` plays, given `max_concurrency=2`."""
        return self._worker.progress()

    @ray.method
    def take_clip(self) -> Clip:
        return self._worker.take_clip()

    @ray.method
    def pid(self) -> int:
        """The id of its process, which tests kill."""
        return os.getpid()


RemoteWorker = ray.remote(WorkerActor)
