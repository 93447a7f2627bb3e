"""Launching: Ray (a local one, or one that runs), and on it replay, weights store and learner,
ready for workers."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import ray
from ray.actor import ActorProxy
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.envs.factory import WorkerEnvs
from actors.players.filming import ClipFolder
from actors.players.gato_player import GatoPlayers
from actors.remote import RemoteWorker, WorkerActor, end_inference
from actors.tasks.resolve import resolve_tasks
from actors.tasks.text_encoder import text_encoder
from actors.teachers.resolve import Teachers
from cluster.control.ray_probe import require_ray
from cluster.control.weights_store import RemoteWeightsStore, StoreSink, StoreSource, WeightsStore
from cluster.runs.config import RunConfig
from cluster.runs.normalise import normalised_tasks
from gato.config import ActingConfig
from gato.sequence import StepLayout
from gato.task import Kind, Task
from gato.tokenizer import TokenLayout
from learner.remote import LearnerActor, RemoteLearner
from replay.remote import (
    RemoteBatchSource,
    RemoteEpisodeSink,
    RemotePromptSource,
    Shards,
    start_replay,
)
from replay.sampling.config import TaskMix, least_steps

WorkerHandle = ActorProxy[WorkerActor]


def tasks_of(config: RunConfig) -> dict[str, Task]:
    """The run's tasks by name, in the run's order, with the statistics that their observations are
    normalised by. ValueError suggests the nearest name for one that is unknown."""
    return normalised_tasks(resolve_tasks(*config.tasks), config)


def layout_of(config: RunConfig, tasks: Mapping[str, Task], folder: Path | None) -> TokenLayout:
    """The model's layout, with the encoder of text where a task shows some; its file is sought in
    the run's `folder`."""
    shows_text = any(
        spec.kind is Kind.TEXT for task in tasks.values() for spec in task.observations.values()
    )
    return replace(
        config.model.layout, text=text_encoder(config.text, folder) if shows_text else None
    )


def check_fits(config: RunConfig, tasks: Mapping[str, Task]) -> None:
    """ValueError, before anything starts, where a step of a task is too long for the model or a
    row, or a prompt for a window."""
    for role in ("evaluate", "generate"):
        acting_configs(config, role)
    layout = layout_of(config, tasks, None)
    for task in tasks.values():
        steps = StepLayout(task, layout)
        mix = config.replay.mix
        needed = steps.tokens_per_step * least_steps(mix, mix.tasks.get(task.name, TaskMix()))
        if needed > mix.row_tokens:
            raise ValueError(
                f"{task.name} needs rows of {needed} tokens, run {config.name} has"
                f" {mix.row_tokens}; add --set"
                f" model.context_tokens={max(needed, config.model.context_tokens)} --set"
                f" replay.mix.row_tokens={needed}"
                + (
                    ", or for rows without prompts --set replay.mix.prompt_fraction=0"
                    if mix.prompt_fraction
                    else ""
                )
            )
        if steps.num_observation_tokens > config.model.max_observation_tokens:
            raise ValueError(
                f"{task.name} shows {steps.num_observation_tokens} tokens a step, the model has"
                f" positions for {config.model.max_observation_tokens}; add --set"
                f" model.max_observation_tokens={steps.num_observation_tokens}"
            )


def connect_ray(address: str | None, *, namespace: str, num_cpus: int | None = None) -> None:
    """Connect to the Ray at `address` (host:port), or start a local one, of `num_cpus` (None: the
    machine's).

    ValueError where nothing answers there, or none starts.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray would run its workers at niceness 15, behind anything else on the machine; they are what
    # the machine is for.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if address is None:
            try:
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    namespace=namespace,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except (
                Exception
            ) as problem:  # Ray has no exception of its own for a start that took too long
                raise ValueError(
                    f"a local Ray did not start: {problem}; is the machine busy, or out of memory?"
                ) from problem
            return
        _offer_token()
        try:
            require_ray(address)
            ray.init(
                address=address,
                namespace=namespace,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, RayError) as problem:
            raise ValueError(
                f"the Ray at {address!r} refused: {str(problem).splitlines()[0]}; both sides need"
                " the same token (RAY_AUTH_TOKEN_PATH, or RAY_AUTH_MODE=disabled on both) and the"
                " same version of Ray"
            ) from problem


def _offer_token() -> None:
    """Join with the token that lies in the home folder, if one does: Ray 2.60 asks for it but
    offers it only to "auto"."""
    from ray._private.authentication.authentication_token_setup import (
        maybe_enable_token_auth_if_token_available,
    )

    # It warns that a token is used, before it is known whether a Ray listens there at all.
    logging.getLogger(maybe_enable_token_auth_if_token_available.__module__).setLevel(logging.ERROR)
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


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


def acting_configs(config: RunConfig, role: str) -> dict[str, ActingConfig]:
    """How each task is acted to `evaluate` or to `generate`: as deep a window as it is trained
    with."""
    actors = config.actors
    general, single = {
        "evaluate": (actors.evaluate, actors.evaluate_of),
        "generate": (actors.generate, actors.generate_of),
    }[role]
    out: dict[str, ActingConfig] = {}
    for name in config.tasks:
        acting = single.get(name, general)
        mix = config.replay.mix.tasks.get(name)
        out[name] = replace(
            acting, window_steps=acting.window_steps or (mix.window_steps if mix else None)
        )
    return out


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
