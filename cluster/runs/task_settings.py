"""Settings that follow from a run's tasks: weights, demonstrations, rows, updates, the limiter.

A task asks for a number of demonstrations, and for a number of its steps to be trained on. The rest
is arithmetic: a task's weight is the number of rows that its steps fill, the updates are all rows
by those of a batch, and the limiter's slack is what lets all wanted demonstrations in. Tokens of a
step, the teacher's speed and the spread of its returns are the task's; docs/adr/0048 says where the
constants come from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from actors.tasks.resolve import resolve_tasks
from actors.tasks.text_encoder import text_encoder
from actors.teachers.resolve import teacher_spread
from cluster.runs.config import RunConfig
from gato.sequence import StepLayout
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.rate_limiter import LimiterConfig
from replay.sampling.config import TaskMix, least_steps

TEACHER_STEPS_PER_S: Mapping[str, float] = {
    "mujoco": 4000.0,
    "atari": 1000.0,
    "dm-control": 800.0,
    "metaworld": 1000.0,
}
"""Steps of a teacher in four environments on one core, by family. Those of robots, games and
Meta-World were measured (2,300 to 10,700, 540 to 1,450, 1,400 beside a training); the other is a
guess, rather too low."""
OTHER_STEPS_PER_S = 300.0
MAX_TEACHER_S = 300.0
"""Of one core, for the demonstrations of one task."""
DEMONSTRATION_STEPS = 80_000
"""Wanted of a teacher whose returns do not vary."""
TIMES_READ = 5.0
"""How often each demonstrated step is trained on."""
LONG_STEP_TOKENS = 24
"""Longer steps are trained on less often, by the root of their tokens: a task of long steps would
else take most of the time."""
RANDOM_SHARE = 0.3
"""Of the steps in every second demonstration of a teacher with discrete actions: what a rule's
paddle never does, a student's does, and it must have seen what helps then (docs/log.md)."""
RELABEL_SHARE = 0.5
"""Of the workers' time, if other roles leave as much: the agent plays, and the teacher says what it
would have done."""
RELABEL_FROM = 0.15
"""Of the updates: a novice's games are as long as an expert's (docs/log.md)."""
EVALUATE_EVERY_S = 30.0
"""Of a task, for each task of the run: an evaluation takes seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNeeds:
    """What one task asks for."""

    name: str
    tokens_per_step: int
    observation_tokens: int
    spread: float
    """Of the teacher's returns: their standard deviation by its mean above random play, 0 to 1."""
    teacher_steps_per_s: float
    demonstration_steps: int
    trained_steps: int
    """Steps, not all different, that the learner reads in the run."""

    def steps_in(self, row_tokens: int) -> int:
        """Whole steps of a row."""
        return max(1, row_tokens // self.tokens_per_step)

    @property
    def teacher_s(self) -> float:
        """Seconds of one core that the demonstrations take."""
        return self.demonstration_steps / self.teacher_steps_per_s


def needs_of(task: Task, layout: TokenLayout, *, teacher: str = "") -> TaskNeeds:
    """What a task asks for. `teacher`: its spec, where it is not the one that ships."""
    steps = StepLayout(task, layout)
    spread = teacher_spread(task, teacher)
    spread = 0.25 if spread is None else min(spread, 1.0)
    speed = TEACHER_STEPS_PER_S.get(task.family, OTHER_STEPS_PER_S)
    wanted = DEMONSTRATION_STEPS * (1.0 + spread)
    less_often = min(1.0, (LONG_STEP_TOKENS / steps.tokens_per_step) ** 0.5)
    demonstrations = int(min(wanted, MAX_TEACHER_S * speed)) // 1000 * 1000
    return TaskNeeds(
        name=task.name,
        tokens_per_step=steps.tokens_per_step,
        observation_tokens=steps.num_observation_tokens,
        spread=spread,
        teacher_steps_per_s=speed,
        demonstration_steps=demonstrations,
        trained_steps=int(TIMES_READ * less_often * demonstrations),
    )


def all_needs(config: RunConfig, tasks: Mapping[str, Task] | None = None) -> list[TaskNeeds]:
    """What each of the run's tasks asks for, in order. Demonstrations are those of the settings.

    `tasks`: the run's, if they are resolved already.
    """
    wanted = config.actors.demonstration_steps_of
    found = [
        needs_of(task, _layout(config), teacher=config.actors.teacher_of.get(name, ""))
        for name, task in (tasks or resolve_tasks(*config.tasks)).items()
    ]
    return [
        replace(of, demonstration_steps=wanted.get(of.name, config.actors.demonstration_steps))
        for of in found
    ]


def fit_rows(config: RunConfig, tasks: Mapping[str, Task]) -> RunConfig:
    """The run on these tasks, with rows that hold a window of each, and no fewer tokens than they
    need. The number of rows, the updates and the limiter stay; settings of single tasks are
    lost."""
    needs = [needs_of(task, _layout(config)) for task in tasks.values()]
    mix = replace(config.replay.mix, tasks=dict.fromkeys(tasks, _common(config)))
    row_tokens = max(
        of.tokens_per_step * least_steps(mix, task)
        for of, task in zip(needs, tasks.values(), strict=True)
    )
    mix = replace(mix, row_tokens=row_tokens)
    actors = replace(
        config.actors, evaluate_of={}, generate_of={}, teacher_of={}, demonstration_steps_of={}
    )
    return replace(
        config,
        tasks=tuple(tasks),
        model=replace(
            config.model,
            context_tokens=row_tokens,
            max_observation_tokens=max(
                config.model.max_observation_tokens, *(of.observation_tokens for of in needs)
            ),
        ),
        actors=actors,
        replay=replace(config.replay, mix=mix),
    )


def _layout(config: RunConfig) -> TokenLayout:
    """The model's layout, with the encoder of text, which some task may show."""
    return replace(config.model.layout, text=text_encoder(config.text))


def _common(config: RunConfig) -> TaskMix:
    """What the settings of the run's single tasks agree on: the window."""
    windows = {of.window_steps for of in config.replay.mix.tasks.values()}
    return TaskMix(window_steps=windows.pop() if len(windows) == 1 else None)


def fit_to_tasks(
    config: RunConfig,
    tasks: Mapping[str, Task],
    *,
    more_often: Mapping[str, float] | None = None,
) -> RunConfig:
    """The run on these tasks, with settings that follow from them.

    The size of the model, the tokens of a batch, the window and the share of prompts stay; rows
    and the context are never shorter than they were. Settings of single tasks are lost.
    `more_often`: factors of how often the steps of some tasks are trained on.
    """
    before, fitted = config, fit_rows(config, tasks)
    needs = [needs_of(task, _layout(config)) for task in tasks.values()]
    row_tokens = max(before.replay.mix.row_tokens, fitted.replay.mix.row_tokens)
    rows = max(1, round(before.replay.mix.rows * before.replay.mix.row_tokens / row_tokens))
    factors = more_often or {}
    filled = {
        of.name: factors.get(of.name, 1.0) * of.trained_steps / of.steps_in(row_tokens)
        for of in needs
    }
    least, each = min(filled.values()), _common(config)
    num_updates = max(100, -(-int(sum(filled.values()) / rows) // 100) * 100)
    mix = replace(
        fitted.replay.mix,
        rows=rows,
        row_tokens=row_tokens,
        # A teacher does the same in a game that goes badly as in one that goes well: of Demon
        # Attack's, three games in four are below 80 % of its best.
        min_expert_fraction=config.replay.mix.min_expert_fraction if config.data else None,
        tasks={
            name: replace(each, weight=round(num_rows / least, 2))
            for name, num_rows in filled.items()
        },
    )
    # Uncoupled for now: a config is checked as it is made.
    limiter = replace(config.replay.limiter, reads_per_inserted_token=None)
    fitted = replace(
        fitted,
        model=replace(fitted.model, context_tokens=max(before.model.context_tokens, row_tokens)),
        learner=replace(
            config.learner,
            num_updates=num_updates,
            publish_every=min(500, max(50, num_updates // 40)),
        ),
        actors=replace(
            fitted.actors,
            demonstration_random_share=0.0 if config.data else RANDOM_SHARE,
            demonstration_steps_of={of.name: of.demonstration_steps for of in needs},
            evaluate_every_s=EVALUATE_EVERY_S * max(1, len(needs) - 1),
        ),
        replay=replace(config.replay, mix=mix, limiter=limiter),
    )
    return with_derived(without_derived(fitted), tasks)


def with_derived(
    config: RunConfig, tasks: Mapping[str, Task] | None = None, *, told: Collection[str] = ()
) -> RunConfig:
    """The run with what follows from its other settings: the limiter, and how much relabelled play
    there is from when on. A run with data learns from that.

    Each inserted token is read half as often as the demonstrations alone would be, so that the
    agent may add as much as they are. The slack lets all of them in before the first update, and
    all updates be made without the agent's play: what is wanted is never held back.

    Args:
        tasks: The run's, if they are resolved already.
        told: Paths of settings that the user gave, which stay.
    """
    mix, limiter, actors = config.replay.mix, config.replay.limiter, config.actors
    wanted = [
        (
            StepLayout(task, _layout(config)).tokens_per_step,
            actors.demonstration_steps_of.get(name, actors.demonstration_steps),
        )
        for name, task in (tasks or resolve_tasks(*config.tasks)).items()
    ]
    read_tokens = config.learner.num_updates * mix.rows * mix.row_tokens
    wanted_tokens = max(1, sum(tokens * steps for tokens, steps in wanted))
    first_tokens = sum(
        tokens * min(actors.first_demonstration_steps, steps) for tokens, steps in wanted
    )
    ratio = max(1.0, round(read_tokens / (2 * wanted_tokens), 2))
    made = LimiterConfig(
        # Data is there before the first update, however little it is.
        warmup_tokens=1 if config.data else first_tokens // 2,
        reads_per_inserted_token=ratio,
        slack_tokens=int(1.1 * max(read_tokens, ratio * wanted_tokens)),
    )
    kept = {
        name: getattr(limiter, name)
        for name in LimiterConfig.__dataclass_fields__
        if _is_told(f"replay.limiter.{name}", told)
    }
    made = replace(made, **kept)
    if not _is_told("actors.relabel_share", told) and not config.data:
        others = actors.generate_share + actors.demonstrate_share
        actors = replace(actors, relabel_share=max(0.0, min(RELABEL_SHARE, 1.0 - others)))
    if not _is_told("actors.play_from", told):
        play_from = int(RELABEL_FROM * config.learner.num_updates) if actors.relabel_share else 0
        # No later than a limiter of the user's lets the learner get before the agent plays.
        if made.reads_per_inserted_token is not None:
            allowed = made.slack_tokens + made.warmup_tokens * made.reads_per_inserted_token
            play_from = min(play_from, int(allowed / (mix.rows * mix.row_tokens)))
        actors = replace(actors, play_from=play_from)
    return replace(config, actors=actors, replay=replace(config.replay, limiter=made))


def _is_told(path: str, told: Collection[str]) -> bool:
    """Whether a setting was given, alone or in a group, as `replay.limiter={...}`."""
    names = path.split(".")
    return any(".".join(names[:count]) in told for count in range(1, len(names) + 1))


def has_derived(config: RunConfig) -> bool:
    """Whether the run's limiter and relabelled play are those that follow from its other settings,
    as `with_derived` makes them: then they follow from changed settings as well."""
    return config.actors.relabel_share > 0.0 and not config.data and with_derived(config) == config


def without_derived(config: RunConfig) -> RunConfig:
    """The fitted run without what `with_derived` adds, so that the user's settings can be made:
    shares are checked together, and so are `play_from` and the limiter."""
    return replace(config, actors=replace(config.actors, play_from=0, relabel_share=0.0))
