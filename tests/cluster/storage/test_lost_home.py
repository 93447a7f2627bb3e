"""A run goes on at another home when its own is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.storage.manifest import Manifest, newest_manifest
from cluster.storage.place import Place
from replay.storage.store import EpisodeStore
from tests.cluster.hosts import Host, hosts, missing, wait_for


def status(host: Host) -> dict[str, object]:
    done = host.gato("watch --once --json", check=False)
    return json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else {}


def learner(host: Host) -> tuple[int, int]:
    """Epoch of the newest version, and updates."""
    found = status(host).get("learner")
    if not isinstance(found, dict):
        return 0, -1
    return int(str(found["version"]).partition(".")[0]), int(found["step"])


def kept(folder: Path) -> dict[str, int]:
    store = EpisodeStore(folder, capacity_bytes=1 << 30, read_only=True)
    try:
        return {header.key: number for number, header in store.episodes.items()}
    finally:
        store.close()


def newest(shared: Path) -> Manifest | None:
    ids = [folder.name for folder in shared.iterdir()] if shared.is_dir() else []
    return newest_manifest(Place(str(shared), ids[0])) if ids else None


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(bool(missing()), reason=missing() or "it can")
def test_a_run_goes_on_at_another_home_and_never_again_at_the_lost_one(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    with hosts(3, tmp_path) as (head, home, other):
        head.gato(f"cluster start --host {head.address} --cpus 0 --gpus 0 --name head")
        token = (head.home / ".ray/auth_token").read_text()
        join = f"cluster join {head.address}:6379 --token-file - --gpus 0 --cpus 2"
        home.gato(f"{join} --name home", input=token)
        other.gato(f"{join} --name other", input=token)
        head.gato(
            f"start debug --address {head.address}:6379 --home home --updates 900000 --workers 1"
            f" --detach --storage {shared} --set storage.every_s=2"
            " --set learner.checkpoint_every=50"
        )
        wait_for(lambda: (m := newest(shared)) and any("step-" in name for name in m.files))
        wait_for(lambda: (m := newest(shared)) and m.shards["replay"].packs)
        refused = head.gato("resume debug --home other", check=False)
        assert refused.returncode == 2
        assert "moves only when its home is lost" in refused.stderr

        home.kill()
        copy = newest(shared)
        assert copy is not None
        saved = max(int(name.split("/")[1][5:]) for name in copy.files if "step-" in name)
        last = copy.shards["replay"].packs[-1].last
        at_home = kept(home.work / "runs/debug/replay")
        wait_for(lambda: "dead" in head.gato("cluster nodes").stdout)
        refused = head.gato("resume debug", check=False)
        assert "--home NODE" in refused.stderr
        head.gato("resume debug --home other --detach")
        wait_for(lambda: learner(head)[0] > 1)
        epoch, step = learner(head)
        assert epoch == 9
        assert step >= saved
        wait_for(lambda: learner(head)[1] > step)

        home.gato(f"{join} --name home-again", input=token)
        refused = home.gato("resume debug", check=False)
        assert refused.returncode == 2
        assert "has moved to other" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
        head.gato("stop")
        refused = home.gato("resume debug", check=False)
        assert "has moved to other" in refused.stderr

        moved = kept(other.work / "runs/debug/replay")
        assert len(set(moved)) == len(moved)
        assert {key for key, number in at_home.items() if number <= last} <= set(moved)
        assert "episodes are whole" in other.gato("replay verify debug").stdout
        head.gato("resume debug --detach")  # it remembers where it lives now
        wait_for(lambda: learner(head)[0] == 10)
        head.gato("stop")
