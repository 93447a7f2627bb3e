"""What batches are made of: settings of the mixture, of its tables and of its tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from gato.sequence import StepLayout
from gato.task import Task
from replay.sampling.selector_names import selector_from_name
from replay.sampling.selectors import OrderedSelector


@dataclass(frozen=True, slots=True, kw_only=True)
class TableConfig:
    """A view of the store, and how it is drawn from. An episode may be in several tables."""

    episodes: Literal["all", "demonstrations", "agent", "relabelled"] = "all"
    """Which episodes are in it: all; those of teachers and files; the agent's own; or of these only
    the relabelled ones."""
    selector: str = "uniform"
    """How they are drawn, as `replay.sampling.selector_names.selector_from_name` reads it."""
    share: float = 1.0
    """Share of a batch's rows, relative to the other tables. A table with nothing to draw leaves
    its rows to them."""
    max_times_sampled: int | None = None
    """How often an episode may be drawn; None: any number of times. Every draw of an episode
    counts, so such a table must be the only one."""

    def __post_init__(self) -> None:
        if self.episodes not in ("all", "demonstrations", "agent", "relabelled"):
            raise ValueError(
                f"episodes {self.episodes!r} must be 'all', 'demonstrations', 'agent' or"
                " 'relabelled'"
            )
        selector_from_name(self.selector)
        if not 0 <= self.share < math.inf:
            raise ValueError(f"share {self.share} must be at least 0")
        if self.max_times_sampled is not None and self.max_times_sampled < 1:
            raise ValueError(
                f"max_times_sampled {self.max_times_sampled} must be at least 1; None sets no limit"
            )


def _one_table() -> dict[str, TableConfig]:
    return {"all": TableConfig()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMix:
    """How one task takes part in the mixture."""

    weight: float | None = None
    """Share of the rows, relative to the other tasks. None: the task's own weight."""
    window_steps: int | None = None
    """Steps of each window. None: as many whole steps as fit in a row; one, if the task writes
    text: each record is read by itself, as it is evaluated."""

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 <= self.weight < math.inf:
            raise ValueError(f"weight {self.weight} must be at least 0 and finite")
        if self.window_steps is not None and self.window_steps < 1:
            raise ValueError(f"window_steps {self.window_steps} must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class MixConfig:
    """Settings of the mixture. The fractions of prompts are the paper's (section 2.3)."""

    rows: int
    """Rows of a batch."""
    row_tokens: int
    """Tokens of a row, at most `model.context_tokens`."""
    prompt_fraction: float = 0.25
    """Share of the rows whose windows follow a prompt from an episode of the same task and source;
    records of text have none."""
    prompt_episode: Literal["another", "any"] = "another"
    """another: never the window's own episode, unless its source has no other. any: each episode of
    the source is equally likely. A prompt from the window's own episode consists of steps before
    the window, so the two never overlap (ADR 8)."""
    prompt_end_fraction: float = 0.5
    """Share of the prompts taken from their episode's end; the others lie anywhere in it."""
    prompt_steps: int | None = None
    """Steps of a prompt. None: half of what fits in a row. The paper does not say how long a prompt
    is."""
    loss_on_prompt: bool = True
    loss_on_questions: bool = False
    """Whether the loss also counts the questions of visual question answering; answers, captions
    and passages always count, and so does the text that an environment shows."""
    return_fraction: float = 0.75
    """Of a return-conditioned model: share of the rows whose steps tell their return-to-go. The
    others do not, so that the model also acts without a target return."""
    tasks: Mapping[str, TaskMix] = field(default_factory=dict[str, TaskMix])
    tables: Mapping[str, TableConfig] = field(default_factory=_one_table)
    """By name. Each row is drawn from one table, by its share."""
    max_age_versions: int | None = None
    """The agent's episodes are drawn only while at most this many versions of the weights are newer
    than theirs. None: however old they are."""
    age_half_life_versions: float | None = None
    """Newer versions after which an episode of the agent is half as likely. None: age does not
    count."""
    min_agent_score: float | None = 0.8
    """Self-imitation: the agent's own episodes are drawn only if their normalised return (0: random
    policy, 1: the teacher) reaches this; never for a task without references. None: all are drawn.
    Relabelled ones are drawn whatever their return: the loss is on the teacher's actions."""
    min_demonstration_score: float | None = None
    """The same for episodes of teachers and files."""
    min_expert_fraction: float | None = 0.8
    """The paper's filter: episodes of teachers and files are drawn only if their return is at least
    this fraction of the task's expert return, the best windowed average of the stored ones
    (`replay.sampling.return_filter`). Episodes with labels are drawn whatever their return. None:
    no such filter."""

    @property
    def counts_draws(self) -> bool:
        """Whether a table limits how often an episode is drawn."""
        return any(table.max_times_sampled is not None for table in self.tables.values())

    def __post_init__(self) -> None:
        if self.prompt_steps is not None and self.prompt_steps < 1:
            raise ValueError(
                f"prompt_steps {self.prompt_steps} must be at least 1; for no prompts set"
                " prompt_fraction=0"
            )
        if self.rows < 1 or self.row_tokens < 2:
            raise ValueError(f"a batch of {self.rows} rows of {self.row_tokens} tokens is empty")
        if not 0.0 <= self.return_fraction <= 1.0:
            raise ValueError(f"return_fraction {self.return_fraction} must be in [0, 1]")
        if not (0.0 <= self.prompt_fraction <= 1.0 and 0.0 <= self.prompt_end_fraction <= 1.0):
            raise ValueError(
                f"prompt_fraction {self.prompt_fraction} and prompt_end_fraction"
                f" {self.prompt_end_fraction} must be in [0, 1]"
            )
        if self.prompt_episode not in ("another", "any"):
            raise ValueError(f"prompt_episode {self.prompt_episode!r} must be 'another' or 'any'")
        if self.min_expert_fraction is not None and not 0.0 < self.min_expert_fraction <= 1.0:
            raise ValueError(
                f"min_expert_fraction {self.min_expert_fraction} must be in (0, 1]; None reads all"
            )
        if not any(table.share > 0 for table in self.tables.values()):
            raise ValueError(
                "no table has a share above 0, so no row could be drawn; give one a share"
            )
        counted = [
            name for name, table in self.tables.items() if table.max_times_sampled is not None
        ]
        if counted and len(self.tables) > 1:
            raise ValueError(
                f"table {counted[0]!r} has max_times_sampled, which the draws of other tables would"
                " use up; make it the only one"
            )
        if self.max_age_versions is not None and self.max_age_versions < 0:
            raise ValueError(
                f"max_age_versions {self.max_age_versions} must be at least 0; None reads all"
            )
        if (
            self.age_half_life_versions is not None
            and not 0 < self.age_half_life_versions < math.inf
        ):
            raise ValueError(
                f"age_half_life_versions {self.age_half_life_versions} must be above 0; None weighs"
                " none"
            )
        ordered = [
            name
            for name, table in self.tables.items()
            if isinstance(selector_from_name(table.selector), OrderedSelector)
        ]
        if ordered and self.age_half_life_versions is not None:
            raise ValueError(
                f"table {ordered[0]!r} draws in an order ({self.tables[ordered[0]].selector}),"
                " which no age_half_life_versions can weigh; set it to None, or a selector that"
                " draws by weight"
            )


def task_settings(config: MixConfig, task: Task) -> TaskMix:
    """The settings of a task, with the length of its windows where that is the task's own."""
    settings = config.tasks.get(task.name, TaskMix())
    if task.writes_text and settings.window_steps is None:
        return replace(settings, window_steps=1)
    return settings


def task_weight(config: MixConfig, task: Task) -> float:
    """Share of the rows of a task, relative to the other tasks."""
    settings = config.tasks.get(task.name, TaskMix())
    return task.weight if settings.weight is None else settings.weight


def least_steps(config: MixConfig, task: Task) -> int:
    """Steps of a task that a row must have room for: a window, and a prompt if there are prompts;
    what writes text has none."""
    is_prompted = config.prompt_fraction > 0 and not task.writes_text
    prompt = (config.prompt_steps or 1) if is_prompted else 0
    return (task_settings(config, task).window_steps or 1) + prompt


def check_tasks(
    config: MixConfig, layouts: Mapping[str, StepLayout], tasks: Mapping[str, Task]
) -> None:
    """Raises ValueError if the settings do not fit the tasks of a run."""
    unknown = set(config.tasks) - set(tasks)
    if unknown:
        raise ValueError(
            f"the mixture has settings for {sorted(unknown)[0]!r}, which is not a task of this run"
        )
    for name, task in tasks.items():
        if task.references is None and config.min_demonstration_score is not None:
            raise ValueError(
                f"min_demonstration_score {config.min_demonstration_score} is of a normalised"
                f" return, and task {name} has no references to normalise by; set"
                " min_demonstration_score=null"
            )
        steps = least_steps(config, task)
        needed = steps * layouts[name].tokens_per_step
        if task_weight(config, task) and needed > config.row_tokens:
            raise ValueError(
                f"{steps} steps of {name} (a window, with its prompt) take {needed} tokens, a row"
                f" has {config.row_tokens}; raise row_tokens, lower window_steps, or set"
                " prompt_fraction=0"
            )
