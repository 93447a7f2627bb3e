"""A run goes on with more updates: its learner may read as much as they need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cluster.control.build_run import make_config
from cluster.runs.config import RunConfig
from cluster.runs.presets import RUNS
from cluster.runs.resumed import with_changes
from replay.rate_limiter import LimiterConfig

FOLDER = Path("/nowhere")
MORE = ["learner.num_updates=6000"]


def test_what_follows_from_the_updates_follows_again() -> None:
    def fitted(updates: int) -> RunConfig:
        settings = [f"learner.num_updates={updates}"]
        return make_config("demo", name=None, tasks=["hopper"], data=[], settings=settings)

    assert with_changes(fitted(2000), MORE, FOLDER) == fitted(6000)


def test_another_limiter_lets_the_learner_make_all_updates() -> None:
    demo = RUNS["demo"]
    limiter = LimiterConfig(
        warmup_tokens=1, reads_per_inserted_token=2.0, slack_tokens=2000 * 120 * 45
    )
    config = replace(demo, replay=replace(demo.replay, limiter=limiter))
    more = with_changes(config, MORE, FOLDER)
    assert more.replay.limiter == replace(limiter, slack_tokens=6000 * 120 * 45)
    assert with_changes(more, MORE, FOLDER) == more  # once
    told = "replay.limiter.slack_tokens=7"
    assert with_changes(config, [*MORE, told], FOLDER).replay.limiter.slack_tokens == 7
    assert with_changes(config, ["learner.num_updates=9"], FOLDER).replay == config.replay
    free = replace(limiter, reads_per_inserted_token=None)
    config = replace(demo, replay=replace(demo.replay, limiter=free))
    assert with_changes(config, MORE, FOLDER).replay.limiter == free
