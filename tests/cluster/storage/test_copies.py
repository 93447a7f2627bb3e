"""A run is copied to its storage, and made of its copy again: a store, checkpoints, a journal."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import fsspec
import pytest
import torch

from cluster.journal.epoch_file import read_epoch, write_epoch
from cluster.journal.journal_file import JournalFile
from cluster.journal.records import Event
from cluster.journal.writer import JournalWriter
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from cluster.storage import copier as copier_module
from cluster.storage.claims import (
    Epochs,
    RunMoved,
    claim_tenure,
    newest_tenure,
    read_tenure,
    require_tenure,
)
from cluster.storage.copier import Copier
from cluster.storage.copying import Copying, begin_tenure
from cluster.storage.manifest import from_bytes, newest_manifest, to_bytes
from cluster.storage.place import Place, PlaceAway, checked_url
from cluster.storage.restore import restore
from gato.episode import AGENT
from gato.network.model import Gato
from learner.checkpoints.files import keep_as_best, list_checkpoints
from learner.checkpoints.state import Progress, load_checkpoint, save_checkpoint
from replay.storage.store import EpisodeStore
from replay.storage.verify import disagreements, faults_of
from tests.cluster.wait import until
from tests.replay.episodes import counter_episode

CAPACITY = 1 << 20
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def _share(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()


@pytest.fixture(params=["folder", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield {
        "folder": str(tmp_path / "shared"),
        "file": f"file://{tmp_path}/shared",
        "memory": "memory://shared",
    }[request.param]
    fsspec.filesystem("memory").store.clear()


@dataclass
class Run:
    """A run's folder, written to as its parts do."""

    folder: Path
    made: int = 0

    def play(self, count: int, steps: int = 10) -> None:
        """A store may be open once in a process, so it is closed when it is copied here."""
        store = EpisodeStore(self.folder / "replay", capacity_bytes=CAPACITY)
        store.evicts_demonstrations = True
        for _ in range(count):
            episode = counter_episode(self.made, steps, key=f"w0.a.{self.made}", source=AGENT)
            assert store.add(episode, tokens=10) is not None
            self.made += 1
        store.close()

    def write(self, count: int) -> None:
        with JournalWriter(self.folder / "journal", "id", server=NOWHERE) as journal:
            for index in range(count):
                journal.append(Event(kind="scaled", text=str(index)))

    def train(self, step: int) -> None:
        torch.manual_seed(step)
        model = Gato(RUNS["debug"].model)
        optimiser = torch.optim.AdamW(model.parameters())
        save_checkpoint(
            self.folder / "checkpoints", model, optimiser, Progress(step=step, number=step)
        )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = RunFolder.create(RUNS["debug"], root=tmp_path / "home").path
    made = Run(folder)
    made.play(0)
    return made


def keys(folder: Path) -> list[str]:
    """Of the episodes of a store, after it was verified."""
    store = EpisodeStore(folder, capacity_bytes=CAPACITY, map_bytes=1 << 28, read_only=True)
    try:
        assert [fault for h in store.episodes.values() for fault in faults_of(store, h)] == []
        assert disagreements(store) == []
        return [header.key for header in store.episodes.values()]
    finally:
        store.close()


def steps(folder: Path) -> list[int]:
    return [int(path.name[5:]) for path in list_checkpoints(folder / "checkpoints")]


def texts(folder: Path) -> list[str]:
    entries = JournalFile(folder / "journal").read(count=10_000)
    return [e.record.text for e in entries if isinstance(e.record, Event)]


