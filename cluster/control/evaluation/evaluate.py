"""Playing a checkpoint in this process, without Ray: what `gato evaluate` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actors.assignment import Assignment
from actors.delivery import Receipt
from actors.envs.factory import WorkerEnvs
from actors.players.filming import ClipFolder
from actors.players.gato_player import GatoPlayer, GatoPlayers
from actors.tasks.resolve import resolve_task, resolve_tasks
from actors.worker import Worker
from cluster.control.evaluation.prompts import StoredPrompts, StoredSource
from cluster.control.evaluation.report import EvaluationReport, TaskResult
from cluster.monitor.progress import Progressing
from cluster.monitor.scores import Scale, read_scales, scale_of
from cluster.runs.config import RunConfig
from cluster.runs.evaluation_log import FOLDER, EvaluationLog
from cluster.runs.folder import RunFolder, find_run
from cluster.runs.home import require_here
from cluster.runs.resolve import acting_of, layout_of, tasks_of
from cluster.supervision.scheduler import EVALUATION_SEED
from gato.episode import Episode
from gato.metrics import Evaluation
from gato.network.model import Gato
from gato.task import Task
from gato.threads import use_threads
from gato.tokenizer import TokenLayout
from gato.version import Version
from gato.weights import Weights, snapshot
from learner.checkpoints.files import list_checkpoints
from learner.checkpoints.state import load_checkpoint, read_model_config

MOST_ENVS = 16


class _NoSink:
    def add(self, episode: Episode) -> Receipt:
        raise AssertionError(f"an evaluation hands in nothing, not even {episode.key}")


class _Fixed:
    """A weights source with one version."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def newer_than(self, version: Version | None) -> Weights | None:
        return None if version == self._weights.version else self._weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint, and what its run says of it."""

    path: Path
    config: RunConfig
    scales: Mapping[str, Scale]

    def untrained(self, tasks: Sequence[str]) -> list[str]:
        """Which of these tasks its run was not trained on."""
        return [name for name in tasks if name not in self.config.tasks]


def last_checkpoint(run: Path) -> Path:
    """The newest checkpoint in a run's folder. Raises ValueError if there is none."""
    checkpoints = list_checkpoints(run / "checkpoints")
    if not checkpoints:
        raise ValueError(
            f"run {run.name} has no checkpoint yet; wait for its first, or lower"
            " learner.checkpoint_every"
        )
    return checkpoints[-1]


def locate(what: str, command: str = "gato evaluate") -> Checkpoint:
    """The last checkpoint of a run's name, or the one in a folder inside a run's folder.

    `command` needs its files: it is named if they are on another machine.

    Raises:
        ValueError: There is no such run, it has no checkpoint, or a file of it is damaged.
    """
    path = Path(what)
    if (path / "checkpoint.json").is_file():
        checkpoint, run = path.resolve(), path.resolve().parent.parent
        if not (run / "run.json").is_file():
            raise ValueError(
                f"{path} lies in no run's folder (runs/NAME/checkpoints/step-N), so its tasks are"
                " unknown"
            )
    else:
        run = find_run(what).path
        require_here(run, command)
        checkpoint = last_checkpoint(run)
    return Checkpoint(
        path=checkpoint,
        config=RunFolder(run.parent, run.name).config(),
        scales=read_scales(run),
    )


def evaluate_run(
    what: str | Checkpoint,
    *,
    tasks: Sequence[str] | None = None,
    episodes: int = 10,
    video: bool = False,
    prompts: StoredSource | None = None,
    log: EvaluationLog | None = None,
    progress: Progressing | None = None,
) -> EvaluationReport:
    """Play a checkpoint in this process, without Ray.

    Args:
        what: A run's name (its last checkpoint), a checkpoint's folder, or a located checkpoint.
        tasks: Names of tasks. Default: those of the run.
        episodes: Episodes of each task, on the seeds that all evaluations use.
        video: Film each task's first episode, into the run's folder under clips.
        prompts: Of demonstrations, and of held-out records. Default: the run's replay.
        log: Keeps each episode as it ends; those that it has are not played again.
        progress: Told of each episode.

    Raises:
        ValueError: There is no such checkpoint or task, or an evaluation failed.
    """
    found = locate(what) if isinstance(what, str) else what
    clips = ClipFolder(found.path.parent.parent / "clips" / found.path.name) if video else None
    names = [resolve_task(task).name for task in tasks] if tasks else list(found.config.tasks)
    results: dict[str, TaskResult] = {}
    for done in evaluate_checkpoint(
        found.path, found.config, names, episodes, clips=clips, prompts=prompts, log=log,
        progress=progress,
    ):  # fmt: skip
        if done.failed:
            raise ValueError(f"evaluation of {done.task} failed: {done.failed}")
        results[done.task] = _result(done, found)
    return EvaluationReport(
        checkpoint=found.path,
        tasks=results,
        clips=dict(clips.files) if clips else {},
        clip_problems=tuple(clips.problems.values()) if clips else (),
    )


def log_file(found: Checkpoint) -> Path:
    """Where the episodes of its evaluations are kept."""
    return found.path.parent.parent / FOLDER / f"{found.path.name}.jsonl"


def _result(done: Evaluation, found: Checkpoint) -> TaskResult:
    return TaskResult(
        task=done.task,
        learner_step=done.learner_step,
        returns=done.returns,
        successes=done.successes,
        measures={measure: mean.value for measure, mean in done.measures.items()},
        scale=found.scales.get(done.task) or scale_of(resolve_task(done.task), None),
        is_trained=done.task in found.config.tasks,
        warnings=done.warnings,
    )


