"""Runs as values: named, overridden, kept as JSON."""

import pytest

from cluster.commands import make_config
from cluster.config import RUNS, config_from_json, config_to_json, find_run_config, override
from cluster.launch import tasks_of


@pytest.mark.parametrize("name", RUNS)
def test_a_run_survives_json(name: str) -> None:
    assert config_from_json(config_to_json(RUNS[name])) == RUNS[name]


@pytest.mark.parametrize("name", RUNS)
def test_every_named_run_has_tasks_that_exist(name: str) -> None:
    assert tuple(tasks_of(RUNS[name])) == RUNS[name].tasks


def test_settings_are_overridden_by_path() -> None:
    config = override(RUNS["demo"], ["learner.num_updates=7", "replay.mix.rows=3", "learner.max_rate=1e-3", "seed=4"])
    assert (config.learner.num_updates, config.replay.mix.rows, config.learner.max_rate, config.seed) == (7, 3, 1e-3, 4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("learner.num_update=7", "did you mean 'learner.num_updates'"),
        ("learner.num_updates", "no '='"),
        ("learner.num_updates=many", "of another kind"),
        ("learner.num_updates=0", "at least 1"),
        ("replay.mix.row_tokens=4000", "longer than the model's context"),
    ],
)
def test_a_wrong_setting_says_how_to_mend_it(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(RUNS["demo"], [setting])


def test_an_unknown_run_or_task_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'demo'"):
        find_run_config("dmeo")
    with pytest.raises(ValueError, match="did you mean 'mujoco/hopper'"):
        make_config("demo", name=None, tasks=["mujoco/hoper"], data=[], settings=[])


def test_tasks_are_found_under_the_names_people_use() -> None:
    config = make_config("demo", name=None, tasks=["Hopper-v5", "PongNoFrameskip-v4"], data=[], settings=[])
    assert config.tasks == ("mujoco/hopper", "atari/pong")