def test_a_run_made_of_its_copy_has_all_that_the_copy_had_and_nothing_later(
    run: Run, url: str, tmp_path: Path
) -> None:
    place = Place(checked_url(url), "id")
    copier = Copier(run.folder, place, claim_tenure(place, run.folder, "old"))
    for step in (10, 20, 30):
        run.play(7)
        run.write(3)
        run.train(step)
        if step == 10:
            [first] = list_checkpoints(run.folder / "checkpoints")
            assert keep_as_best(first, {"score": 0.5})
        copier.copy()
    kept = keys(run.folder / "replay"), texts(run.folder), steps(run.folder)
    run.play(5)
    run.train(40)

    new = tmp_path / "other" / "debug"
    done = restore(place, new, "new")
    assert done.episodes == 21
    assert (keys(new / "replay"), texts(new), steps(new)) == kept
    assert kept[2] == [20, 30]
    model = Gato(RUNS["debug"].model)
    assert load_checkpoint(list_checkpoints(new / "checkpoints")[-1], model).step == 30
    assert load_checkpoint(new / "checkpoints" / "best", model).step == 10
    assert (
        RunFolder(new.parent, new.name).config()
        == RunFolder(run.folder.parent, run.folder.name).config()
    )
    store = EpisodeStore(new / "replay", capacity_bytes=CAPACITY)
    try:  # it knows what it had: neither twice, nor under the number of another
        assert store.add(counter_episode(3, key="w0.a.3"), tokens=10) is None
        header = store.add(counter_episode(99, key="w0.a.99"), tokens=10)
        assert header is not None
        assert header.number == 21
    finally:
        store.close()


def test_what_was_evicted_does_not_come_back_and_its_key_stays_known(
    run: Run, url: str, tmp_path: Path
) -> None:
    place = Place(url, "id")
    copier = Copier(run.folder, place, claim_tenure(place, run.folder, "old"))
    new = tmp_path / "other" / "debug"
    run.play(3)
    copier.copy()
    first = newest_manifest(place)
    for _ in range(4):
        run.play(40, steps=2000)
        copier.copy()
    last = newest_manifest(place)
    assert first is not None
    assert last is not None
    assert len(keys(run.folder / "replay")) < 100
    assert first.shards["replay"].packs[0].path not in last.paths()
    restore(place, new, "new")
    assert keys(new / "replay") == keys(run.folder / "replay")
    store = EpisodeStore(new / "replay", capacity_bytes=CAPACITY)
    assert store.known("w0.a.0")
    store.close()


def test_only_what_is_new_is_written_and_what_nobody_needs_is_deleted(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copier_module, "MANY_PIECES", 4)
    place = Place(url, "id")
    copier = Copier(run.folder, place, claim_tenure(place, run.folder, "old"))
    run.train(1)
    for _ in range(11):
        run.play(2)
        run.write(1)
        copier.copy()
    manifest = newest_manifest(place)
    assert manifest is not None
    assert len(manifest.shards["replay"].packs) <= 4
    assert sum(len(pieces) for pieces in manifest.journal.values()) <= 4
    named = manifest.paths() | {manifest.path}
    files = {name for name in place.names() if name.startswith(("files/", "manifests/"))}
    assert named <= files
    assert len([name for name in files if name.startswith("manifests/")]) == 2
    assert len([name for name in files if "model.safetensors" in name]) == 1  # copied once
    first = manifest.files["checkpoints/step-000000001/model.safetensors"]
    run.train(1)  # again, by a learner that went back
    copier.copy()
    manifest = newest_manifest(place)
    assert manifest is not None
    assert manifest.files["checkpoints/step-000000001/model.safetensors"].path != first.path

    again = Copier(run.folder, place, read_tenure(run.folder) or pytest.fail("it has one"))
    again.copy()  # of a supervisor that was started again: nothing is packed twice
    after = newest_manifest(place)
    assert after is not None
    assert after.shards["replay"].packs == manifest.shards["replay"].packs
    assert {name.split("/")[0] for name in Place(url, "").names()} == {"id"}


def test_a_copy_that_was_not_written_to_its_end_does_not_count(run: Run, url: str) -> None:
    place = Place(url, "id")
    copier = Copier(run.folder, place, claim_tenure(place, run.folder, "old"))
    copier.copy()
    manifest = newest_manifest(place)
    assert manifest is not None
    whole = to_bytes(manifest)
    assert from_bytes(whole) == manifest
    place.put("manifests/000001-000000002", whole[:-7])
    assert newest_manifest(place) == manifest


