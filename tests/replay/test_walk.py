"""The walk of an episode from its writer to the disk is straight: packed once, parsed once, checked
once, its key split once in each process."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from gato.episode import Episode
from replay.service import ReplayService
from replay.shards import shard_of
from replay.storage.record import pack, record_to_bytes
from tests.replay.episodes import LAYOUT, TASKS, config, counter_episode, picture_episode

ROOT = str(Path(__file__).parents[2])


def calls_of(work: Callable[[], object]) -> Counter[str]:
    """How often each function of this repository is called by `work`, by its qualified name."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            calls[frame.f_code.co_qualname] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("episode", [counter_episode(1), picture_episode(1)])
def test_a_writer_packs_an_episode_and_splits_its_key_once(episode: Episode) -> None:
    def send() -> None:
        record = pack(episode)
        shard_of(record.key, 2)
        record_to_bytes(record)

    calls = calls_of(send)
    assert (calls["pack"], calls["record_to_bytes"], calls["split_key"]) == (1, 1, 1)
    assert calls["shard_of"] == 1


@pytest.mark.parametrize("episode", [counter_episode(1), picture_episode(1)])
def test_replay_parses_checks_and_keys_a_record_once_and_rebuilds_no_episode(
    tmp_path: Path, episode: Episode
) -> None:
    service = ReplayService(tmp_path, TASKS, LAYOUT, config(), seed=0)
    data = record_to_bytes(pack(episode))
    calls = calls_of(lambda: service.add(data, timeout_s=1))
    once = (
        "record_from_bytes",
        "check_record",
        "check_arrays",
        "split_key",
        "EpisodeStore.add_all",
    )
    assert {name: calls[name] for name in once} == dict.fromkeys(once, 1)
    num_values = len(pack(episode).values)
    assert calls["open_value"] == num_values  # each checksum is compared once
    never = ("pack", "record_to_bytes", "Episode.__post_init__", "check_episode", "episode_of")
    assert {name: calls[name] for name in never} == dict.fromkeys(never, 0)
    assert service.keys() == [episode.key]
    service.close()
