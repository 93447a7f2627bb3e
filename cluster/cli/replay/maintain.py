"""`gato replay verify` and `compact`: find damage, and free disk space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.cli.options import Where, command_group, console
from cluster.monitor.format import bytes_text, literal
from cluster.monitor.progress import Progressing
from cluster.runs.replay_location import Place, find_place, open_to_read
from replay.storage.compact import Compaction
from replay.storage.store import EpisodeStore
from replay.storage.verify import Fault, disagreements, faults_of, header_faults, repair

app = command_group()


@app.command("verify")
def verify_command(
    what: Where = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Remove damaged episodes for good. The run must not be active."
        ),
    ] = False,
) -> None:
    """Read everything and name what is damaged; exit status 1 if anything is.

    Example: [bold]gato replay verify demo[/bold]
    """
    if not verify(what, repairs=repair, console=console):
        raise typer.Exit(1)


@app.command("compact")
def compact_command(what: Where = None) -> None:
    """Free the disk space of evicted and damaged episodes. The run must not be active.

    Example: [bold]gato replay compact demo[/bold]
    """
    compact(what, console=console)


def _of_shard(place: Place, shard: int) -> str:
    """What is printed of a store, as markup."""
    return literal(_name_of_shard(place, shard))


def _name_of_shard(place: Place, shard: int) -> str:
    return f"{place.label}, shard {shard}" if len(place.folders) > 1 else place.label


def verify(what: str | None, *, repairs: bool, console: Console) -> bool:
    """Read everything. Whether all is well, or was made so."""
    place = find_place(what)
    if repairs:
        place.require_idle()
    is_whole = True
    for shard, folder in enumerate(place.folders):
        label = _of_shard(place, shard)
        store = _open_to_repair(folder) if repairs else open_to_read(folder, place)
        try:
            if store.num_shards != len(place.folders):
                console.print(
                    f"[red]{label}:[/red] made of {store.num_shards} shards, {len(place.folders)}"
                    " are here"
                )
                is_whole = False
            before = len(store.damaged)
            faults, said = _verify(store, _name_of_shard(place, shard))
            for sentence in (*map(_fault_text, faults), *map(literal, said)):
                console.print(f"[red]{label}:[/red] {sentence}", highlight=False, soft_wrap=True)
            earlier = before - len({fault.number for fault in faults if not fault.column})
            if repairs and (faults or said):
                repair(store, faults)
            _conclude(label, store, faults, said, earlier=earlier, repairs=repairs, console=console)
            is_whole = is_whole and (repairs or not (faults or said))
        finally:
            store.close()
    return is_whole


def _fault_text(fault: Fault) -> str:
    key = f" {literal(fault.key)}" if fault.key else ""
    return (
        f"episode {fault.number}{key}:"
        f" {f'column {literal(fault.column)} ' if fault.column else ''}{literal(fault.reason)}"
    )


def _verify(store: EpisodeStore, label: str) -> tuple[list[Fault], list[str]]:
    """Faults of episodes, and where the store contradicts itself."""
    faults = header_faults(store)
    with Progressing(f"verifying {label}", total=store.stored_bytes) as progress:
        for header in list(store.episodes.values()):
            faults += faults_of(store, header)
            progress.advance(header.stored_bytes)
        return faults, disagreements(store)


def _open_to_repair(folder: Path) -> EpisodeStore:
    """To write, as it was made: nothing but notes is written."""
    found = EpisodeStore(
        folder, capacity_bytes=0, map_bytes=2 * (folder / "data.mdb").stat().st_size, read_only=True
    )
    num_shards = found.num_shards
    found.close()
    size = (folder / "data.mdb").stat().st_size
    return EpisodeStore(
        folder, capacity_bytes=2 * size, num_shards=num_shards, lock_wait_s=0.0, repairing=True
    )


def _conclude(
    label: str,
    store: EpisodeStore,
    faults: Sequence[Fault],
    said: Sequence[str],
    *,
    earlier: int,
    repairs: bool,
    console: Console,
) -> None:
    """One line that says how it stands, and what to do."""
    num_damaged = len({fault.number for fault in faults})
    num_whole = len(store.episodes) - len({fault.number for fault in faults if fault.column})
    line = f"{label}: {num_whole:,} episodes are whole"
    if num_damaged:
        line += f", {num_damaged:,} damaged"
    if said:
        line += f", {len(said):,} contradictions"
    if num_damaged or said:
        line += (
            "; removed for good, and the store repaired"
            if repairs
            else "; gato replay verify --repair removes damaged episodes"
        )
    if earlier > 0:
        line += f" ({earlier:,} were removed earlier; gato replay compact frees their bytes)"
    console.print(line, highlight=False, soft_wrap=True)


def compact(what: str | None, *, console: Console) -> None:
    """Copy each store without what it does not need."""
    place = find_place(what)
    place.require_idle()
    for shard, folder in enumerate(place.folders):
        label, name = _of_shard(place, shard), _name_of_shard(place, shard)
        with Compaction(folder) as compaction:
            with Progressing(f"copying {name}", total=compaction.total_bytes) as progress:
                for copied_bytes in compaction.copy():
                    progress.advance(copied_bytes)
                progress.advance(0, what=f"comparing {name}")
                compaction.check()
            place.require_idle()
            done = compaction.swap()
        for fault in done.left_out:
            console.print(
                f"[yellow]left out:[/yellow] {_fault_text(fault)}", highlight=False, soft_wrap=True
            )
        freed_bytes = max(0, done.before_bytes - done.after_bytes)
        line = f"{label}: {done.num_episodes:,} episodes, {bytes_text(freed_bytes)} freed"
        line += f", {bytes_text(done.before_bytes)} before and {bytes_text(done.after_bytes)} now"
        line += (
            f"; {done.num_whole_keys:,} whole keys became intervals" if done.num_whole_keys else ""
        )
        console.print(line, highlight=False, soft_wrap=True)
