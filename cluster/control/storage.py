"""A run's storage: copied to while the run goes on, and a run made of it when its home is lost."""

from __future__ import annotations

import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cluster.control.session import Session
from cluster.journal.records import Event
from cluster.runs.disk_space import require_space
from cluster.runs.folder import RunFolder, runs_root
from cluster.runs.folder_name import numbered
from cluster.runs.home import read_home
from cluster.runs.overrides import override
from cluster.runs.resumed import with_changes
from cluster.storage.claims import read_tenure, require_tenure
from cluster.storage.copying import UNKNOWN, Copying, begin_tenure
from cluster.storage.place import Place, PlaceAway, checked_url
from cluster.storage.restore import find_copy, restore

OFF = "off"
"""Said instead of a URL: the run is not copied any more."""


def storage_setting(given: str | None) -> list[str]:
    """`--storage` as a setting of the run.

    Raises:
        ValueError: No driver is installed for it.
    """
    if given is None:
        return []
    return [f"storage.url={'' if given == OFF else checked_url(given)}"]


@contextmanager
def copied(session: Session, *, is_known: bool = False) -> Generator[None]:
    """Copy the run while this lasts, if it has a storage. `is_known`: it went on here a moment ago.

    Raises:
        RunMoved: Another home has the run.
        PlaceAway: The storage cannot be read or written.
    """
    config, folder = session.config.storage, session.folder
    if not config.url:
        yield
        return
    place = Place(config.url, folder.claim_id())
    tenure = begin_tenure(place, folder.path, _where(folder), is_known=is_known)

    def say(kind: str, text: str) -> None:
        session.journal.append(Event(kind=kind, text=text))

    with Copying(
        folder.path, place, tenure, every_s=config.every_s, say=say, stop=session.stop
    ) as copying:
        session.journal.claim_epochs(copying.claim_epoch)
        yield


def require_not_moved(folder: RunFolder, settings: Sequence[str]) -> None:
    """Check that no other home has the run in `folder`, before anything of it is touched.

    Args:
        folder: The run's, at its home.
        settings: What is changed when it goes on.

    Raises:
        RunMoved: Another home has it.
        PlaceAway: That cannot be found out, and the run is to be copied on.
    """
    before, tenure = folder.config(), read_tenure(folder.path)
    if tenure is None or not before.storage.url:
        return
    try:
        require_tenure(Place(before.storage.url, folder.claim_id()), tenure)
    except PlaceAway as problem:
        if override(before, settings).storage.url:
            raise PlaceAway(f"{problem}; {UNKNOWN}") from problem


def restore_here(url: str, run_id: str, settings: Sequence[str], where: str) -> RunFolder:
    """The folder of a run on this machine, made of its copy at `url`.

    Raises:
        ValueError: There is no whole copy, it cannot be read, or another home has the run.
        OSError: The disk is full.
    """
    require_space(runs_root())
    place = Place(checked_url(url), run_id)
    path = _path_here(find_copy(place).name, run_id)
    done = restore(place, path, where)
    folder = RunFolder(path.parent, path.name)
    folder.change_config(
        lambda config: replace(
            with_changes(config, [f"storage.url={place.url}", *settings], path), name=folder.name
        )
    )
    with (path / "log.txt").open("a") as log:
        log.write(f"{done.episodes} episodes from the copy at {url}\n")
    return folder


def _path_here(name: str, run_id: str) -> Path:
    """Where the run goes: the folder by which it is known here, or a free one."""
    root = runs_root()
    for file in root.glob("*/home.json"):
        home = read_home(file.parent)
        if home is not None and home.run_id == run_id:
            return file.parent  # from where it was watched, or its home of before
    return next(root / free for free in numbered(name) if not (root / free).exists())


def _where(folder: RunFolder) -> str:
    home = folder.home
    at = f"{home.node} ({home.host})" if home is not None else socket.gethostname()
    return f"{at}, {folder.path}"
