"""A run's settings: in one file, kept by every command that changes them, and started again as they
are."""

from __future__ import annotations

import json
import threading
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.cli.lazy import LazyGroup
from cluster.cli.main import Commands
from cluster.cli.replay.main import ReplayCommands
from cluster.control.build_run import make_config
from cluster.control.run_control import active_run, scale, set_limiter, set_roles
from cluster.control.run_journal import open_journal
from cluster.journal.journal import Control
from cluster.runs.config import RunConfig
from cluster.runs.config_file import config_to_yaml, read_config, write_config
from cluster.runs.folder import RunFolder
from cluster.runs.overrides import override
from cluster.runs.presets import FINETUNE, RUNS
from gato.serialization import to_plain
from tests.actors.tasks.test_text_encoder import train
from tests.cluster.cli.test_main import gato, here
from tests.cluster.wait import until

__all__ = ["here"]
DEBUG = RUNS["debug"]


def built(run: str) -> RunConfig:
    return make_config(run, name=None, tasks=None, data=[], settings=[])


def test_what_is_printed_is_started_again_as_it_is(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for preset, config in RUNS.items():
        for name in config.data:  # what its start would have imported
            (here / "runs" / "data" / name).mkdir(parents=True)
            counts = {"episodes": 1, "steps": 1, "return_mean": 1.0, "returns": [1.0]}
            about = {"tasks": {"vqa/easy-vqa": counts}}
            (here / "runs" / "data" / name / "about.json").write_text(json.dumps(about))
        status, out, _ = gato(monkeypatch, capsys, "config", "show", preset)
        assert status == 0
        (here / "mine.yaml").write_text(out)
        assert read_config(here / "mine.yaml") == RUNS[preset]
        if preset == FINETUNE:
            with pytest.raises(ValueError, match=r"with --from RUN\|FILE"):
                built("mine.yaml")
        else:
            assert built("mine.yaml") == RUNS[preset]


def test_a_runs_own_file_is_started_again_with_its_text_encoder(here: Path) -> None:
    run = RunFolder.create(replace(DEBUG, name="mine", text="text.model"))
    (run.path / "text.model").write_bytes(train())
    again = built("runs/mine/config.yaml")
    assert again == replace(DEBUG, name="mine", text=str(run.path / "text.model"))


def test_a_file_may_name_a_preset_and_what_differs(here: Path) -> None:
    (here / "mine.yaml").write_text(
        "preset: demo\nname: mine\ntasks: [mujoco/hopper]\nlearner: {max_rate: 1e-3}\n"
        "actors:\n  evaluate_of:\n    mujoco/hopper: {temperature: 2, continuous: sample}\n"
        "replay: {limiter: {reads_per_inserted_token: null}}\n"
    )
    config = built("mine.yaml")
    assert config.tasks == ("mujoco/hopper",)
    assert (config.name, config.learner.max_rate) == ("mine", 1e-3)
    assert list(config.replay.mix.tasks) == ["mujoco/hopper"]
    assert config.replay.limiter.reads_per_inserted_token is None
    # A task's own settings begin with those of all tasks.
    general = RUNS["demo"].actors.evaluate
    assert config.actors.evaluate_of["mujoco/hopper"] == replace(
        general, temperature=2.0, continuous="sample"
    )


def test_toml_is_read_as_well(here: Path) -> None:
    (here / "mine.toml").write_text('preset = "debug"\nseed = 3\n[learner]\nmax_rate = 1e-3\n')
    assert tomllib.loads((here / "mine.toml").read_text())["seed"] == 3
    assert built("mine.toml") == override(DEBUG, ["seed=3", "learner.max_rate=1e-3"])


def test_numbers_and_names_in_a_file_are_those_of_yaml_1_2(here: Path) -> None:
    def read(text: str) -> RunConfig:
        (here / "mine.yaml").write_text(f"preset: debug\n{text}\n")
        return built("mine.yaml")

    assert read("learner: {num_updates: 0100}").learner.num_updates == 100
    assert read("seed: 0x1F").seed == 31
    assert read("name: 2026-11-28").name == "2026-11-28"
    with pytest.raises(ValueError, match="'1:40' is of another kind"):
        read("learner: {num_updates: 1:40}")
    with pytest.raises(ValueError, match="the name of a setting must be text"):
        read("? [a, b]\n: 1")
    merged = read("actors: {evaluate: &e {temperature: 2}, generate: {<<: *e, top_k: 3}}").actors
    assert (merged.evaluate.temperature, merged.generate.temperature) == (2.0, 2.0)
    assert merged.generate.top_k == 3


def test_a_table_without_settings_is_one(here: Path) -> None:
    (here / "mine.yaml").write_text("preset: debug\nreplay: {mix: {tables: {demo: {}}}}\n")
    assert list(built("mine.yaml").replay.mix.tables) == ["all", "demo"]
    (here / "mine.yaml").write_text("preset: debug\nlerner: {}\n")
    with pytest.raises(ValueError, match="unknown setting 'lerner'"):
        built("mine.yaml")


@pytest.mark.parametrize(
    "value", ["0100", "1:40", "1e-3", "on", "1_000", "2026-11-28", "null", "yes", "", "a: b"]
)
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, value: str) -> None:
    config = replace(DEBUG, about=value)
    write_config(config, tmp_path / "run.yaml")
    assert read_config(tmp_path / "run.yaml") == config


