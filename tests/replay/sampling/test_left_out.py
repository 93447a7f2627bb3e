"""What is stored but never drawn is counted by reason, by the very filters that leave it out."""

from dataclasses import replace
from pathlib import Path

import pytest

from gato.episode import AGENT
from gato.metrics import Amount
from gato.version import Version
from replay.config import ReplayConfig
from replay.sampling.config import TableConfig, TaskMix
from replay.service import ReplayService
from replay.storage.record import pack, record_to_bytes
from tests.replay.episodes import COUNTER, LAYOUT, TASKS, config, counter_episode

REWARDS = (0.1, 0.9, 1.0, 1.0)
"""Of the steps of four demonstrations of 10 steps: the first falls short of 80 % of the best."""


def mixed(changes: dict[str, object], **of_replay: object) -> ReplayConfig:
    made = config()
    filters = {"min_expert_fraction": None, "min_agent_score": None}
    return replace(made, mix=replace(made.mix, **(filters | changes)), **of_replay)


def filled(folder: Path, made: ReplayConfig) -> ReplayService:
    service = ReplayService(folder, TASKS, LAYOUT, made, seed=0)
    for number, reward in enumerate(REWARDS):
        service.add(record_to_bytes(pack(counter_episode(number, reward=reward))), timeout_s=1.0)
    for number in (1, 2, 3):
        episode = counter_episode(number, 5, key=f"a{number}", source=AGENT, reward=0.2 * number)
        service.add(record_to_bytes(pack(episode)), timeout_s=1.0)
    return service


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        (
            {"min_expert_fraction": 0.8},
            {"below 80% of the best demonstrations' return (8)": (1, 10)},
        ),
        (
            {"min_demonstration_score": 0.95},
            {"demonstrations below 0.95 of the reference": (2, 20)},
        ),
        ({"min_agent_score": 0.25}, {"the agent's own below 0.25 of the reference": (2, 10)}),
        ({"max_age_versions": 1}, {"played more than 1 versions ago": (1, 5)}),
        (
            {"tables": {"t": TableConfig(episodes="demonstrations")}},
            {"in no table that is drawn from": (3, 15)},
        ),
        ({"tasks": {COUNTER.name: TaskMix(weight=0.0)}}, {"its task has weight 0": (7, 55)}),
    ],
)
def test_each_reason_counts_its_episodes(tmp_path: Path, changes: dict, expected: dict) -> None:
    service = filled(tmp_path, mixed(changes))
    found = service.stats().left_out.get(COUNTER.name, {})
    assert found == {reason: Amount(episodes=e, steps=s) for reason, (e, s) in expected.items()}
    service.close()


def test_an_episode_counts_under_its_first_reason_alone(tmp_path: Path) -> None:
    made = mixed({"min_expert_fraction": 0.8, "min_demonstration_score": 0.95})
    service = filled(tmp_path, made)
    amounts = service.stats().left_out[COUNTER.name].values()
    assert sum(amount.episodes for amount in amounts) == 2
    service.close()


def test_what_is_left_out_is_what_is_never_drawn(tmp_path: Path) -> None:
    service = filled(
        tmp_path, mixed({"min_expert_fraction": 0.8, "min_agent_score": 0.25, "rows": 64})
    )
    drawn: set[str] = set()
    for index in range(30):
        sample = service.next_sample(index, timeout_s=5.0)
        assert sample is not None
        drawn |= set(sample.info.key)
    left_out = sum(amount.episodes for amount in service.stats().left_out[COUNTER.name].values())
    assert len(drawn) == 7 - left_out == 4
    service.close()


def test_what_ages_is_left_out_as_versions_are_published(tmp_path: Path) -> None:
    service = filled(tmp_path, mixed({"max_age_versions": 5}))
    assert service.stats().left_out == {}
    service.published(Version(1, 9))
    assert service.stats().left_out[COUNTER.name] == {
        "played more than 5 versions ago": Amount(episodes=3, steps=15)
    }
    service.close()


def test_what_was_drawn_as_often_as_it_may_be_is_named(tmp_path: Path) -> None:
    once = {"tables": {"t": TableConfig(max_times_sampled=1)}, "rows": 1, "prompt_fraction": 0.0}
    service = ReplayService(tmp_path, TASKS, LAYOUT, mixed(once), seed=0)
    service.add(record_to_bytes(pack(counter_episode(0, 20))), timeout_s=1.0)
    assert service.stats().left_out == {}
    service.next_batch(0, timeout_s=5.0)
    (reasons,) = service.stats().left_out.values()
    assert reasons == {"drawn as often as it may be": Amount(episodes=1, steps=20)}
    service.close()
