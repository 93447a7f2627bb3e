"""A sweep as a value: the run that trials start from, what is varied, and how trials are judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from cluster.monitor.scores import Scale
from cluster.runs.config import RunConfig
from cluster.sweep.settings import (
    MOST_DRAWS,
    SWEEP_ROLE,
    SchedulerName,
    fitted_space,
    with_settings,
)
from cluster.sweep.space import Distribution, Value, parse

NEVER = 1 << 40
"""An interval that no training reaches: trials publish to nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepConfig:
    """Everything that makes one sweep, except where it is carried out."""

    name: str
    base: RunConfig
    """The run that each trial is, but for the settings that are varied."""
    words: tuple[str, ...]
    """What `gato start` is given for the base, such as ("demo", "--data", "poles"); empty if it is
    a file."""
    over: Mapping[str, str]
    """What each varied setting is drawn from, by path."""
    scheduler: SchedulerName
    reduction: int = 3
    """Of `asha`: at each rung about one of so many trials goes on, and the next rung comes after
    so many times the updates."""
    trials: int
    evaluate_every: int
    """Updates from one evaluation of a trial to the next."""
    episodes: int
    """Whole episodes of each task in an evaluation."""
    stores: tuple[str, ...]
    """Folders of the stored episodes, one for each shard. Empty until several data sets are
    merged."""
    scales: Mapping[str, Scale]
    cpus: int = 1
    """CPUs of a trial, and threads that it computes with."""
    gpus: int = 0

    def __post_init__(self) -> None:
        for name in ("trials", "evaluate_every", "episodes", "cpus"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.gpus < 0:
            raise ValueError(f"gpus is {self.gpus}, it must not be negative")
        updates = self.base.learner.num_updates
        if self.evaluate_every > updates:
            raise ValueError(
                f"a trial is evaluated every {self.evaluate_every} updates and ends after"
                f" {updates}; lower --evaluate-every or raise --updates"
            )
        if not self.over:
            raise ValueError(
                "nothing is varied; name a setting, such as --over learner.max_rate=log:1e-4:3e-3"
            )
        self._check_scheduler(updates)

    def _check_scheduler(self, updates: int) -> None:
        if self.scheduler == "asha":
            if self.reduction < 2:
                raise ValueError(f"--reduction {self.reduction} must be at least 2")
            if self.evaluate_every >= updates:
                raise ValueError(
                    f"asha stops trials before their end, and with --evaluate-every"
                    f" {self.evaluate_every} of {updates} updates each is evaluated only there;"
                    " lower --evaluate-every, or take --scheduler none"
                )
        if self.scheduler == "pbt":
            if self.trials < 2:
                raise ValueError(
                    "pbt needs a population: one trial copies another; give --trials 4 or more,"
                    " or take --scheduler none"
                )
            if self.evaluate_every >= updates:
                raise ValueError(
                    f"pbt changes settings after an evaluation, and with --evaluate-every"
                    f" {self.evaluate_every} of {updates} updates none comes before the end;"
                    " lower --evaluate-every"
                )

    @property
    def updates(self) -> int:
        """Updates of a whole trial."""
        return self.base.learner.num_updates

    @property
    def space(self) -> dict[str, Distribution]:
        """What is varied, checked against the base. Raises ValueError if a setting cannot be."""
        parsed = {path: parse(path, text) for path, text in self.over.items()}
        return fitted_space(self.base, parsed, self.scheduler)

    @property
    def data_returns(self) -> dict[str, float]:
        """The return that counts as score 1, by task."""
        return {name: scale.teacher_return for name, scale in self.scales.items()}

    def config_of(self, settings: Mapping[str, Value], *, name: str) -> RunConfig:
        """The run that a trial is: it reports each update, and saves when it is evaluated. Raises
        ValueError if the settings do not go together."""
        config = with_settings(self.base, settings)
        learner = replace(
            config.learner,
            report_every=1,
            publish_every=NEVER,
            checkpoint_every=self.evaluate_every,
            num_threads=self.cpus,
            # One trial copies the evaluated checkpoint of another, which may have a newer one.
            keep_checkpoints=max(
                config.learner.keep_checkpoints, 2 if self.scheduler == "pbt" else 1
            ),
        )
        shards = replace(config.replay, num_shards=max(1, len(self.stores)))
        return replace(config, name=name, learner=learner, replay=shards)


def draw_trials(sweep: SweepConfig) -> list[dict[str, Value]]:
    """The settings of each trial: different ones, that go together. The same for a seed.

    Raises:
        ValueError: The space has too few of them; the text says why the last draw was rejected.
    """
    space = sweep.space
    found: list[dict[str, Value]] = []
    for number in range(sweep.trials):
        why = ""
        for attempt in range(MOST_DRAWS):
            rng = np.random.default_rng([sweep.base.seed, SWEEP_ROLE, number, attempt])
            settings = {path: of.draw(rng) for path, of in space.items()}
            if settings in found:
                continue
            try:
                sweep.config_of(settings, name=sweep.name)
            except ValueError as problem:
                why = f"with {_shown(settings)}: {problem}"
                continue
            found.append(settings)
            break
        else:
            why = why or f"only {len(found)} trials differ; lower --trials to {len(found)}"
            raise ValueError(f"no settings for trial {number + 1} in {MOST_DRAWS} draws: {why}")
    return found


def _shown(settings: Mapping[str, Value]) -> str:
    return ", ".join(f"{path}={value}" for path, value in islice(settings.items(), 4))
