"""Start the parts of a run on Ray, or take over those that run: replay, weights store, learner."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.actor import ActorHandle, ActorProxy
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.delivery import HELD_S
from actors.envs.factory import WorkerEnvs
from actors.players.filming import ClipFolder
from actors.players.gato_player import GatoPlayers
from actors.remote import RemoteWorker, WorkerActor, end_inference
from actors.teachers.resolve import Teachers
from cluster.runs.config import RunConfig
from cluster.runs.home import SUPERVISOR
from cluster.runs.resolve import acting_configs, layout_of, tasks_of
from cluster.supervision.learner_place import free_places, learner_places
from cluster.supervision.weights_store import (
    RemoteWeightsStore,
    StoreSink,
    StoreSource,
    WeightsStore,
)
from learner.remote import LearnerActor, RemoteLearner
from replay.clients import RemoteBatchSource, RemoteEpisodeSink, RemotePromptSource
from replay.remote import Shards, start_replay

WorkerHandle = ActorProxy[WorkerActor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a launched run, as the supervisor knows them.

    On a local Ray learner, replay and weights store live as long as this value does: the actors
    hold only borrowed handles. On a cluster they are detached, and live until `end_parts`.
    """

    learner: ActorProxy[LearnerActor]
    replay: Shards
    weights: ActorProxy[WeightsStore]
    fill: RemoteEpisodeSink
    """Takes the data that a run begins with: nobody reads yet, so nobody is held back for
    readers."""
    new_worker: Callable[[str], WorkerHandle]
    worker_cores: int
    """That each worker claims; one for which no node has them waits."""
    clips: ClipFolder


def launch(
    config: RunConfig, folder: Path, *, on_cluster: bool, teacher_returns: Mapping[str, float]
) -> Parts:
    """Start all parts but the workers on this node, which is the run's home.

    On a cluster they have names, and those that are there already are taken over; the learner's
    place is reserved, so that no waiting worker gets it while the learner starts again.

    Constructors get borrowed handles (`Shards.borrowed`, `ray.get_actor`): with others Ray could
    not restart an actor after the object that holds the handle is lost.

    On a local Ray nobody claims whole cores: the operating system shares two of them among five
    processes well.

    Raises:
        ValueError: There is no core, or no GPU, free for each of the learner's processes.
    """
    cores = 1 if on_cluster else 0
    tasks = tasks_of(config)
    layout = layout_of(config, tasks, folder)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lasting: dict[str, Any] = (
        {"lifetime": "detached", "get_if_exists": True, "max_restarts": -1}
        if on_cluster
        else {"max_restarts": -1}
    )
    launched = "" if on_cluster else f"-{uuid4().hex}"
    threads = config.learner.num_threads or 1
    first, *others = learner_places(config.learner.num_learners, threads, on_cluster=on_cluster)
    replay = start_replay(
        folder=folder / "replay",
        tasks=tasks,
        layout=layout,
        config=config.replay,
        seed=config.seed,
        teacher_returns=teacher_returns,
        scheduling_strategy=here,
        is_detached=on_cluster,
    )
    store_name = f"weights{launched}"
    weights = RemoteWeightsStore.options(
        name=store_name, num_cpus=0, max_task_retries=-1, scheduling_strategy=here, **lasting
    ).remote(folder / "weights")
    shards, store = replay.borrowed(), ray.get_actor(store_name)
    learner = RemoteLearner.options(
        name=f"learner{launched}",
        max_concurrency=8,
        **first,
        **lasting,
    ).remote(
        config.learner,
        config.model,
        RemoteBatchSource(shards, prefetch=config.replay.prefetch),
        StoreSink(store),
        folder / "checkpoints",
        list(tasks),
        config.seed,
        others,
        threads if on_cluster else max(1, (os.cpu_count() or 1) - config.actors.num_workers),
    )
    players = GatoPlayers(
        model=config.model,
        evaluate=acting_configs(config, "evaluate"),
        generate=acting_configs(config, "generate"),
        seed=config.seed,
        text=layout.text,
        prompts=RemotePromptSource(shards),
    )
    if not on_cluster:
        end_inference()  # what a run of this name left that was killed

    def new_worker(name: str) -> WorkerHandle:
        return RemoteWorker.options(
            name=f"worker-{name}{launched}",
            num_cpus=cores,
            max_concurrency=2,
            scheduling_strategy="SPREAD" if on_cluster else None,
            **lasting,
        ).remote(
            name,
            tasks,
            players,
            RemoteEpisodeSink(shards, patience_s=30.0, held_s=HELD_S),
            StoreSource(store),
            Teachers(
                noise=config.actors.demonstration_noise,
                random_share=config.actors.demonstration_random_share,
                specs=config.actors.teacher_of,
            ),
            WorkerEnvs(
                backend=config.actors.env_backend,
                step_timeout_s=config.actors.step_timeout_s,
                env_python=config.actors.env_python,
            ),
            config.actors.niceness,
            config.actors.inference == "node",
            launched or "run",
            records=RemotePromptSource(shards),
        )

    return Parts(
        learner=learner,
        replay=replay,
        weights=weights,
        fill=RemoteEpisodeSink(replay, is_paced=False),
        new_worker=new_worker,
        worker_cores=cores,
        clips=ClipFolder(folder / "clips"),
    )


def end_parts() -> None:
    """End all parts of the run in this namespace, but for its supervisor, and free their places."""
    for name in ray.util.list_named_actors():
        if name != SUPERVISOR:
            try:
                ray.kill(ray.get_actor(name), no_restart=True)
            except (ValueError, RayError):
                continue  # it has just ended by itself
    free_places()


def kill_worker(handle: WorkerHandle, *, no_restart: bool) -> None:
    """kill -9 of a worker, after which Ray starts it again unless `no_restart`."""
    assert isinstance(handle, ActorHandle)
    ray.kill(handle, no_restart=no_restart)
