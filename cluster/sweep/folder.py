"""The sweeps on this machine: a folder each, next to the runs, with a folder for each trial."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from actors.tasks.text_encoder import BYTES
from cluster.runs.folder import RunFolder, runs_root
from cluster.runs.folder_name import NAME, numbered
from cluster.sweep.journal import SweepJournal
from cluster.sweep.plan import SweepConfig
from cluster.sweep.state import TrialState
from gato.files import damaged, read_json
from gato.serialization import from_plain, to_plain

PLAN = "sweep.json"
FIX = "start the sweep again under another name"


def sweeps_root() -> Path:
    """Where sweeps lie."""
    return runs_root() / "sweeps"


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """The folder of one sweep. Only its owner can read it.

    folder = SweepFolder.create(sweep)     # takes demo-2 if there is a demo
    folder.journal.append(...)
    run = folder.trial_run(trial)          # a run's folder, which `gato evaluate` takes
    """

    path: Path

    @classmethod
    def create(cls, sweep: SweepConfig) -> SweepFolder:
        """A new folder with the sweep's settings in it. Raises ValueError if it cannot be made."""
        if not NAME.fullmatch(sweep.name):
            raise ValueError(
                f"{sweep.name!r} cannot name a sweep; use letters, digits, dots, dashes and"
                " underscores, at most 64"
            )
        name = _take_name(sweep.name)
        folder = cls(sweeps_root() / name)
        base = sweep.base
        if base.text != BYTES:
            shutil.copyfile(base.text, folder.path / "text.model")
            base = replace(base, text=str(folder.path / "text.model"))
        folder.write_plan(replace(sweep, name=name, base=base))
        return folder

    def write_plan(self, sweep: SweepConfig) -> None:
        """Keep the settings of the sweep: whole, or not at all."""
        draft = self.path / f"{PLAN}.{os.getpid()}.tmp"
        draft.write_text(json.dumps(to_plain(sweep), indent=1) + "\n")
        os.replace(draft, self.path / PLAN)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def journal(self) -> SweepJournal:
        return SweepJournal(self.path)

    def plan(self) -> SweepConfig:
        """The settings of the sweep. Raises ValueError, which names the file, if it is damaged."""
        file = self.path / PLAN
        plain = read_json(file, fix=FIX)
        try:
            return from_plain(SweepConfig, plain)
        except (TypeError, ValueError) as problem:
            raise damaged(file, problem, fix=FIX) from problem

    @contextmanager
    def alone(self) -> Generator[None]:
        """Carry the sweep out in this process alone. Raises ValueError if another one does."""
        with (self.path / "lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"sweep {self.name} is being carried out by another process; gato sweep show"
                    f" {self.name} shows how far it is"
                ) from None
            yield

    @property
    def is_active(self) -> bool:
        """Whether a process carries it out now."""
        try:
            with self.alone():
                return False
        except ValueError:
            return True

    # Trials

    def trial_path(self, number: int, generation: int) -> Path:
        """Where a generation of a trial lies: a run's folder."""
        return self.path / "trials" / f"{number}-{generation}"

    def make_trial(
        self, sweep: SweepConfig, trial: TrialState, *, checkpoint: Path | None = None
    ) -> None:
        """Make the folder of a trial's generation: whole, or not at all. One that is there stays,
        unless it goes on from a checkpoint: the process that made it was killed before it said so.

        Args:
            sweep: What it is a trial of.
            trial: With the settings that it is trained with.
            checkpoint: What it goes on from, which is copied.

        Raises:
            ValueError: The settings do not go together.
        """
        final = self.trial_path(trial.number, trial.generation)
        if final.is_dir() and checkpoint is None:
            return
        shutil.rmtree(final, ignore_errors=True)
        draft = self.path / "trials" / ".draft"
        shutil.rmtree(draft, ignore_errors=True)
        run = RunFolder.create(sweep.config_of(trial.settings, name=final.name), root=draft)
        scales = {name: to_plain(scale) for name, scale in sweep.scales.items()}
        (run.path / "scales.json").write_text(json.dumps(scales))
        if sweep.base.text != BYTES:
            shutil.copyfile(sweep.base.text, run.path / "text.model")
            run.change_config(lambda config: replace(config, text="text.model"))
        _link_stores(run.path / "replay", sweep)
        if checkpoint is not None:
            (run.path / "checkpoints").mkdir()
            shutil.copytree(checkpoint, run.path / "checkpoints" / checkpoint.name)
        elif sweep.base.initial_weights:
            from cluster.control.initial_weights import initial_of

            config = run.config()
            initial = initial_of(config)
            assert initial is not None
            initial.keep(run, config)
        run.set_state("stopped")
        run.path.rename(final)
        shutil.rmtree(draft, ignore_errors=True)

    def forget_checkpoints(self, number: int, generation: int) -> None:
        """Remove the checkpoints of a generation that nobody goes on from."""
        shutil.rmtree(self.trial_path(number, generation) / "checkpoints", ignore_errors=True)


def _take_name(wanted: str) -> str:
    """Make a sweep's folder, and return its name."""
    root = sweeps_root()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in numbered(wanted):
            with suppress(FileExistsError):
                (root / name).mkdir(mode=0o700)  # in one step: two starts never share a folder
                return name
        raise AssertionError("names have no end")
    except OSError as error:
        raise ValueError(
            f"cannot make {root / wanted} ({error.strerror}); set GATO_RUNS to another folder"
        ) from error


def _link_stores(replay: Path, sweep: SweepConfig) -> None:
    """Let the trial's folder have the stored episodes as a run has its replay: prompts are read
    from there."""
    if len(sweep.stores) == 1:
        replay.symlink_to(sweep.stores[0], target_is_directory=True)
        return
    replay.mkdir()
    for shard, store in enumerate(sweep.stores):
        (replay / f"shard-{shard}").symlink_to(store, target_is_directory=True)


def find_sweep(name: str | None) -> SweepFolder:
    """The sweep called `name`, or the newest. ValueError suggests the nearest name."""
    root = sweeps_root()
    plans = sorted(root.glob(f"*/{PLAN}"), key=lambda file: file.stat().st_mtime, reverse=True)
    if name is not None and (root / name / PLAN).is_file():
        return SweepFolder(root / name)
    if not plans:
        raise ValueError(f"there are no sweeps in {root}; start one with: gato sweep start")
    if name is None:
        return SweepFolder(plans[0].parent)
    names = [file.parent.name for file in plans]
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names[:8])}"
    raise ValueError(f"there is no sweep {name!r} in {root}; {hint}")
