"""A run as a value: one frozen dataclass that holds every setting."""

from __future__ import annotations

from dataclasses import dataclass

from actors.config import ActorsConfig
from gato.config import ModelConfig
from learner.config import LearnerConfig
from replay.config import ReplayConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageConfig:
    """Where a run is copied to, so that it can go on when its home is lost."""

    url: str = ""
    """A folder, or a URL that fsspec knows, such as s3://bucket/gato. Empty: it is not copied."""
    every_s: float = 30.0
    """Seconds from one copy to the next: what was acknowledged since the last one is lost with the
    home."""

    def __post_init__(self) -> None:
        if not self.every_s > 0:
            raise ValueError(f"storage.every_s is {self.every_s:g}; it must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageConfig:
    """The run's page, for a browser on the machine of its learner."""

    is_on: bool = True
    """Whether the run serves one."""
    port: int = 0
    """On loopback; 0: a free one, and the same again when the run goes on."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"page.port is {self.port}; it must be in 0..65535 (0: a free one)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that makes one run.

    RunConfig(name="debug", tasks=("mujoco/inverted-pendulum",), model=PRESETS["tiny"],
    learner=LearnerConfig(num_updates=20), ...)
    """

    name: str
    about: str
    """One line for `gato start --help`."""
    tasks: tuple[str, ...]
    model: ModelConfig
    learner: LearnerConfig
    replay: ReplayConfig
    actors: ActorsConfig = ActorsConfig()
    seed: int = 0
    data: tuple[str, ...] = ()
    """Imported data sets (`gato import`) to train on, by name."""
    text: str = "bytes"
    """What turns text into tokens, for tasks that show some: bytes, or a SentencePiece model's file
    (in the run's folder)."""
    storage: StorageConfig = StorageConfig()
    initial_weights: str = ""
    """The weights to begin with (`gato start --from`): of a run, a checkpoint's folder or a policy
    file. Empty: random ones."""
    page: PageConfig = PageConfig()

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError(
                f"run {self.name} has no tasks; name at least one, such as mujoco/hopper"
            )
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} must not be negative")
        of_tasks = {
            name: getattr(self.actors, name)
            for name in ("evaluate_of", "generate_of", "teacher_of", "demonstration_steps_of")
        }
        for setting, by_task in of_tasks.items():
            for task in by_task:
                if task not in self.tasks:
                    raise ValueError(
                        f"actors.{setting} names task {task!r}, run {self.name} has"
                        f" {', '.join(self.tasks)}; name one of these"
                    )
        if self.replay.mix.row_tokens > self.model.context_tokens:
            raise ValueError(
                f"rows of {self.replay.mix.row_tokens} tokens are longer than the model's context"
                f" of {self.model.context_tokens}; lower replay.mix.row_tokens or raise"
                " model.context_tokens"
            )
        if self.learner.num_learners > self.replay.mix.rows:
            raise ValueError(
                f"learner.num_learners is {self.learner.num_learners} and a batch has"
                f" {self.replay.mix.rows} rows: each needs one; lower learner.num_learners or raise"
                " replay.mix.rows"
            )
        limiter, mix = self.replay.limiter, self.replay.mix
        read_tokens = (
            min(self.actors.play_from, self.learner.num_updates) * mix.rows * mix.row_tokens
        )
        allowed_tokens = limiter.slack_tokens + limiter.warmup_tokens * (
            limiter.reads_per_inserted_token or 0.0
        )
        if limiter.reads_per_inserted_token is not None and read_tokens > allowed_tokens:
            raise ValueError(
                f"until actors.play_from, {self.actors.play_from}, the learner reads"
                f" {read_tokens:,} tokens and replay may let it read no more than"
                f" {allowed_tokens:,.0f} before anyone plays: it could wait forever; add --set"
                f" replay.limiter.slack_tokens={read_tokens} or --set"
                " replay.limiter.reads_per_inserted_token=null"
            )
