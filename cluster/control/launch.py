"""Start the parts of a run on Ray: replay, weights store and learner, ready for workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import ray
from ray.actor import ActorProxy
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.envs.factory import WorkerEnvs
from actors.players.filming import ClipFolder
from actors.players.gato_player import GatoPlayers
from actors.remote import RemoteWorker, WorkerActor, end_inference
from actors.teachers.resolve import Teachers
from cluster.control.resolve import acting_configs, layout_of, tasks_of
from cluster.control.weights_store import RemoteWeightsStore, StoreSink, StoreSource, WeightsStore
from cluster.runs.config import RunConfig
from learner.remote import LearnerActor, RemoteLearner
from replay.remote import (
    RemoteBatchSource,
    RemoteEpisodeSink,
    RemotePromptSource,
    Shards,
    start_replay,
)

WorkerHandle = ActorProxy[WorkerActor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a launched run, as the supervisor knows them.

    Learner, replay and weights store live as long as this value does: the actors hold only borrowed
    handles.
    """

    learner: ActorProxy[LearnerActor]
    replay: Shards
    weights: ActorProxy[WeightsStore]
    fill: RemoteEpisodeSink
    """Takes the data that a run begins with: nobody reads yet, so nobody is held back for
    readers."""
    new_worker: Callable[[str], WorkerHandle]
    clips: ClipFolder


def launch(
    config: RunConfig, folder: Path, *, local: bool, teacher_returns: Mapping[str, float]
) -> Parts:
    """Start all parts but the workers. The parts that write to `folder` stay on this machine.

    Constructors get borrowed handles (`Shards.borrowed`, `ray.get_actor`): with others Ray could
    not restart an actor after the object that holds the handle is lost.

    On a local Ray nobody claims whole cores: the operating system shares two of them among five
    processes well.
    """
    cores = 0 if local else 1
    tasks = tasks_of(config)
    layout = layout_of(config, tasks, folder)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    replay = start_replay(
        folder=folder / "replay",
        tasks=tasks,
        layout=layout,
        config=config.replay,
        seed=config.seed,
        teacher_returns=teacher_returns,
        scheduling_strategy=here,
    )
    launched = uuid4().hex
    store_name = f"weights-{launched}"
    weights = RemoteWeightsStore.options(
        name=store_name, num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here
    ).remote(folder / "weights")
    shards, store = replay.borrowed(), ray.get_actor(store_name)
    gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
    learner = RemoteLearner.options(
        num_cpus=cores, num_gpus=gpus, max_restarts=-1, max_concurrency=4, scheduling_strategy=here
    ).remote(
        config.learner,
        config.model,
        RemoteBatchSource(shards, prefetch=config.replay.prefetch),
        StoreSink(store),
        folder / "checkpoints",
        list(tasks),
        config.seed,
    )
    players = GatoPlayers(
        model=config.model,
        evaluate=acting_configs(config, "evaluate"),
        generate=acting_configs(config, "generate"),
        seed=config.seed,
        text=layout.text,
        prompts=RemotePromptSource(shards),
    )

    end_inference()  # what a run of this name left that was killed

    def new_worker(name: str) -> WorkerHandle:
        return RemoteWorker.options(num_cpus=cores, max_restarts=-1, max_concurrency=2).remote(
            name,
            tasks,
            players,
            RemoteEpisodeSink(shards, patience_s=30.0),
            StoreSource(store),
            Teachers(noise=config.actors.demonstration_noise, specs=config.actors.teacher_of),
            WorkerEnvs(
                backend=config.actors.env_backend, step_timeout_s=config.actors.step_timeout_s
            ),
            config.actors.niceness,
            config.actors.inference == "node",
            launched,
        )

    return Parts(
        learner=learner,
        replay=replay,
        weights=weights,
        fill=RemoteEpisodeSink(replay, is_paced=False),
        new_worker=new_worker,
        clips=ClipFolder(folder / "clips"),
    )
