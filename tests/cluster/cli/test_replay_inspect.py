"""`gato replay`: what is in a store, whether it is whole, in less space, for others; also while
somebody writes to it."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from cluster.cli.main import main
from cluster.control.run_journal import open_journal
from cluster.journal.journal import Control
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from cluster.runs.replay_location import stores_of
from gato.episode import AGENT
from replay.storage.dedup import Intervals
from replay.storage.lock import WRITING, FolderLock
from replay.storage.store import EpisodeStore
from tests.cluster.wait import until
from tests.replay.episodes import counter_episode, flip_a_bit, picture_episode

Gato = Callable[..., tuple[int, str, str]]
CAPACITY = 64 << 20
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def gato(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gato:
    """Exit status, standard output and standard error of one command of `gato replay`, in this
    process."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["gato", "replay", *words])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        return status, *capsys.readouterr()

    return run


def make_store(folder: Path, *, first: int = 0, num_shards: int = 1) -> Path:
    """Five episodes: two of a teacher, two of the agent, one of pictures."""
    store = EpisodeStore(folder, capacity_bytes=CAPACITY, num_shards=num_shards)
    for number, steps in ((0, 10), (1, 30)):
        store.add(counter_episode(first + number, steps), tokens=100)
    for number, reward in ((2, 3.0), (3, 0.5)):
        store.add(counter_episode(first + number, 20, source=AGENT, reward=reward), tokens=100)
    store.add(picture_episode(first + 4), tokens=1000)
    store.close()
    return folder


def make_run(name: str, *, state: str = "stopped", num_shards: int = 1) -> RunFolder:
    replay = replace(RUNS["debug"].replay, capacity_bytes=CAPACITY)
    run = RunFolder.create(replace(RUNS["debug"], name=name, replay=replay))
    shards = [""] if num_shards == 1 else [f"shard-{shard}" for shard in range(num_shards)]
    for number, shard in enumerate(shards):
        make_store(run.path / "replay" / shard, first=10 * number, num_shards=num_shards)
    if state == "stopped":
        run.set_state("stopped")
    return run


def test_a_run_a_folder_and_a_folder_of_shards_are_found(here: Path, gato: Gato) -> None:
    make_run("one")
    for words in ((), ("one",), ("runs/one",), ("runs/one/replay",)):
        status, out, _ = gato("ls", *words)
        assert status == 0
        assert "run one: 5 episodes" in out
    make_run("two", num_shards=2)
    assert [path.name for path in stores_of(here / "runs" / "two" / "replay")] == [
        "shard-0",
        "shard-1",
    ]
    lines = [
        json.loads(line) for line in gato("ls", "two", "--json", "--limit", "0")[1].splitlines()
    ]
    assert [(line["shard"], line["number"]) for line in lines] == [
        (s, n) for n in range(5) for s in range(2)
    ]
    assert "k11" in gato("peek", "1/1", "two")[1]
    status, _, err = gato("peek", "1", "two")
    assert status == 2
    assert "0/1, 1/1" in err
    make_store(here / "loose")
    assert "loose: 5 episodes" in gato("ls", "loose")[1]


def test_episodes_are_listed_filtered_and_sorted_the_newest_last(here: Path, gato: Gato) -> None:
    make_store(here / "store")

    def keys(*words: str) -> list[str]:
        status, out, _ = gato("ls", "store", "--json", *words)
        assert status == 0
        return [json.loads(line)["key"] for line in out.splitlines()]

    assert keys() == ["k0", "k1", "k2", "k3", "p4"]
    assert keys("--limit", "2") == ["k3", "p4"]
    assert keys("--task", "counter", "--sort", "return") == ["k0", "k3", "k1", "k2"]
    assert keys("--source", "agent") == ["k2", "k3"]
    assert keys("--source", "teacher", "--task", "counter", "--sort", "steps") == ["k0", "k1"]
    first, *_ = [json.loads(line) for line in gato("ls", "store", "--json")[1].splitlines()]
    assert (first["steps"], first["return"], first["source"], first["tokens"]) == (
        10,
        10.0,
        "teacher:t",
        100,
    )
    out = gato("ls", "store", "--limit", "3")[1]
    assert "3 episodes of 5; --limit 0 shows all" in out
    assert out.index("k2") < out.index("k3") < out.index("p4")


