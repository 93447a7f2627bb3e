"""The runs on this machine: a folder each, with the run's settings in `config.yaml` and its state
in `run.json`."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal

from cluster.runs.folder_name import NAME, take_name
from cluster.runs.home import Home, read_home, write_home
from gato.files import damaged, read_json
from gato.processes import born, is_alive

if TYPE_CHECKING:
    from cluster.runs.config import RunConfig

State = Literal["starting", "running", "finished", "stopped", "failed"]
ShownState = Literal["starting", "running", "finished", "stopped", "failed", "dead"]
FIELDS: Mapping[str, tuple[type | UnionType, str]] = {
    "state": (str, "a text"),
    "supervisor_pid": (int | None, "a number or null"),
    "created_s": (int | float, "a number"),
    "reason": (str, "a text"),
    "supervisor_born": (str | None, "a text or null"),
    "id": (str, "a text"),
}
"""What `run.json` holds."""
OPTIONAL = ("reason", "supervisor_born", "id")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What `run.json` says of a run, at the moment it was read."""

    name: str
    created_s: float
    """Wall-clock time."""
    state: ShownState
    """`dead`: it was starting or running, but its supervisor is gone."""
    supervisor_pid: int | None
    reason: str = ""
    """Why it failed."""
    id: str = ""
    """Names the run's keys in Redis; empty in runs made before there were ids."""

    @property
    def is_active(self) -> bool:
        return self.state in ("starting", "running")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run.

    run = RunFolder.create(config)     # takes demo-2 if there is a demo
    run.change_config(lambda config: override(config, ["learner.num_updates=4000"]))
    """

    root: Path
    name: str

    @classmethod
    def create(
        cls,
        config: RunConfig,
        *,
        root: Path | str | None = None,
        run_id: str | None = None,
        is_exact: bool = False,
    ) -> RunFolder:
        """A new folder with the config in it, whole or not at all; its state is `starting`.

        It and its config have the config's name, else name-2, name-3..., unless `is_exact`.

        Raises:
            RunExists: The name is taken, and `is_exact`.
            ValueError: The name cannot name a folder, or the folder cannot be made.
        """
        base = runs_root(root)
        entry = {
            "id": run_id or secrets.token_hex(8),
            "created_s": time.time(),
            "state": "starting",
            "supervisor_pid": os.getpid(),
            "supervisor_born": born(os.getpid()),
            "reason": "",
        }

        def fill(draft: Path, name: str) -> None:
            run = cls(draft.parent, draft.name)
            run._write({"name": name, **entry})
            run._write_config(config, name=name)

        return cls(base, take_name(config.name, base, fill, is_exact=is_exact))

    @classmethod
    def create_view(
        cls, config: RunConfig, home: Home, *, root: Path | str | None = None
    ) -> RunFolder:
        """A folder for a run whose home is on another machine: what is needed to watch and steer
        it. The one that is there for this run is taken again."""
        for file in runs_root(root).glob("*/home.json"):
            known = read_home(file.parent)
            if known is not None and known.run_id == home.run_id and not known.is_here:
                run = cls(file.parent.parent, file.parent.name)
                write_home(run.path, home)
                run._write_config(config)
                return run
        run = cls.create(config, root=root, run_id=home.run_id)
        write_home(run.path, home)
        return run

    @property
    def path(self) -> Path:
        return self.root / self.name

    def info(self) -> RunInfo:
        """How the run stands now."""
        entry = self._read()
        state, pid = entry["state"], entry["supervisor_pid"]
        if self.home is not None and not self.home.is_here:
            pid = None  # the last that was heard of it
        elif state in ("starting", "running") and not is_alive(pid, entry.get("supervisor_born")):
            state = "dead"
        return RunInfo(
            name=self.name,
            created_s=entry["created_s"],
            state=state,
            supervisor_pid=pid,
            reason=entry.get("reason", ""),
            id=entry.get("id", ""),
        )

    def claim_id(self) -> str:
        """The run's id. A run that has none, or that was copied to another name, gets a new one."""
        entry = self._read()
        if not entry.get("id") or entry.get("name", self.name) != self.name:
            entry = {**entry, "name": self.name, "id": secrets.token_hex(8)}
            self._write(entry)
        return entry["id"]

    def set_state(self, state: State, *, reason: str = "") -> None:
        """Say how the run stands. While it is starting or running, the calling process is its
        supervisor."""
        pid = os.getpid() if state in ("starting", "running") else None
        entry = {
            **self._read(),
            "state": state,
            "reason": reason,
            "supervisor_pid": pid,
            "supervisor_born": None if pid is None else born(pid),
        }
        self._write(entry)

    def set_known_state(self, state: ShownState, *, reason: str = "") -> None:
        """Note what was last heard of a run whose home is on another machine."""
        self._write({**self._read(), "state": state, "reason": reason, "supervisor_pid": None})

    @property
    def home(self) -> Home | None:
        """Where the run lives, if it is on a cluster."""
        return read_home(self.path)

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    def config(self) -> RunConfig:
        """The settings that the run was started with, and is resumed with.

        Raises:
            ValueError: The file is missing or damaged; the text names it.
        """
        # Settings check themselves with numpy, which commands that only look at runs need not.
        from cluster.runs.config_file import config_from_plain, read_config

        if self.config_file.is_file():
            return read_config(self.config_file)
        fix = "put the file of a backup there, or start another run"
        plain = self._read().get("config")  # where runs kept it before they had a file for it
        if plain is None:
            raise damaged(self.config_file, "the file is missing", fix=fix)
        try:
            return config_from_plain(plain)
        except (TypeError, ValueError) as problem:
            raise damaged(self.path / "run.json", problem, fix=fix) from problem

    def change_config(self, change: Callable[[RunConfig], RunConfig]) -> RunConfig:
        """Change the settings that the run is resumed with, and return them. Of two changes at the
        same time neither is lost.

        Raises:
            ValueError: `change` refuses, or the file is damaged; nothing is changed then.
        """
        with (self.path / "config.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self.config()
            after = change(before)
            if after != before or not self.config_file.is_file():
                self._write_config(after)
            return after

    def _write_config(self, config: RunConfig, *, name: str | None = None) -> None:
        from cluster.runs.config_file import write_config

        write_config(replace(config, name=name or self.name), self.config_file)

    def _read(self) -> dict[str, Any]:
        file, fix = self.path / "run.json", "delete the folder or fix the file"
        entry = read_json(file, fix=fix)
        for name, (kind, said) in FIELDS.items():
            if name in OPTIONAL and name not in entry:
                continue
            if not isinstance(entry.get(name, FIELDS), kind):
                raise damaged(
                    file, f"{name} is {entry.get(name, 'missing')!r}, expected {said}", fix=fix
                )
        return entry

    def _write(self, entry: Mapping[str, Any]) -> None:
        draft = self.path / f"run.json.{os.getpid()}.tmp"
        draft.write_text(json.dumps(entry, indent=2, default=str) + "\n")
        os.replace(draft, self.path / "run.json")


def runs_root(root: Path | str | None = None) -> Path:
    """Where runs are kept: `root`, else what GATO_RUNS says, else `./runs`."""
    return Path(root or os.environ.get("GATO_RUNS") or "runs").expanduser().absolute()


def list_runs(root: Path | str | None = None) -> list[RunInfo]:
    """Every run, newest first; folders without a readable `run.json` are left out."""
    base = runs_root(root)
    runs: list[RunInfo] = []
    for file in base.glob("*/run.json"):
        if file.parent.name.startswith("."):
            continue  # one that is being made, or restored
        try:
            runs.append(RunFolder(base, file.parent.name).info())
        except (ValueError, OSError):
            continue
    return sorted(runs, key=lambda run: run.created_s, reverse=True)


def find_run(name: str | None = None, root: Path | str | None = None) -> RunFolder:
    """The run called `name`; without a name the newest that is active, else the newest."""
    base = runs_root(root)
    if name is not None and not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a run; gato runs lists them")
    if name is not None and (base / name / "run.json").is_file():
        return RunFolder(base, name)
    runs = list_runs(base)
    if not runs:
        raise ValueError(f"there are no runs in {base}; start one with: gato start")
    if name is None:
        return RunFolder(base, next((run for run in runs if run.is_active), runs[0]).name)
    names = [run.name for run in runs]
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names[:8])}"
    raise ValueError(f"there is no run {name!r} in {base}; {hint}")