def test_settings_that_were_renamed_are_read_from_older_runs(tmp_path: Path) -> None:
    run = RunFolder.create(
        replace(DEBUG, actors=replace(DEBUG.actors, demonstrate_share=0.5)), root=tmp_path
    )
    expected = run.config()
    plain = to_plain(expected)
    actors = plain["actors"]
    actors["teach_share"] = actors.pop("demonstrate_share")
    actors["teach_noise"] = actors.pop("demonstration_noise")
    actors["evaluate"]["wished_return"] = actors["evaluate"].pop("target_return")
    # As runs kept it before they had a file of settings.
    file = run.path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"config": plain}))
    run.config_file.unlink()
    assert run.config() == expected
    changed = run.change_config(lambda config: config)
    assert read_config(run.config_file) == changed == expected


def test_what_is_asked_of_an_active_run_is_kept_for_its_resume(here: Path) -> None:
    run = RunFolder.create(replace(DEBUG, name="live"))
    with open_journal(run, None) as journal:
        run.set_state("running")
        folder = active_run("live")
        scale(folder, 3)
        set_roles(folder, {"relabel_share": 0.5})
        set_limiter(folder, {"slack_tokens": 5_000_000})
        with pytest.raises(ValueError, match="relabel_share"):
            set_roles(folder, {"relabel_share": 2.0})
        words: list[Control] = []
        until(lambda: len(words) == 3 or words.extend(journal.take_control()))
    assert words == [
        ("scale", "3"),
        ("roles", '{"relabel_share": 0.5}'),
        ("replay-limit", '{"slack_tokens": 5000000}'),
    ]
    config = run.config()
    assert (config.actors.num_workers, config.actors.relabel_share) == (3, 0.5)
    assert config.replay.limiter.slack_tokens == 5_000_000


def test_no_change_of_two_at_the_same_time_is_lost(tmp_path: Path) -> None:
    run = RunFolder.create(DEBUG, root=tmp_path)

    def add_one() -> None:
        for _ in range(10):
            run.change_config(lambda config: replace(config, seed=config.seed + 1))

    threads = [threading.Thread(target=add_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.config().seed == 40


def test_a_refused_change_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    run = RunFolder.create(DEBUG, root=tmp_path)
    before = run.config_file.read_bytes()
    with pytest.raises(ValueError, match="unknown setting"):
        run.change_config(lambda config: override(config, ["learner.no_such=1"]))
    assert run.config_file.read_bytes() == before
    assert config_to_yaml(DEBUG).encode() == before


@pytest.mark.parametrize("group", [Commands, ReplayCommands])
def test_the_table_of_commands_says_what_the_commands_say(
    group: type[LazyGroup], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert list(group.HELP) == list(group.MODULES)
    above = ["replay"] if group is ReplayCommands else []
    for name, line in group.HELP.items():
        status, out, _ = gato(monkeypatch, capsys, *above, name, "--help")
        assert status == 0
        assert line in " ".join(out.split())
