"""Settings follow from the tasks where the user said nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from actors.tasks.catalog import TASKS
from cluster.control.build_run import make_config
from cluster.runs.config import RunConfig
from cluster.runs.config_file import config_from_plain, read_config, write_config
from cluster.runs.named.generalist import MORE_OFTEN
from cluster.runs.overrides import override
from cluster.runs.presets import DEMO_TASKS, FOLLOW_TASKS, RUNS
from cluster.runs.resolve import check_fits, tasks_of
from cluster.runs.task_settings import (
    MAX_TEACHER_S,
    RANDOM_SHARE,
    RELABEL_FROM,
    RELABEL_SHARE,
    all_needs,
    fit_to_tasks,
    needs_of,
    with_derived,
)
from gato.config import PRESETS
from replay.rate_limiter import Limiter
from tests.gato.models import TALK

SIX = (
    "mujoco/hopper",
    "mujoco/halfcheetah",
    "mujoco/walker2d",
    "atari/pong",
    "atari/freeway",
    "atari/breakout",
)
LAYOUT = PRESETS["small"].layout


def started(tasks: tuple[str, ...] = SIX, *settings: str, run: str = "demo") -> RunConfig:
    """What `gato start RUN --tasks ... --set ...` makes."""
    return make_config(run, name=None, tasks=tasks, data=[], settings=settings)


@pytest.mark.parametrize("run", FOLLOW_TASKS)
@pytest.mark.parametrize("tasks", [("mujoco/humanoid",), ("mujoco/reacher",), SIX])
def test_any_list_of_tasks_fits(run: str, tasks: tuple[str, ...]) -> None:
    if tasks == ("mujoco/humanoid",):  # no teacher of it ships: data would be brought
        config = fit_to_tasks(RUNS[run], {name: TASKS[name] for name in tasks})
    else:
        config = started(tasks, run=run)
    assert config.tasks == tasks
    check_fits(config, tasks_of(config))
    assert config.replay.mix.row_tokens <= config.model.context_tokens


def test_a_task_that_shows_text_fits() -> None:
    config = fit_to_tasks(RUNS["demo"], {TALK.name: TALK})
    (needs,) = all_needs(config, {TALK.name: TALK})
    assert needs.observation_tokens <= config.model.max_observation_tokens
    assert 2 * needs.tokens_per_step <= config.replay.mix.row_tokens


def test_no_task_keeps_what_another_run_gave_it() -> None:
    config = started()
    of_hopper = config.replay.mix.tasks["mujoco/hopper"]
    assert of_hopper != RUNS["demo"].replay.mix.tasks["mujoco/hopper"]
    wanted = config.actors.demonstration_steps_of
    assert set(wanted) == set(SIX)
    assert max(wanted.values()) < 4 * min(wanted.values())


def test_each_task_is_trained_on_as_often_as_it_asks_for() -> None:
    config = started()
    mix = config.replay.mix
    total = sum(of.weight or 0.0 for of in mix.tasks.values())
    for needs in all_needs(config):
        share = (mix.tasks[needs.name].weight or 0.0) / total
        steps = config.learner.num_updates * share * mix.rows * needs.steps_in(mix.row_tokens)
        assert steps == pytest.approx(needs.trained_steps, rel=0.05)


def test_a_teacher_whose_returns_vary_demonstrates_more() -> None:
    pong, breakout = (needs_of(TASKS[f"atari/{game}"], LAYOUT) for game in ("pong", "breakout"))
    assert pong.spread < breakout.spread
    assert pong.demonstration_steps < breakout.demonstration_steps


def test_a_slow_teacher_demonstrates_no_longer_than_its_limit() -> None:
    hopper = TASKS["mujoco/hopper"]
    slow = needs_of(replace(hopper, name="Slow-v0", family="gymnasium"), LAYOUT)
    assert slow.teacher_s == MAX_TEACHER_S
    assert needs_of(hopper, LAYOUT).teacher_s < MAX_TEACHER_S


def test_no_game_of_a_teacher_is_left_out_because_it_went_badly() -> None:
    assert started().replay.mix.min_expert_fraction is None
    said = started(SIX, "replay.mix.min_expert_fraction=0.5")
    assert said.replay.mix.min_expert_fraction == 0.5
    with_data = replace(RUNS["demo"], data=("mine",))
    tasks = {name: TASKS[name] for name in SIX}
    assert fit_to_tasks(with_data, tasks).replay.mix.min_expert_fraction == 0.8


@pytest.mark.parametrize("config", [started(), RUNS["generalist"], RUNS["generalist-79m"]])
def test_wanted_demonstrations_and_updates_are_never_held_back(config: RunConfig) -> None:
    mix, needs = config.replay.mix, all_needs(config)
    wanted = sum(of.demonstration_steps * of.tokens_per_step for of in needs)
    filled = Limiter(config.replay.limiter, inserted_tokens=wanted)
    assert filled.may_insert()
    assert filled.may_read()
    reads = config.learner.num_updates * mix.rows * mix.row_tokens
    assert Limiter(config.replay.limiter, inserted_tokens=wanted, read_tokens=reads).may_read()


def test_they_come_more_often_among_other_tasks_too() -> None:
    tasks = ["mujoco/hopper", "atari/pong", "atari/freeway"]
    config = make_config("generalist", name=None, tasks=tasks, data=[], settings=[])
    plain = fit_to_tasks(RUNS["generalist"], {name: TASKS[name] for name in tasks})
    weights, before = config.replay.mix.tasks, plain.replay.mix.tasks
    assert weights["atari/pong"].weight == pytest.approx(
        2.5 * (before["atari/pong"].weight or 0.0), rel=0.01
    )
    assert weights["atari/freeway"].weight == before["atari/freeway"].weight
    assert config.actors.relabel_share > 0.0


def test_the_generalists_hard_games_come_more_often_and_take_no_rows_from_the_others() -> None:
    config = RUNS["generalist"]
    plain = fit_to_tasks(config, {name: TASKS[name] for name in config.tasks})
    before, after = plain.replay.mix.tasks, config.replay.mix.tasks
    for name in config.tasks:
        of, was = after[name].weight, before[name].weight
        assert of is not None
        assert was is not None
        assert of == pytest.approx(was * MORE_OFTEN.get(name, 1.0), abs=0.02)
    rows, rows_before = (
        sum(of.weight or 0.0 for of in tasks.values()) for tasks in (after, before)
    )
    assert config.learner.num_updates / plain.learner.num_updates == pytest.approx(
        rows / rows_before, rel=0.01
    )


@pytest.mark.parametrize("run", ["mt50", "breadth"])
def test_one_of_a_runs_tasks_alone_has_demonstrations_enough_to_begin(run: str) -> None:
    config = RUNS[run]
    need = all_needs(config)[0]
    wanted = need.demonstration_steps * need.tokens_per_step
    assert Limiter(config.replay.limiter, inserted_tokens=wanted).may_read()


def test_teachers_show_how_to_recover_and_relabel_the_agents_play() -> None:
    actors = started().actors
    assert actors.demonstration_random_share == RANDOM_SHARE
    assert actors.relabel_share == RELABEL_SHARE
    assert actors.play_from == int(RELABEL_FROM * started().learner.num_updates)
    few = started(SIX, "learner.num_updates=200").actors
    assert few.play_from == int(RELABEL_FROM * 200)
    said = started(
        SIX,
        "actors.relabel_share=0",
        "actors.demonstration_random_share=0",
        "actors.play_from=7",
    ).actors
    assert (said.relabel_share, said.demonstration_random_share, said.play_from) == (0.0, 0.0, 7)
    for run in ("demo", "generalist"):
        with_data = fit_to_tasks(
            replace(RUNS[run], data=("mine",)), {name: TASKS[name] for name in SIX}
        ).actors
        assert with_data.relabel_share == with_data.demonstration_random_share == 0.0
        assert with_data.play_from == 0


@pytest.mark.parametrize("run", ["demo", "generalist"])
def test_shares_of_the_user_are_left_to_the_other_roles(run: str, tmp_path: Path) -> None:
    said = started(SIX, "actors.generate_share=0.8", run=run).actors
    assert said.generate_share == 0.8
    assert said.relabel_share == pytest.approx(0.2)
    file = tmp_path / "mine.yaml"
    tasks = ", ".join(SIX)
    file.write_text(f"preset: demo\ntasks: [{tasks}]\nactors: {{generate_share: 0.8}}\n")
    assert read_config(file).actors.relabel_share == pytest.approx(0.2)


def test_the_agent_plays_before_a_limiter_of_the_user_stops_the_learner() -> None:
    config = started(SIX, "replay.limiter.slack_tokens=100000")
    assert 0 < config.actors.play_from < int(RELABEL_FROM * config.learner.num_updates)


def test_little_data_is_enough_to_begin() -> None:
    with_data = with_derived(replace(started(("mujoco/hopper",)), data=("mine",)))
    assert Limiter(with_data.replay.limiter, inserted_tokens=100).may_read()
    assert not Limiter(started().replay.limiter, inserted_tokens=100).may_read()


def test_what_the_user_says_stays() -> None:
    config = started(
        SIX,
        "learner.num_updates=500",
        "replay.mix.rows=7",
        "replay.mix.tasks.mujoco/hopper.weight=9",
        "actors.demonstration_steps_of.mujoco/hopper=1000",
        "replay.limiter.reads_per_inserted_token=3.5",
    )
    assert config.learner.num_updates == 500
    assert config.replay.mix.rows == 7
    assert config.replay.mix.tasks["mujoco/hopper"].weight == 9
    assert config.actors.demonstration_steps_of["mujoco/hopper"] == 1000
    assert config.replay.limiter.reads_per_inserted_token == 3.5


def test_the_limiter_follows_from_the_updates_that_the_user_says() -> None:
    few, many = (started(SIX, f"learner.num_updates={number}") for number in (500, 20_000))
    assert few.replay.limiter.slack_tokens < many.replay.limiter.slack_tokens


@pytest.mark.parametrize("names", [None, RUNS["generalist"].tasks])
def test_other_updates_of_a_preset_that_follows_its_tasks(names: tuple[str, ...] | None) -> None:
    settings = ["learner.num_updates=1000"]
    config = make_config("generalist", name=None, tasks=names, data=[], settings=settings)
    assert config.actors.play_from == int(RELABEL_FROM * 1000)
    assert config.replay.limiter.slack_tokens < RUNS["generalist"].replay.limiter.slack_tokens
    assert config.replay.mix == RUNS["generalist"].replay.mix
    from_file = config_from_plain({"preset": "generalist", "learner": {"num_updates": 1000}})
    assert from_file == config
    demo = make_config("demo", name=None, tasks=names and DEMO_TASKS, data=[], settings=settings)
    assert demo == override(RUNS["demo"], settings)  # its settings are its own


@pytest.mark.parametrize("is_whole", [False, True])
def test_other_updates_than_a_file_s(is_whole: bool, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: generalist\nlearner: {num_updates: 500}\n")
    if is_whole:
        write_config(read_config(file), file)
    settings = ["learner.num_updates=1000"]
    config = make_config(str(file), name=None, tasks=None, data=[], settings=settings)
    of_preset = make_config("generalist", name=None, tasks=None, data=[], settings=settings)
    assert config == of_preset


def test_what_a_file_says_of_the_limiter_stays_with_other_updates(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: generalist\nreplay: {limiter: {slack_tokens: 123456789}}\n")
    settings = ["learner.num_updates=1000"]
    config = make_config(str(file), name=None, tasks=None, data=[], settings=settings)
    assert config == override(read_config(file), settings)


def test_the_tasks_of_a_preset_leave_it_as_it_is() -> None:
    demo = RUNS["demo"]
    assert started(demo.tasks) == demo
    assert started(RUNS["generalist"].tasks, run="generalist") == RUNS["generalist"]


def test_a_file_with_a_preset_and_tasks_follows_them_where_it_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "preset: demo\ntasks: [hopper, pong]\nlearner: {num_updates: 300}\n"
        "replay: {limiter: {slack_tokens: 123456789}}\n"
    )
    config = read_config(file)
    assert config.tasks == ("mujoco/hopper", "atari/pong")
    assert config.learner.num_updates == 300
    assert config.replay.limiter.slack_tokens == 123456789
    assert set(config.actors.demonstration_steps_of) == set(config.tasks)


def test_a_whole_file_says_everything(tmp_path: Path) -> None:
    write_config(RUNS["demo"], tmp_path / "config.yaml")
    config = make_config(
        str(tmp_path / "config.yaml"), name=None, tasks=["hopper"], data=[], settings=[]
    )
    assert config.learner == RUNS["demo"].learner
    assert config.replay.limiter == RUNS["demo"].replay.limiter


def test_the_limiter_is_the_same_however_often_it_follows() -> None:
    config = started()
    assert with_derived(with_derived(config)) == with_derived(config) == config


@pytest.mark.parametrize(
    "told",
    [
        ["replay.limiter.reads_per_inserted_token=3.5"],
        [
            'replay.limiter={"warmup_tokens": 9, "reads_per_inserted_token": 3.5,'
            ' "slack_tokens": 900000000}'
        ],
    ],
)
@pytest.mark.parametrize("names", [None, SIX])
def test_what_the_user_says_stays_alone_or_in_a_group(
    told: list[str], names: tuple[str, ...] | None
) -> None:
    config = make_config("generalist", name=None, tasks=names, data=[], settings=told)
    assert config.replay.limiter.reads_per_inserted_token == 3.5