def test_stats_tell_tasks_sources_bytes_tokens_keys_and_damage(here: Path, gato: Gato) -> None:
    run = make_run("one")
    store = EpisodeStore(run.path / "replay", capacity_bytes=CAPACITY)
    store.database.note("limiter", json.dumps({"read_tokens": 4321}).encode())
    store.quarantine(store.episodes[3], "column rewards is bad")
    store.close()
    plain = json.loads(gato("stats", "one", "--json")[1])
    counter = plain["tasks"]["test/counter"]
    assert (counter["episodes"], counter["steps"]) == (3, 60)
    assert (counter["return_min"], counter["return_max"]) == (10.0, 60.0)
    assert counter["return_mean"] == pytest.approx(100 / 3)
    assert counter["sources"]["agent"]["episodes"] == 1
    assert counter["bytes"] == sum(source["bytes"] for source in counter["sources"].values())
    assert (plain["inserted_tokens"], plain["read_tokens"]) == (1400, 4321)
    assert plain["damaged"] == {"3 k3": "column rewards is bad"}
    assert (plain["streams"], plain["intervals"]) == (5, 5)
    assert (plain["capacity_bytes"], plain["durability"], plain["num_shards"]) == (
        CAPACITY,
        "group",
        1,
    )
    assert plain["stored_bytes"] < plain["file_bytes"] < CAPACITY
    out = gato("stats", "one")[1]
    for words in (
        "test/counter",
        "teacher:t",
        "agent",
        "of 67.1 MB",
        "column rewards is bad",
        "4,321 read",
    ):
        assert words in out


