"""One run from its start to its end in this process, on a Ray that it is connected to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from rich.console import Console

from actors.teachers.resolve import has_teacher, longest_play
from cluster.control.build_run import scales_of
from cluster.journal.writer import JournalWriter
from cluster.monitor.format import literal
from cluster.monitor.scores import Scale
from cluster.runs.config import RunConfig
from cluster.runs.data import datasets
from cluster.runs.data.dataset_import import UNFILTERED, unread_lines
from cluster.runs.folder import RunFolder
from cluster.runs.resolve import layout_of, tasks_of
from cluster.supervision.best import BestCheckpoint, read_best
from cluster.supervision.launch import launch
from cluster.supervision.scheduler import Scheduler
from cluster.supervision.supervisor import Supervisor
from cluster.supervision.supply import Supply, reachable, supply_of
from cluster.supervision.training import Ended, keep_checkpoint
from gato.sequence import StepLayout
from gato.serialization import to_plain


class Session:
    """A run between its journal's opening and its closing.

    session = Session(folder, journal, on_cluster=False)
    session.prepare(console)
    ended, reason = session.run()       # session.stop() from another thread ends it
    """

    def __init__(self, folder: RunFolder, journal: JournalWriter, *, on_cluster: bool) -> None:
        self.folder = folder
        self.journal = journal
        self.config: RunConfig = folder.config()
        self._on_cluster = on_cluster
        self._sets = [datasets.find(name) for name in self.config.data]
        self._data_returns = datasets.mean_returns(
            self._sets, self.config.replay.mix.min_expert_fraction
        )
        self.scales: Mapping[str, Scale] = scales_of(self.config, self._data_returns)
        self._supervisor: Supervisor | None = None
        self._stopped: str | None = None
        """Why."""

    def keep_scales(self) -> None:
        """Write where 0 and 1 of the normalised returns are, for those who look at the run."""
        (self.folder.path / "scales.json").write_text(
            json.dumps({name: to_plain(scale) for name, scale in self.scales.items()})
        )

    def prepare(self, console: Console) -> None:
        """Start the run's parts, or take over those that run, and hand in the data sets. Raises
        ValueError or OSError if the weights that the run begins with cannot be kept."""
        config, tasks = self.config, tasks_of(self.config)
        if config.initial_weights:
            from cluster.control.initial_weights import keep_initial  # imports torch

            keep_initial(self.folder, config)
        parts = launch(
            config,
            self.folder.path,
            on_cluster=self._on_cluster,
            teacher_returns={name: scale.teacher_return for name, scale in self.scales.items()},
        )
        self._parts = parts
        for data in self._sets:
            datasets.hand_in(data, parts.fill, console)
        if self._sets:
            stats = parts.replay.stats()
            for line in unread_lines(stats.left_out, stats.episodes):
                console.print(
                    f"[yellow]not read:[/yellow] {literal(line)} ({UNFILTERED} reads all)",
                    highlight=False,
                )
        teachable = [
            n for n, task in tasks.items() if n in config.actors.teacher_of or has_teacher(task)
        ]
        recorded = [name for name, task in tasks.items() if not task.has_environment]
        stored = parts.replay.demonstration_steps()
        scheduler = Scheduler(
            config.actors,
            list(tasks),
            demonstration_steps=stored,
            teachable=teachable,
            has_data=list(self._data_returns),
            longest={
                name: steps
                for name, task in tasks.items()
                if name not in config.actors.teacher_of and name not in self._data_returns
                if (steps := longest_play(task)) is not None
            },
            recorded=recorded,
            seed=config.seed,
            # Each assignment has a report in the journal.
            used_seeds=max(0, self.journal.last_number - 1) * config.actors.num_envs,
        )
        config = self._with_reachable_limiter(
            supply_of(
                config.actors, dict.fromkeys(tasks, 0) | stored,
                teachable=teachable, has_data=list(self._data_returns), recorded=recorded,
            ),
            console,
        )  # fmt: skip
        self._supervisor = Supervisor(
            config, parts, self.journal, scheduler, keep=self.folder.change_config,
            best=BestCheckpoint(
                self.journal, list(tasks), self.scales, partial(keep_checkpoint, parts.learner),
                so_far=read_best(self.folder.path / "checkpoints"),
            ),
        )  # fmt: skip
        if self._stopped is not None:
            self._supervisor.stop(self._stopped)

    def _with_reachable_limiter(self, supply: Supply, console: Console) -> RunConfig:
        """The settings, whose limiter does not wait for what never comes."""
        config, replay, tasks = self.config, self._parts.replay, tasks_of(self.config)
        layout = layout_of(config, tasks, self.folder.path)
        limiter, notes = reachable(
            config,
            supply,
            coming_tokens=sum(
                supply.steps[name] * StepLayout(task, layout).tokens_per_step
                for name, task in tasks.items()
            ),
            inserted_tokens=replay.stats().inserted_tokens,
        )
        if limiter != config.replay.limiter:
            self.config = self.folder.change_config(
                lambda before: replace(before, replay=replace(before.replay, limiter=limiter))
            )
            replay.reconfigure(self.config.replay)
        for note in notes:
            console.print(f"[yellow]note:[/yellow] {literal(note)}", highlight=False)
        return self.config

    def stop(self, why: str = "") -> None:
        """End the run: the learner saves and publishes, the workers end what they do."""
        self._stopped = why
        if self._supervisor is not None:
            self._supervisor.stop(why)

    def run(self) -> tuple[Ended, str]:
        """Supervise the run to its end: how it ended, and why if it failed."""
        assert self._supervisor is not None, "prepare comes first"
        try:
            return self._supervisor.run()
        finally:
            self._parts.replay.close()