def load_player(
    found: Checkpoint, task: str, *, num_envs: int = 1, seed: int | None = None
) -> GatoPlayer:
    """The policy of a checkpoint for one task, as evaluations play it.

    Args:
        found: The checkpoint.
        task: Name of the task, in full.
        num_envs: Rows that it acts for at once.
        seed: Of the generator that actions are sampled with. Default: the run's.

    Raises:
        ValueError: The shapes do not agree, or the task is unknown.
    """
    use_threads()
    config = found.config
    chosen = config.seed if seed is None else seed
    players, known, _ = _players(found.path, config, [task], seed=chosen)
    player = players(known[task], num_envs, "evaluate")
    player.load(weights_of(found.path, config))
    return player


def weights_of(
    checkpoint: Path,
    config: RunConfig,
    taken_by: Callable[[Gato], Mapping[str, np.ndarray]] = snapshot,
) -> Weights:
    """The weights of a checkpoint, in bfloat16. Raises ValueError if its model is not the run's."""
    if read_model_config(checkpoint) != config.model:
        raise ValueError(f"{checkpoint} holds a model of another shape than its run's config says")
    model = Gato(config.model)
    progress = load_checkpoint(checkpoint, model)
    return Weights(
        version=Version(0, progress.number), learner_step=progress.step, arrays=taken_by(model)
    )


def _players(
    checkpoint: Path,
    config: RunConfig,
    tasks: Sequence[str],
    *,
    seed: int,
    prompts: StoredSource | None = None,
) -> tuple[GatoPlayers, dict[str, Task], TokenLayout]:
    """What makes the players of a checkpoint, all tasks that it knows, and the layout of tokens."""
    acting = acting_of(config, tasks)
    run, known = checkpoint.parent.parent, {**resolve_tasks(*tasks), **tasks_of(config)}
    layout = layout_of(config, known, run)
    players = GatoPlayers(
        model=config.model,
        evaluate=acting,
        generate=acting,
        seed=seed,
        text=layout.text,
        prompts=prompts or StoredPrompts(run / "replay", config),
    )
    return players, known, layout


def evaluate_checkpoint(
    checkpoint: Path,
    config: RunConfig,
    tasks: Sequence[str],
    episodes: int,
    *,
    clips: ClipFolder | None = None,
    prompts: StoredSource | None = None,
    log: EvaluationLog | None = None,
    progress: Progressing | None = None,
) -> Iterator[Evaluation]:
    """Whole episodes of each task, on the seeds that all evaluations use; the first is filmed where
    there are `clips`. Those that are in `log` are not played again, the others are added to it.
    PyTorch computes with one thread from then on, or with as many as OMP_NUM_THREADS says.
    ValueError where the shapes do not agree."""
    use_threads()
    weights = weights_of(checkpoint, config)
    players, known, layout = _players(checkpoint, config, tasks, seed=config.seed, prompts=prompts)
    acting = acting_of(config, tasks)

    def seen(episode: Episode) -> None:
        if log is not None:
            log.add(episode, acting[episode.task])
        if progress is not None:
            progress.advance()

    make = WorkerEnvs(
        backend=config.actors.env_backend,
        step_timeout_s=config.actors.step_timeout_s,
        env_python=config.actors.env_python,
    )
    worker = Worker(
        "evaluate", known, players, _NoSink(), _Fixed(weights), make=make, layout=layout, seen=seen,
        records=prompts or StoredPrompts(checkpoint.parent.parent / "replay", config),
    )  # fmt: skip
    for name in tasks:
        wanted = range(EVALUATION_SEED, EVALUATION_SEED + episodes)
        # Answers to records are not kept: their measures are of all of them together.
        is_played = known[name].has_environment
        kept = log.known(name, acting[name]) if log is not None and is_played else {}
        returns = {seed: kept[seed].episode_return for seed in wanted if seed in kept}
        if clips is not None:
            returns.pop(EVALUATION_SEED, None)  # the episode that is filmed
        solved = {seed: success for seed in returns if (success := kept[seed].success) is not None}
        if progress is not None and returns:
            progress.advance(len(returns))
        missing = [seed for seed in wanted if seed not in returns]
        done: list[Evaluation] = []
        at_once = MOST_ENVS if is_played else len(missing)
        for start in range(0, len(missing), at_once or 1):
            seeds = tuple(missing[start : start + at_once])
            film = clips is not None and is_played and seeds[0] == EVALUATION_SEED
            _, evaluation = worker.perform(
                Assignment(role="evaluate", task=name, seeds=seeds, film=film)
            )
            assert evaluation is not None
            if clips is not None and film:
                clips.keep(worker.take_clip(), evaluation)
            returns |= dict(zip(seeds, evaluation.returns, strict=False))
            solved |= dict(zip(seeds, evaluation.successes, strict=False))
            done.append(evaluation)
        yield Evaluation(
            task=name,
            version=weights.version,
            learner_step=weights.learner_step,
            returns=tuple(returns[seed] for seed in wanted if seed in returns),
            successes=tuple(solved.get(s, False) for s in wanted if s in returns) if solved else (),
            measures=done[0].measures if done else {},
            env_steps=sum(e.env_steps for e in done),
            wall_s=sum(e.wall_s for e in done),
            failed=next((e.failed for e in done if e.failed), None),
            warnings=next((e.warnings for e in done if e.warnings), ()),
        )
