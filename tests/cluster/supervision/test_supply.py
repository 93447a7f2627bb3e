"""A limiter waits for nothing that never comes."""

from dataclasses import replace
from functools import partial

import pytest

from actors.config import ActorsConfig
from cluster.runs.config import RunConfig
from cluster.runs.presets import RUNS
from cluster.supervision.supply import Supply, reachable, supply_of
from replay.rate_limiter import Limiter, LimiterConfig

STORED = {"a": 500, "b": 5_000, "c": 0, "d": 70}
QUIET = ActorsConfig(
    generate_share=0.0, demonstration_steps=1_000, demonstration_steps_of={"c": 30}
)
supply = partial(
    supply_of, stored_steps=STORED, teachable=["a", "b", "c"], has_data=["a"], recorded=["d"]
)
NOTHING_MORE = Supply(steps={}, more_at_once=False, more=False)


def test_data_and_demonstrations_are_all_that_comes_if_nobody_plays() -> None:
    found = supply(QUIET)
    assert found.steps == {"a": 500, "b": 5_000, "c": 30, "d": 70}
    assert not found.more_at_once
    assert not found.more


@pytest.mark.parametrize(
    ("changes", "more_at_once", "more"),
    [
        ({"generate_share": 0.5}, True, True),
        ({"generate_share": 0.5, "play_from": 10}, False, True),
        ({"relabel_share": 0.5, "play_from": 10}, False, True),
        ({"demonstrate_share": 0.1, "play_from": 10}, True, True),
    ],
)
def test_what_is_played_comes_from_its_update_on(
    changes: dict[str, float], more_at_once: bool, more: bool
) -> None:
    found = supply(replace(QUIET, **changes))
    assert (found.more_at_once, found.more) == (more_at_once, more)


def test_roles_without_a_task_add_nothing() -> None:
    played = replace(QUIET, generate_share=0.2, relabel_share=0.2, demonstrate_share=0.2)
    assert not supply(played, recorded=list(STORED)).more
    assert not supply(replace(played, generate_share=0.0), teachable=[]).more
    assert supply(played, teachable=[]).more


def run_with(limiter: LimiterConfig, *, updates: int = 10) -> RunConfig:
    """Updates of 5,400 tokens."""
    demo = RUNS["demo"]
    return replace(
        demo,
        learner=replace(demo.learner, num_updates=updates),
        replay=replace(demo.replay, limiter=limiter),
    )


def test_a_warm_up_begins_with_half_of_what_comes_and_as_much_is_read() -> None:
    limiter = LimiterConfig(
        warmup_tokens=3_000_000, reads_per_inserted_token=4.0, slack_tokens=1_000_000
    )
    config = run_with(limiter)
    lowered, [note] = reachable(config, NOTHING_MORE, coming_tokens=2_001, inserted_tokens=7)
    assert lowered.warmup_tokens == 1_001
    assert "2,001 tokens, fewer than replay.limiter.warmup_tokens, 3,000,000" in note
    allowed, before = (of.slack_tokens + of.warmup_tokens * 4.0 for of in (lowered, limiter))
    assert allowed == before  # so that the config stays valid, whatever `play_from` is
    for unchanged in (
        reachable(config, NOTHING_MORE, coming_tokens=3_000_000, inserted_tokens=0),
        reachable(config, NOTHING_MORE, coming_tokens=2_001, inserted_tokens=3_000_000),
        reachable(config, NOTHING_MORE, coming_tokens=0, inserted_tokens=0),
        reachable(
            config, replace(NOTHING_MORE, more_at_once=True, more=True),
            coming_tokens=2_001, inserted_tokens=0,
        ),
    ):  # fmt: skip
        assert unchanged == (limiter, [])


def test_the_last_update_does_not_wait_either() -> None:
    limiter = LimiterConfig(warmup_tokens=1, reads_per_inserted_token=2.0, slack_tokens=50_000)
    config = run_with(limiter, updates=20)  # 108,000 tokens
    raised, [note] = reachable(config, NOTHING_MORE, coming_tokens=20_000, inserted_tokens=0)
    assert raised.slack_tokens == 108_000
    assert "20 updates read 108,000 tokens, the limiter lets 90,000 through" in note
    assert Limiter(raised, inserted_tokens=20_000, read_tokens=108_000 - 5_400).may_read()
    assert not Limiter(limiter, inserted_tokens=20_000, read_tokens=108_000 - 5_400).may_read()
    adds = replace(NOTHING_MORE, more=True)
    assert reachable(config, adds, coming_tokens=20_000, inserted_tokens=0) == (limiter, [])
    assert reachable(config, NOTHING_MORE, coming_tokens=29_000, inserted_tokens=0) == (limiter, [])
    uncoupled = replace(limiter, reads_per_inserted_token=None)
    free = run_with(uncoupled, updates=20)
    assert reachable(free, NOTHING_MORE, coming_tokens=20_000, inserted_tokens=0) == (uncoupled, [])
