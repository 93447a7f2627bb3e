"""Runs as values: named, overridden, kept in a file."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from actors.tasks.text_encoder import SentencePieceEncoder
from actors.teachers.specialist import SHIPPED
from cluster.control.build_run import make_config, scales_of, teacher_notes
from cluster.control.lifecycle import kept_text
from cluster.runs.config import RunConfig
from cluster.runs.config_file import config_to_yaml, read_config, write_config
from cluster.runs.folder import RunFolder
from cluster.runs.overrides import override, with_tasks
from cluster.runs.presets import RUNS, find_run_config
from cluster.runs.resolve import acting_configs, layout_of, tasks_of
from gato.acting.config import ActingConfig
from gato.serialization import from_plain, to_plain
from replay.sampling.config import TableConfig
from tests.actors.tasks.test_text_encoder import train
from tests.gato.models import TALK


def reread(config: RunConfig) -> RunConfig:
    """The config after it was written as JSON and built again."""
    return from_plain(RunConfig, json.loads(json.dumps(to_plain(config), allow_nan=False)))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_survives_its_file(name: str, tmp_path: Path) -> None:
    write_config(RUNS[name], tmp_path / "run.yaml")
    assert read_config(tmp_path / "run.yaml") == RUNS[name]


@pytest.mark.parametrize("name", RUNS)
def test_every_named_run_has_tasks_that_exist(name: str) -> None:
    assert tuple(tasks_of(RUNS[name])) == RUNS[name].tasks


def test_settings_are_overridden_by_path() -> None:
    config = override(
        RUNS["demo"],
        ["learner.num_updates=7", "replay.mix.rows=3", "learner.max_rate=1e-3", "seed=4"],
    )
    assert (
        config.learner.num_updates,
        config.replay.mix.rows,
        config.learner.max_rate,
        config.seed,
    ) == (7, 3, 1e-3, 4)


def test_tables_of_replay_are_changed_and_added() -> None:
    settings = [
        "replay.mix.tables.all.episodes=demonstrations",
        "replay.mix.tables.own.episodes=agent",
        "replay.mix.tables.own.selector=prioritized:0.6",
        "replay.mix.tables.own.share=0.5",
        "replay.num_shards=2",
        "replay.durability=always",
    ]
    config = reread(override(RUNS["demo"], settings))
    assert config.replay.mix.tables == {
        "all": TableConfig(episodes="demonstrations"),
        "own": TableConfig(episodes="agent", selector="prioritized:0.6", share=0.5),
    }
    assert (config.replay.num_shards, config.replay.durability) == (2, "always")


def test_single_tasks_are_acted_their_own_way() -> None:
    settings = [
        "actors.generate.temperature=0.5",
        "actors.generate_of.mujoco/hopper.top_p=0.9",
        "actors.evaluate_of.atari/freeway.discrete=sample",
        "actors.evaluate_of.atari/freeway.top_k=3",
    ]
    config = reread(override(RUNS["demo"], settings))
    generate, evaluate = acting_configs(config, "generate"), acting_configs(config, "evaluate")
    drawn = ActingConfig(continuous="sample", discrete="sample", temperature=0.5, window_steps=1)
    assert generate["atari/freeway"] == drawn
    assert generate["mujoco/hopper"] == replace(drawn, top_p=0.9)
    assert evaluate["mujoco/hopper"] == ActingConfig(window_steps=1)
    assert evaluate["atari/freeway"] == ActingConfig(discrete="sample", top_k=3, window_steps=1)
    fewer = with_tasks(config, ["atari/freeway"])
    assert (list(fewer.actors.evaluate_of), list(fewer.actors.generate_of)) == (
        ["atari/freeway"],
        [],
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("learner.num_update=7", "did you mean 'learner.num_updates'"),
        ("learner.num_updates", "no '='"),
        ("learner.num_updates=many", "of another kind"),
        ("learner.num_updates=0", "at least 1"),
        (
            "actors.generate_of.mujoco/hoper.top_p=0.9",
            "names task 'mujoco/hoper', run demo has mujoco/hopper",
        ),
        ("actors.generate_of.mujoco/hopper.top_q=0.9", "has no setting 'top_q'"),
        ("actors.evaluate.top_k=3", "nothing is drawn"),
        ("replay.mix.tables.own.selecter=fifo", "unknown setting"),
        ("replay.mix.tables.own.selector=fifoo", "the nearest is 'fifo'"),
        ("replay.durability=often", "'always', 'group', 'none'"),
        ("replay.num_shards=0", "1 to 64"),
        ("replay.mix.row_tokens=4000", "longer than the model's context"),
        (
            "actors.evaluation_episodes=1.5",
            "actors.evaluation_episodes: expected a whole number, got 1.5",
        ),
        ("actors.num_envs=null", "actors.num_envs: expected a whole number, got None"),
        ("actors.evaluate_of.mujoco/hopper=5", "expected a group of settings"),
        ("actors.teacher_of.mujoco/hopper=5", "expected text, got 5"),
        ("actors.demonstration_steps_of.mujoco/hoper=5", "names task 'mujoco/hoper'"),
        ("actors.demonstration_steps=-5", "must not be negative"),
        ("actors.play_from=-5", "must not be negative"),
        ("learner.num_learners=1000", "each needs one; lower learner.num_learners or raise"),
        ("learner.num_learners=0", "num_learners is 0, it must be at least 1"),
        ("learner.parallel=zero", "'ddp', 'fsdp'"),
        ("actors.hung_after_s=NaN", "more than twice"),
        ("actors.hung_after_s=60", "more than twice"),
        ("actors.inference=nowhere", "'worker', 'node'"),
        ("actors.generate_share=1.5", "between 0 and 1"),
        ("actors.demonstration_steps_of.atari/pong?sticky=0.25=1000", "which a path cannot"),
        ("learner.clip_gradient_norm=-1", r"clip_gradient_norm is -1\.0, .* above 0 .* or null"),
        ("learner.clip_gradient_norm=0", "or null"),
        ("learner.max_rate=NaN", "max_rate is nan, it must be above 0 and finite"),
        ("learner.max_rate=-1", "above 0"),
        ("learner.max_rate=1" + "0" * 400, "too many digits"),
        ("learner.betas=[0.9]", "expected a list of 2"),
        ("learner.betas=[0.9,0.95,0.99]", "expected a list of 2"),
        ("learner.betas=[1,0.9]", "below 1"),
        ("learner.epsilon=-1", "above 0"),
        ("learner.weight_decay=-1", "at least 0"),
        ("learner.weight_decay=NaN", "at least 0"),
        ("learner.spread_bins=-1", "at least 0"),
        ("learner.warmup_updates=-5", "at least 0"),
        ("learner.final_rate_fraction=7", "from 0 to 1"),
        ("model.num_layers=0", "num_layers 0 must be at least 1"),
        ("model.num_heads=0", "num_heads 0 must be at least 1"),
        ("model.width=0", "width 0 must be at least 1"),
        ("model.max_observation_tokens=-1", "must be at least 1"),
        ("actors.niceness=100", "between 0 and 19"),
        ("actors.clip_every_s=NaN", "clip_every_s nan must be at least 0"),
        ("actors.evaluate_every_s=-5", "must be at least 0"),
        ("replay.mix.tasks.mujoco/hopper.weight=NaN", "at least 0 and finite"),
        ("seed=" + "[" * 100_000, "nested too deeply"),
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
    config = make_config(
        "demo", name=None, tasks=["Hopper-v5", "PongNoFrameskip-v4"], data=[], settings=[]
    )
    assert config.tasks == ("mujoco/hopper", "atari/pong")


def test_a_task_without_references_has_no_scale() -> None:
    config = with_tasks(RUNS["demo"], ["mujoco/hopper", "atari/adventure", "CartPole-v1"])
    assert list(scales_of(config, {"atari/adventure": 5.0})) == ["mujoco/hopper"]
    assert list(tasks_of(reread(config))) == list(config.tasks)


def test_a_run_keeps_its_encoder_of_text_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.model").write_bytes(train())
    config = make_config("debug", name=None, tasks=None, data=[], settings=[], text="words.model")
    folder = RunFolder.create(replace(config, name="mine"), root=tmp_path)
    kept = replace(config, text=kept_text(config.text, folder))
    (tmp_path / "words.model").unlink()
    layout = layout_of(kept, {TALK.name: TALK}, folder.path)
    assert layout.encoder.encode("go to the red ball") == SentencePieceEncoder(train()).encode(
        "go to the red ball"
    )
    assert layout_of(kept, tasks_of(kept), folder.path).text is None  # nothing shows text
    assert layout_of(replace(kept, text="bytes"), {TALK.name: TALK}, None).encoder.encode("go") == [
        103,
        111,
    ]
    with pytest.raises(ValueError, match=r"no SentencePiece model in .*words\.model"):
        layout_of(config, {TALK.name: TALK}, None)


def test_shares_of_the_roles_come_to_no_more_than_all_of_the_time() -> None:
    with pytest.raises(ValueError, match=r"come to 1\.1 of the workers' time"):
        override(RUNS["demo"], ["actors.generate_share=0.5", "actors.relabel_share=0.6"])


def test_nobody_waits_for_play_that_waits_for_updates() -> None:
    settings = ["actors.play_from=2000", "replay.limiter.slack_tokens=1000"]
    with pytest.raises(ValueError, match=r"--set replay\.limiter\.slack_tokens=10800000"):
        override(RUNS["demo"], settings)
    override(RUNS["demo"], [settings[0], "replay.limiter.slack_tokens=10800000"])
    override(RUNS["demo"], [*settings, "replay.limiter.reads_per_inserted_token=null"])


def test_what_a_user_must_know_of_a_named_teacher_is_said_for_its_task() -> None:
    saved = Path(__file__).parents[2] / "data" / "sb3" / "sac_rescaled.zip"
    config = make_config(
        "demo", name=None, tasks=["mujoco/inverted-pendulum"], data=[], settings=[],
        teachers=[f"inverted-pendulum=sb3:{saved}?vecnormalize=none&allow=start"],
    )  # fmt: skip
    notes = teacher_notes(config)
    assert all(note.startswith("teacher of mujoco/inverted-pendulum: ") for note in notes)
    assert any("actions are scaled from [-1, 0.5]" in note for note in notes)
    assert teacher_notes(make_config("demo", name=None, tasks=None, data=[], settings=[])) == []


def test_teachers_are_named_for_tasks_and_found_from_every_folder(tmp_path: Path) -> None:
    config = make_config(
        "demo",
        name=None,
        tasks=["pong?sticky=0.25"],
        data=[],
        settings=[],
        teachers=["pong?sticky=0.25=rule"],
    )
    assert config.actors.teacher_of == {"atari/pong?sticky=0.25": "rule"}
    by_path = f"actors.teacher_of.mujoco/hopper=specialist:{os.path.relpath(SHIPPED)}"
    assert make_config(
        "demo", name=None, tasks=None, data=[], settings=[by_path]
    ).actors.teacher_of == {"mujoco/hopper": f"specialist:{SHIPPED}"}
    for wrong, message in (
        ("rule", "write it as TASK=SPEC"),
        ("hopper=expert", "unknown teacher 'expert'"),
    ):
        with pytest.raises(ValueError, match=message):
            make_config("demo", name=None, tasks=None, data=[], settings=[], teachers=[wrong])


def test_a_group_is_changed_where_it_is_named() -> None:
    before = replace(RUNS["debug"].actors.evaluate, temperature=2.0)
    config = replace(RUNS["debug"], actors=replace(RUNS["debug"].actors, evaluate=before))
    changed = override(config, ['actors.evaluate={"discrete": "sample"}'])
    assert changed.actors.evaluate == replace(before, discrete="sample")


def test_tasks_of_a_file_and_a_setting_have_their_own_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"

    def of_file(text: str) -> RunConfig:
        file.write_text(text)
        return make_config(str(file), name=None, tasks=None, data=[], settings=[])

    debug = RUNS["debug"]
    assert of_file("preset: debug\ntasks: [inverted-pendulum]\n") == debug
    twice = "preset: debug\ntasks: [inverted-pendulum, mujoco/inverted-pendulum]\n"
    assert of_file(twice).tasks == debug.tasks
    whole = config_to_yaml(debug).replace("mujoco/inverted-pendulum", "inverted-pendulum")
    assert of_file(whole) == debug
    assert override(debug, ['tasks=["inverted-pendulum"]']) == debug
    with pytest.raises(ValueError, match="did you mean 'mujoco/hopper'"):
        override(debug, ['tasks=["mujoco/hoper"]'])
