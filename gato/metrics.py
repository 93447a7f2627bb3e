"""Records of what happened, stored as sums and counts so that they merge right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gato.version import Version


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean as sum and count: Mean(3.0, 3) + Mean(2.0, 1) has the value 1.25."""

    total: float = 0.0
    count: int = 0

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Episodes of one task, played on fixed seeds by one version of the weights."""

    task: str
    version: Version
    learner_step: int
    """Updates the learner had made when it published this version."""
    returns: tuple[float, ...] = ()
    """Raw return of each episode."""
    num_cut: int = 0
    """Episodes that were cut off before their end, with the return that they had by then. After the
    training none is."""
    successes: tuple[bool, ...] = ()
    """Whether each episode solved the task; empty if its environment does not say."""
    measures: Mapping[str, Mean] = field(default_factory=dict[str, Mean])
    """Of records that were held out, by name (`actors.records.marks`): accuracy by kind of
    question, with that of the most frequent answer, exact captions, bits per byte."""
    env_steps: int = 0
    wall_s: float = 0.0
    failed: str | None = None
    """Why it has no returns; a failed evaluation is reported as failed and never averaged away."""
    worker: str = ""
    warnings: tuple[str, ...] = ()
    """What its tokens lost of the observations (`gato.compatibility.coverage`), one line for each
    problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """What one worker did in one assignment."""

    worker: str
    role: str
    """evaluate, generate, demonstrate or relabel."""
    task: str
    version: Version | None
    episodes: int
    env_steps: int
    wall_s: float
    wait_s: float = 0.0
    """Time spent waiting for replay to accept episodes (back-pressure)."""
    refused: Mapping[str, int] = field(default_factory=dict[str, int])
    """Episodes that replay rejected, by reason."""
    kept: int = 0
    """Episodes that the worker keeps until replay takes them, those of earlier assignments
    included."""
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    """Episodes whose environment broke, by reason."""
    returns: Mean = field(default_factory=Mean)
    failed: str | None = None
    """Why the assignment ended early."""
    node: str = ""
    """Name of the machine that it ran on; empty if that is not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentProgress:
    """How far one worker is with an assignment that takes long; its `WorkerReport` follows at the
    end."""

    worker: str
    role: str
    task: str
    version: Version | None
    """Of the weights that play; None if a teacher demonstrates."""
    episodes: int
    """That have ended so far."""
    env_steps: int
    """So far; of held-out records, those that were answered."""
    wall_s: float
    """Since it was assigned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerReport:
    """What the learner did since its last report."""

    step: int
    """Updates made since the run began."""
    num_updates: int
    """Updates the run will make in all."""
    version: Version
    loss: Mean
    loss_by_task: Mapping[str, Mean] = field(default_factory=dict[str, Mean])
    learning_rate: float
    gradient_norm: float
    tokens: int
    """Tokens trained on since the last report, without padding."""
    wall_s: float
    wait_s: float
    """Part of `wall_s` in which the learner had no batch."""
    blocked_s: float = 0.0
    """Part of `wall_s` spent publishing weights and saving checkpoints."""
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """`wall_s` by what it was spent on: data, forward, backward, optimiser, publish, checkpoint."""
    accuracy_by_task: Mapping[str, Mean] = field(default_factory=dict[str, Mean])
    """Share of targets whose most probable id is right, in the last update of the report."""
    norm_by_part: Mapping[str, float] = field(default_factory=dict[str, float])
    """The gradient's norm in each part of the model, before clipping, in the last update."""
    mfu: float = 0.0
    """Model FLOPs of the updates by those that the device's products could have made in `wall_s`
    (Chowdhery et al. 2022, appendix B); the latter measured when the learner began."""
    memory_bytes: int = 0
    """The most that the learner has held so far: of its process, or of the GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """A number of episodes, and their steps."""

    episodes: int
    steps: int

    def __add__(self, other: Amount) -> Amount:
        return Amount(episodes=self.episodes + other.episodes, steps=self.steps + other.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayStats:
    """The state of replay at one moment."""

    episodes: Mapping[str, int]
    """Episodes stored, by task."""
    steps: int
    inserted_tokens: int
    """Tokens of all episodes ever inserted."""
    read_tokens: int
    """Also those that were read beside the ratio: in a pause, or while writers had no room."""
    stored_bytes: int
    capacity_bytes: int
    refused: Mapping[str, int] = field(default_factory=dict[str, int])
    """Episodes rejected at ingest, by reason."""
    duplicates: int = 0
    evicted: int = 0
    """Episodes that made room for others, since replay was opened."""
    left_out: Mapping[str, Mapping[str, Amount]] = field(
        default_factory=dict[str, Mapping[str, Amount]]
    )
    """What is stored but never sampled, by task and reason: filters, staleness, tables."""
    sources: Mapping[str, Mapping[str, Amount]] = field(
        default_factory=dict[str, Mapping[str, Amount]]
    )
    """What is stored by task and kind of source: agent, teacher, file."""
    writers_waiting: int = 0
    readers_waiting: int = 0
    may_insert: bool = True
    """Whether the limiter lets writers insert now."""
    paused: bool = False
    """Whether the limiter is switched off for now."""
    who_waits: str = ""
    """Whom the limiter holds back, and by how many tokens."""
    owed_tokens: float = 0.0
    """Tokens by which readers are behind the limiter's ratio; negative: ahead of it."""
    incarnation: int = 0
    """How often replay was opened on this folder."""

    @property
    def fill(self) -> float:
        """Stored share of the capacity, 0 to 1."""
        return self.stored_bytes / self.capacity_bytes
