"""The weights store: newest wins, older epochs are fenced off, a restart forgets nothing."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from cluster.nodes.connect import connect_ray
from cluster.supervision.weights_store import Held, RemoteWeightsStore, WeightsStore
from gato.version import Version


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    connect_ray(None, namespace="test-weights")
    yield
    ray.shutdown()


def arrays(value: int) -> dict[str, np.ndarray]:
    return {"w": np.full((4, 3), value, np.uint16)}


def content(held: Held | None) -> int:
    assert held is not None
    return int(ray.get(held.reference)["w"][0, 0])


def test_whoever_asks_gets_only_what_is_newer(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path)
    assert store.newer_than(None) is None
    assert store.publish(Version(1, 1), 0, arrays(1))
    assert store.publish(Version(1, 2), 100, arrays(2))
    assert content(store.newer_than(Version(1, 1))) == 2
    assert store.newer_than(Version(1, 2)) is None


def test_a_late_or_second_delivery_changes_nothing(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path)
    store.publish(Version(1, 5), 0, arrays(5))
    for number in (5, 4):
        assert store.publish(Version(1, number), 0, arrays(99))
    assert content(store.newer_than(None)) == 5


def test_a_learner_of_an_earlier_epoch_is_refused(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path)
    store.publish(Version(2, 1), 0, arrays(2))
    assert not store.publish(Version(1, 900), 0, arrays(1))
    assert content(store.newer_than(None)) == 2


def test_a_store_that_is_started_again_has_the_newest_version(tmp_path: Path) -> None:
    WeightsStore(tmp_path).publish(Version(3, 7), 700, arrays(7))
    again = WeightsStore(tmp_path).newer_than(Version(3, 6))
    assert content(again) == 7
    assert again is not None
    assert (again.version, again.learner_step) == (Version(3, 7), 700)


def test_without_space_the_newest_version_is_served_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = WeightsStore(tmp_path)
    store.publish(Version(1, 1), 0, arrays(1))

    def no_space(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    assert store.publish(Version(1, 2), 0, arrays(2))
    assert content(store.newer_than(None)) == 2
    monkeypatch.undo()
    assert content(WeightsStore(tmp_path).newer_than(None)) == 1


def test_a_copy_has_the_version_of_its_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written, and whenever the store is killed."""
    store = WeightsStore(tmp_path)
    store.publish(Version(1, 1), 0, arrays(1))
    replace, written = os.replace, list[Held | None]()

    def killed_before_and_after(old: Path, new: Path) -> None:
        written.append(WeightsStore(tmp_path).newer_than(None))
        replace(old, new)
        written.append(WeightsStore(tmp_path).newer_than(None))

    monkeypatch.setattr(os, "replace", killed_before_and_after)
    store.publish(Version(1, 2), 100, arrays(2))
    assert [content(held) for held in written] == [held.version.number for held in written if held]
    assert content(written[-1]) == 2


def test_workers_get_a_version_while_it_is_written(tmp_path: Path) -> None:
    """The disk is a pipe that nobody reads yet."""
    store = RemoteWeightsStore.options(num_cpus=0).remote(tmp_path)
    assert ray.get(store.newer_than.remote(None)) is None
    os.mkfifo(tmp_path / "latest.draft")
    published = store.publish.remote(Version(1, 1), 0, arrays(1))
    held, deadline = None, time.monotonic() + 60.0
    while held is None:
        assert time.monotonic() < deadline
        held = ray.get(store.newer_than.remote(None), timeout=30.0)
    assert content(held) == 1
    assert not ray.wait([published], timeout=0.0)[0]
    (tmp_path / "latest.draft").read_bytes()
    assert ray.get(published)