def test_an_episode_can_be_looked_at_by_number_and_key_and_its_frames_as_a_picture(
    here: Path, gato: Gato
) -> None:
    make_store(here / "store")
    by_number, by_key = gato("peek", "2", "store")[1], gato("peek", "k2", "store")[1]
    assert by_number == by_key
    for words in ("test/counter", "o/state", "20 x [2]", "int64", "rewards  3  3  3"):
        assert words in by_number
    status, out, _ = gato("peek", "p4", "store", "--frames", "frames.png")
    assert status == 0
    assert "20 frames of o/image in frames.png" in out
    picture = cv2.imread("frames.png")
    assert picture is not None
    # Every pixel of a frame is its step: the last of twenty is in the fourth row, second column.
    height, width = picture.shape[0] // 4, picture.shape[1] // 6
    assert picture[3 * height + height // 2, width + width // 2].tolist() == [19, 19, 19]
    status, _, err = gato("peek", "k2", "store", "--frames", "frames.png")
    assert status == 2
    assert "no images" in err


def test_verify_names_each_damaged_column_and_mending_takes_it_out_for_good(
    here: Path, gato: Gato
) -> None:
    folder = make_store(here / "store")
    status, out, _ = gato("verify", "store")
    assert status == 0
    assert "5 episodes are whole" in out
    flip_a_bit(folder, number=1)
    flip_a_bit(folder, number=4)
    flip_a_bit(folder, number=2, database="headers")
    before = (folder / "data.mdb").read_bytes()
    status, out, _ = gato("verify", "store")
    assert status == 1
    assert "episode 1 k1: column o/state does not match its checksum" in out
    assert "episode 4 p4: column o/image does not match its checksum" in out
    assert "episode 2: the header does not match its checksum" in out
    assert "2 episodes are whole, 3 damaged" in out
    assert (folder / "data.mdb").read_bytes() == before
    status, out, _ = gato("verify", "store", "--repair")
    assert status == 0
    assert "removed for good" in out
    status, out, _ = gato("verify", "store")
    assert status == 0
    assert "2 episodes are whole (3 were removed earlier" in out
    store = EpisodeStore(folder, capacity_bytes=CAPACITY)
    assert [header.key for header in store.episodes.values()] == ["k0", "k3"]
    assert store.add(counter_episode(0), tokens=1) is None
    # what was damaged may be handed in again
    assert store.add(counter_episode(1, 30), tokens=100) is not None
    store.quarantine(store.episodes[5], "for the test")
    store.close()
    status, out, _ = gato("compact", "store")
    assert status == 0
    assert "left out: episode 1 k1: column o/state does not match its checksum" in out
    assert "2 episodes are whole\n" in gato("verify", "store")[1]


def test_verify_finds_counts_keys_and_streams_that_contradict_each_other(
    here: Path, gato: Gato
) -> None:
    folder = make_store(here / "store")
    env = lmdb.open(str(folder), max_dbs=5, map_size=1 << 28)
    with env.begin(write=True) as txn:
        streams, counters = (env.open_db(name, txn=txn) for name in (b"streams", b"counters"))
        txn.put(b"k1\0", Intervals().to_bytes(), db=streams)
        txn.put(b"k3\0", b"torn", db=streams)
        txn.put(b"next", b"2", db=counters)
        txn.put(b"inserted_tokens", b"7", db=counters)
    env.close()
    status, out, _ = gato("verify", "store")
    assert status == 1
    for words in (
        "key 'k1' is not among the known ones",
        "'k3",
        "next one to be stored is 2",
        "only 7 were inserted",
    ):
        assert words in out
    assert gato("verify", "store", "--repair")[0] == 0
    assert gato("verify", "store")[0] == 0
    store = EpisodeStore(folder, capacity_bytes=CAPACITY)
    assert all(store.known(f"k{number}") for number in range(4))
    store.close()


def test_a_runs_limiter_is_paced_by_words_to_its_supervisor(here: Path, gato: Gato) -> None:
    folder = RunFolder.create(replace(RUNS["debug"], name="paced"))
    with open_journal(folder, None) as journal:
        folder.set_state("running")
        assert gato("pause", "paced")[0] == 0
        assert gato("resume", "paced")[0] == 0
        assert gato("limit", "paced", "--reads-per-token", "4", "--slack", "5000")[0] == 0
        assert gato("limit", "paced", "--uncoupled")[0] == 0
        assert gato("limit", "paced")[0] == 2  # nothing was asked for
        status, _, err = gato("limit", "paced", "--reads-per-token", "-1")
        assert status == 2
        assert "reads_per_inserted_token -1.0" in err
        words: list[Control] = []
        until(lambda: len(words) == 4 or words.extend(journal.take_control()))
        assert [(c.word, json.loads(c.value or "null")) for c in words] == [
            ("replay-pause", None),
            ("replay-resume", None),
            ("replay-limit", {"reads_per_inserted_token": 4.0, "slack_tokens": 5000}),
            ("replay-limit", {"reads_per_inserted_token": None}),
        ]
    folder.set_state("stopped")
    # a resumed run has it too
    assert folder.config().replay.limiter.slack_tokens == 5000
    assert gato("pause", "paced")[0] == 2


def test_a_missing_shard_is_damage(here: Path, gato: Gato) -> None:
    run = make_run("two", num_shards=2)
    (run.path / "replay" / "shard-1").rename(here / "elsewhere")
    status, out, _ = gato("verify", "two")
    assert status == 1
    assert "made of 2 shards, 1 are here" in out
    assert "folders are missing" in gato("stats", "two")[1]


def test_a_run_that_goes_on_is_not_compacted_or_mended(here: Path, gato: Gato) -> None:
    make_run("live", state="starting")
    for words in (
        ("compact", "live"),
        ("compact", "runs/live/replay"),
        ("verify", "live", "--repair"),
    ):
        status, _, err = gato(*words)
        assert status == 2
        assert "gato stop live first" in err
    writer = FolderLock(make_store(here / "loose"), WRITING)
    for words in (("compact", "loose"), ("verify", "loose", "--repair")):
        status, _, err = gato(*words)
        assert status == 2
        assert "writes to" in err
        assert len(err.strip().splitlines()) == 1
    writer.release()
    assert gato("compact", "loose")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ls",), "there are no runs"),
        (("ls", "nobody"), "no run, data set or folder 'nobody'"),
        (("ls", "stor"), "no run, data set or folder 'stor'"),
        (("ls", "."), "no replay store in ."),
        (("ls", "store", "--task", "countr"), "did you mean 'test/counter'"),
        (("ls", "store", "--source", "nobody"), "agent, teacher:t"),
        (("peek", "99", "store"), "numbers go from 0 to 4"),
        (("peek", "p4", "store", "--frames", "x.txt"), "x.txt must end in one of .png"),
        (("verify", "nowhere/at/all"), "no run, data set or folder"),
        (("compact", "nobody"), "no run, data set or folder"),
        (("export", "store", "--to", "out-v0"), "--task"),
        (
            ("export", "store", "--to", "out-v0", "--task", "counter", "--min-return", "1e9"),
            "lower --min-return",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    words: tuple[str, ...], message: str, here: Path, gato: Gato
) -> None:
    make_store(here / "store")
    status, _, err = gato(*words)
    assert status == 2
    assert message in err
    assert err.startswith("error:")
    assert len(err.strip().splitlines()) == 1


def test_a_file_that_is_no_store_is_said_to_be_none(here: Path, gato: Gato) -> None:
    (here / "other").mkdir()
    (here / "other" / "data.mdb").write_bytes(b"something else" * 1000)
    lmdb.open(str(here / "foreign")).close()
    for name in ("other", "foreign"):
        status, _, err = gato("stats", name)
        assert status == 2
        assert f"{name}" in err
        assert "Traceback" not in err


WRITER = """
import sys
from pathlib import Path
from gato.episode import AGENT
from replay.storage.store import EpisodeStore
from tests.replay.episodes import counter_episode
store = EpisodeStore(Path(sys.argv[1]), capacity_bytes=1 << 20)
number = 0
while True:
    store.add(counter_episode(number % 1000, 500, key=f"w0.a.{number}", source=AGENT), tokens=1)
    number += 1
    if number % 100 == 0:
        print(number, flush=True)
"""


@pytest.fixture
def written_to(here: Path) -> Iterator[Path]:
    """A store that another process writes to, and lets go of what is old."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(here / "busy")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield here / "busy"
    assert process.poll() is None
    process.kill()
    process.stdout.close()
    process.wait()


def test_looking_is_possible_while_another_process_writes(written_to: Path, gato: Gato) -> None:
    for _ in range(3):
        for words in (("ls", "busy"), ("stats", "busy"), ("verify", "busy")):
            status, out, err = gato(*words)
            assert status == 0, out + err
        newest = json.loads(gato("ls", "busy", "--json", "--limit", "1")[1])
        status, out, err = gato("peek", newest["key"], "busy")
        assert status == 0 or "there is no episode" in err
    status, _, err = gato("compact", "busy")
    assert status == 2
    assert "writes to" in err


def test_an_episode_is_exported_to_minari(shared_data: Path, gato: Gato) -> None:
    if importlib.util.find_spec("replay.formats.minari.export") is None:
        pytest.skip("replay.formats.minari.export, which writes Minari data sets, is not here")
    import h5py

    source = shared_data / "minari" / "mujoco" / "hopper" / "random-v0"
    assert gato_import(source) == 0
    status, out, err = gato("export", "hopper", "--to", "mine-v0", "--min-return", "5")
    assert status == 0, err
    assert "episodes of mujoco/hopper" in out
    lines = [
        json.loads(line) for line in gato("ls", "hopper", "--json", "--limit", "0")[1].splitlines()
    ]
    with h5py.File("mine-v0/data/main_data.hdf5") as file:
        returns = sorted(float(np.sum(group["rewards"][:])) for group in file.values())
    np.testing.assert_allclose(
        returns, sorted(line["return"] for line in lines if line["return"] >= 5), rtol=1e-5
    )


def gato_import(source: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "cluster.cli.main", "import", str(source), "--name", "hopper"],
        check=False,
        cwd=Path.cwd(),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    return done.returncode