def test_what_was_written_for_a_copy_that_failed_is_in_the_next_one(
    run: Run, tmp_path: Path
) -> None:
    place = Place(str(tmp_path / "shared"), "id")
    copier = Copier(run.folder, place, claim_tenure(place, run.folder, "old"))
    copier.copy()
    manifests, aside = tmp_path / "shared/id/manifests", tmp_path / "aside"
    manifests.rename(aside)
    manifests.write_text("not a folder")
    run.train(10)
    run.play(4)
    (run.folder / "scales.json").write_text("{}")
    with pytest.raises(PlaceAway):
        copier.copy()
    manifests.unlink()
    aside.rename(manifests)
    copier.copy()
    new = tmp_path / "other" / "debug"
    assert restore(place, new, "new").episodes == 4
    assert steps(new) == [10]
    assert (new / "scales.json").read_text() == "{}"


def test_a_home_that_lost_the_run_neither_copies_nor_resumes_nor_has_an_epoch(
    run: Run, url: str, tmp_path: Path
) -> None:
    place = Place(url, "id")
    mine = begin_tenure(place, run.folder, "old (10.0.0.1)", is_known=False)
    assert begin_tenure(place, run.folder, "old", is_known=False) == mine  # a resume, here
    copier, epochs = Copier(run.folder, place, mine), Epochs(place, mine)
    assert [epochs.claim(1), epochs.claim(2)] == [1, 2]
    run.play(2)
    copier.copy()

    new = tmp_path / "other" / "debug"
    restore(place, new, "new (10.0.0.2)")
    theirs = read_tenure(new)
    assert theirs is not None
    assert theirs.number == 2
    first = read_epoch(new / "journal") + 1
    assert Epochs(place, theirs).claim(first) == first == 9
    assert epochs.claim(3) == 3  # claimed before, while the storage may have been away
    for refused in (
        copier.copy,
        lambda: epochs.claim(9),
        lambda: begin_tenure(place, run.folder, "old", is_known=True),
    ):
        with pytest.raises(RunMoved, match=r"has moved to new \(10.0.0.2\) on 20\d\d-"):
            refused()
    Copier(new, place, theirs).copy()
    assert (newest_manifest(place) or pytest.fail("none")).tenure == 2
    assert newest_tenure(place) == theirs


def test_of_many_that_claim_a_run_at_once_one_has_it(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "shared"), "id")
    folders = [tmp_path / str(index) for index in range(8)]
    for folder in folders:
        folder.mkdir()

    def claim(folder: Path) -> bool:
        try:
            claim_tenure(place, folder, folder.name)
        except RunMoved:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(claim, folders))
    tenures = [read_tenure(folder) for folder in folders]
    numbers = [tenure.number for tenure in tenures if tenure is not None]
    assert len(numbers) == len(set(numbers)) == sum(won)


def test_a_storage_that_is_away_is_named_once_and_caught_up_with(run: Run, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    place = Place(str(shared), "id")
    run.write(0)
    mine = claim_tenure(place, run.folder, "here")
    said: list[str] = []
    with Copying(
        run.folder, place, mine, every_s=0.02,
        say=lambda kind, text: said.append(f"{kind}: {text}"), stop=lambda _: None,
    ) as copying:  # fmt: skip
        until(lambda: newest_manifest(place))
        assert copying.claim_epoch(6) == 6
        write_epoch(run.folder / "journal", 6)
        until(lambda: place.names("epochs") == ["epochs/000000", "epochs/000001"])
        away = tmp_path / "away"
        shared.rename(away)
        shared.write_text("not a folder")
        until(lambda: said)
        run.write(3)
        assert [copying.claim_epoch(epoch) for epoch in range(7, 11)] == [7, 8, 9, 10]
        with pytest.raises(PlaceAway):
            copying.claim_epoch(17)
        shared.unlink()
        away.rename(shared)
        until(lambda: len(said) == 2)
    assert said[0].startswith("problem: not copied since ")
    assert f"storage at {shared}: " in said[0]
    assert said[1] == "storage caught up: the copy of the run is up to date again"
    restore(place, tmp_path / "other" / "debug", "new")
    assert texts(tmp_path / "other" / "debug") == ["0", "1", "2"]


def test_a_home_that_loses_its_run_while_it_goes_on_stops_it(run: Run, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "shared"), "id")
    mine = claim_tenure(place, run.folder, "here")
    stopped: list[str] = []
    with Copying(
        run.folder, place, mine, every_s=0.02,
        say=lambda kind, text: None, stop=stopped.append,
    ):  # fmt: skip
        until(lambda: newest_manifest(place))
        restore(place, tmp_path / "other" / "debug", "there")
        until(lambda: stopped)
    assert "has moved to there" in stopped[0]


