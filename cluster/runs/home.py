"""Where a run on a cluster lives: `home.json` in its folder there, and in the folder of the machine
where it was started."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from gato.files import damaged, read_json

FILE = "home.json"
SUPERVISOR = "supervisor"
"""Name of its actor, in the namespace of the run."""
FIX = "put the file of a backup there, or delete the folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The home of a run: the node of its learner, where its files are."""

    address: str
    """host:port of the cluster's head."""
    run_id: str
    """Of the run, whatever its name is."""
    node: str
    """The node's name."""
    host: str
    """The node's address."""
    path: str
    """The run's folder there."""
    is_here: bool
    """Whether this file lies in that folder."""
    node_id: str = ""
    """Ray's id of the node, which is another one when the machine joins again. Empty: of a run from
    before it was kept."""

    @property
    def namespace(self) -> str:
        """Ray's namespace of the run's parts."""
        return f"gato-{self.run_id}"


def read_home(folder: Path) -> Home | None:
    """The home of the run in `folder`; None for one on a Ray of its own.

    Raises:
        ValueError: The file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        return Home(**read_json(file, fix=FIX))
    except TypeError as problem:
        raise damaged(file, problem, fix=FIX) from problem


def require_here(folder: Path, command: str) -> None:
    """Raises ValueError if the files of the run in `folder` are on another machine, where `command`
    can be used."""
    home = read_home(folder)
    if home is not None and not home.is_here:
        raise ValueError(
            f"the files of run {folder.name} are on {home.node} ({home.host}), in {home.path}; use"
            f" {command} there"
        )


def write_home(folder: Path, home: Home) -> None:
    """Keep the home of the run in `folder`."""
    draft = folder / f"{FILE}.{os.getpid()}.tmp"
    draft.write_text(json.dumps(asdict(home), indent=2) + "\n")
    os.replace(draft, folder / FILE)
