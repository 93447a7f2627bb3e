"""Where the stores of a name are: of a run, of a data set, or in a folder; one of them or one for
each shard."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from cluster.runs.data import datasets
from cluster.runs.folder import RunFolder, find_run, list_runs, runs_root
from cluster.runs.home import require_here
from replay.config import ReplayConfig
from replay.storage.header import Header
from replay.storage.store import EpisodeStore

GROWTH = 4
"""A store of unknown capacity may grow so many times while it is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Stores, and what is known of whose they are."""

    label: str
    """For people: `run demo`, `data set hopper`, or the folder."""
    folders: tuple[Path, ...]
    """One for each shard, in order."""
    run: RunFolder | None = None
    config: ReplayConfig | None = None
    """The run's settings of replay."""

    @property
    def capacity_bytes(self) -> int | None:
        """Of all shards together; None where it is not known."""
        return self.config.capacity_bytes if self.config is not None else None

    def require_idle(self) -> None:
        """Refuse a run that goes on."""
        if self.run is not None and self.run.info().is_active:
            raise ValueError(
                f"run {self.run.name} uses this store; gato stop {self.run.name} first"
            )


def stores_of(path: Path) -> tuple[Path, ...]:
    """The folders with a store: `path` itself, or `shard-0`, `shard-1`, ... in it; none where there
    is none."""
    if (path / "data.mdb").is_file():
        return (path,)
    shards = {
        int(file.parent.name[6:]): file.parent
        for file in path.glob("shard-*/data.mdb")
        if file.parent.name[6:].isdigit()
    }
    return tuple(shards[number] for number in sorted(shards))


def find_place(what: str | None) -> Place:
    """The stores of a run (None: the newest), a data set or a folder. ValueError suggests the
    nearest name."""
    root = runs_root()
    if what is None:
        return _of_run(find_run(None))
    if "/" not in what and (root / what / "run.json").is_file():
        return _of_run(RunFolder(root, what))
    if "/" not in what and (root / "data" / what / "about.json").is_file():
        return Place(
            label=f"data set {what}",
            folders=_require(root / "data" / what / "episodes", f"data set {what}"),
        )
    path = Path(what).expanduser()
    for folder in (path, path / "replay", path / "episodes"):
        folders = stores_of(folder)
        owner = _owner(folders[0]) if folders else None
        if (
            folders
            and owner is not None
            and _resolved(folders) == _resolved(stores_of(owner.path / "replay"))
        ):
            return _of_run(owner)
        if folders:
            return Place(label=str(path), folders=folders, run=owner)
    if path.is_dir():
        raise ValueError(
            f"there is no replay store in {path}: neither data.mdb nor shard-0/data.mdb"
        )
    names = [run.name for run in list_runs()] + [
        file.parent.name for file in root.glob("data/*/about.json")
    ]
    near = get_close_matches(what, names, n=1, cutoff=0.4)
    hint = (
        f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names[:8]) or 'none yet'}"
    )
    raise ValueError(f"no run, data set or folder {what!r} in {root}; {hint}")


def _resolved(folders: Sequence[Path]) -> list[Path]:
    return [folder.resolve() for folder in folders]


def _owner(folder: Path) -> RunFolder | None:
    """The run that a store's folder lies in."""
    for path in list(folder.resolve().parents)[:2]:
        if (path / "run.json").is_file():
            return RunFolder(path.parent, path.name)
    return None


def _of_run(run: RunFolder) -> Place:
    require_here(run.path, "gato replay")
    return Place(
        label=f"run {run.name}",
        folders=_require(run.path / "replay", f"run {run.name}"),
        run=run,
        config=run.config().replay,
    )


def _require(path: Path, label: str) -> tuple[Path, ...]:
    folders = stores_of(path)
    if not folders:
        raise ValueError(f"{label} has no replay store yet: there is none in {path}")
    return folders


def open_to_read(folder: Path, place: Place) -> EpisodeStore:
    """One store, also while its run goes on."""
    capacity_bytes = place.capacity_bytes or datasets.CAPACITY_BYTES
    map_bytes = max(2 * capacity_bytes, GROWTH * (folder / "data.mdb").stat().st_size)
    return EpisodeStore(
        folder,
        capacity_bytes=capacity_bytes,
        map_bytes=map_bytes + datasets.CAPACITY_BYTES // 64,
        read_only=True,
    )


@contextmanager
def opened(place: Place) -> Generator[list[EpisodeStore]]:
    """All of them, to read."""
    stores: list[EpisodeStore] = []
    try:
        for folder in place.folders:
            store = open_to_read(folder, place)
            stores.append(store)
        yield stores
    finally:
        for store in stores:
            store.close()


def find_episode(stores: Sequence[EpisodeStore], name: str) -> tuple[EpisodeStore, Header]:
    """The episode of a key, a number, or SHARD/NUMBER where there are shards."""
    shard, _, number = name.rpartition("/")
    if shard.isdigit() and number.isdigit() and int(shard) >= len(stores):
        raise ValueError(f"there is no shard {shard}; shards go from 0 to {len(stores) - 1}")
    where = stores[int(shard) : int(shard) + 1] if shard.isdigit() else stores
    is_number = number.isdigit() and (not shard or shard.isdigit())
    kept = [
        (store, header)
        for store in stores
        for of in (store.episodes, store.taken_out)
        for header in of.values()
    ]
    found = [(store, header) for store, header in kept if header.key == name]
    if not found and is_number:
        found = [
            (store, header)
            for store, header in kept
            if store in where and header.number == int(number)
        ]
    if len(found) > 1:
        places = ", ".join(
            f"{list(stores).index(store)}/{header.number}" for store, header in found
        )
        raise ValueError(f"several episodes are called {name}: {places}; say which")
    if not found:
        numbers = [header.number for _, header in kept]
        some = (
            f"numbers go from {min(numbers)} to {max(numbers)}" if numbers else "the store is empty"
        )
        raise ValueError(f"there is no episode {name!r}; {some}, and gato replay ls shows keys")
    return found[0]