def test_a_copy_for_which_there_is_no_room_leaves_the_run_where_it_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(str(tmp_path / "shared"), "id")
    run.play(3)
    mine = claim_tenure(place, run.folder, "old")
    Copier(run.folder, place, mine).copy()
    left = tmp_path / "other" / ".debug.4194305.restore"  # above the highest number of a process
    left.mkdir(parents=True)
    monkeypatch.setattr("cluster.storage.restore.MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(ValueError, match="GB free, the run needs"):
        restore(place, tmp_path / "other" / "debug", "new")
    require_tenure(place, mine)
    monkeypatch.undo()
    restore(place, tmp_path / "other" / "debug", "new")
    assert not left.exists()
    assert [each.name for each in left.parent.iterdir()] == ["debug"]


def test_a_damaged_copy_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "shared"), "id")
    with pytest.raises(ValueError, match="no whole copy of run id in the storage"):
        restore(place, tmp_path / "other" / "debug", "new")
    run.play(3)
    Copier(run.folder, place, claim_tenure(place, run.folder, "old")).copy()
    pack = next((tmp_path / "shared").rglob("*.pack"))
    pack.write_bytes(pack.read_bytes()[:-1] + b"x")
    with pytest.raises(PlaceAway, match="pack is damaged"):
        restore(place, tmp_path / "other" / "debug", "new")
    assert list((tmp_path / "other").iterdir()) == []


def test_a_copy_writes_nothing_outside_of_the_run(run: Run, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "shared"), "id")
    Copier(run.folder, place, claim_tenure(place, run.folder, "old")).copy()
    manifest = newest_manifest(place)
    assert manifest is not None
    files = {**manifest.files, "../../evil": manifest.files["config.yaml"]}
    place.put("manifests/000001-000000002", to_bytes(replace(manifest, number=2, files=files)))
    with pytest.raises(ValueError, match=r"names '\.\./\.\./evil', outside of a run"):
        restore(place, tmp_path / "other" / "debug", "new")
    assert not list(tmp_path.rglob("evil"))


def test_what_was_in_the_folder_is_set_aside(run: Run, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "shared"), "id")
    Copier(run.folder, place, claim_tenure(place, run.folder, "old")).copy()
    other = tmp_path / "other"
    shutil.copytree(run.folder, other / "debug")
    restore(place, other / "debug", "new")
    assert sorted(path.name for path in other.iterdir()) == ["debug", "debug.before-2"]
    assert not (other / "debug.before-2" / "run.json").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://bucket/gato", r"s3:// needs a driver, .*: pip install s3fs"),
        ("gs://bucket/gato", r"gs:// needs a driver, .*: pip install gcsfs"),
        ("nonsense://x", r"knows no nonsense://; give a folder"),
        ("ftp://user:s3cret@host/x", r"give user and password as the driver of ftp://"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused_in_one_line(text: str, said: str) -> None:
    if text.startswith(("s3", "gs")):
        try:
            fsspec.get_filesystem_class(text[:2])
            pytest.skip("its driver is installed")
        except ImportError:
            pass
    with pytest.raises(ValueError, match=said) as caught:
        checked_url(text)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_share_that_is_not_mounted_is_no_storage(form: str, tmp_path: Path) -> None:
    away = tmp_path / "away"
    with pytest.raises(PlaceAway, match="there is no such folder on this machine; make it"):
        Place(form.format(away), "id").put("packs/1", b"1")
    assert not away.exists()
    away.mkdir()
    Place(form.format(away), "id").put("packs/1", b"1")
    assert stat.S_IMODE((away / "id").stat().st_mode) == 0o700
