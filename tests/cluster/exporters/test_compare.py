"""Runs compared: groups of equal settings, averaged over seeds, with the settings that differ, as a
table, CSV and picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cluster.journal.records import Record
from cluster.monitor.bootstrap import interquartile_mean
from cluster.monitor.chart import Line, Panel, draw, ticks
from cluster.monitor.compare import ComparedRun, compare, seed_band
from cluster.monitor.curves import OVERALL, Axis, Curves, Point, read_curves
from cluster.monitor.scores import Scale, Spread
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from gato.metrics import Evaluation, WorkerReport
from gato.version import Version
from tests.cluster.cli.test_main import gato, here
from tests.cluster.journals import learner_report, written

__all__ = ["here"]
TASKS = ("mujoco/hopper", "atari/pong")
SCALE = Scale(random_return=0.0, teacher_return=100.0)


def records(scores: Mapping[int, float], *, by: float = 1.0) -> list[Record]:
    """By update: what both tasks return, on a scale of 0 to 1."""
    kept: list[Record] = []
    for step, score in scores.items():
        kept.append(learner_report(step))
        kept.append(
            WorkerReport(
                worker="w0", role="generate", task=TASKS[0], version=Version(1, step), episodes=1,
                env_steps=500, wall_s=1.0,
            )
        )  # fmt: skip
        kept.append(replace(kept[-1], role="evaluate"))
        for task, factor in zip(TASKS, (1.0, by), strict=True):
            kept += [
                Evaluation(
                    task=task, version=Version(1, step), learner_step=step,
                    returns=(100 * score * factor - 1, 100 * score * factor + 1),
                ),
                Evaluation(task=task, version=Version(1, step), learner_step=step, failed="broke"),
            ]  # fmt: skip
    return kept


def made(name: str, seed: int, scores: Mapping[int, float], *, rate: float = 1e-3) -> RunFolder:
    config = replace(RUNS["debug"], name=name, seed=seed, tasks=TASKS)
    config = replace(config, learner=replace(config.learner, max_rate=rate))
    run = RunFolder.create(config)
    scale = {"random_return": 0.0, "teacher_return": 100.0}
    (run.path / "scales.json").write_text(json.dumps(dict.fromkeys(TASKS, scale)))
    return written(run, records(scores), every_s=360.0)


def test_a_curve_knows_updates_time_tokens_and_steps(here: Path) -> None:
    from cluster.exporters.comparing import curves_of

    curves = curves_of(made("a", 0, {10: 0.1, 20: 0.3}))
    first, second = curves.tasks[TASKS[0]]
    assert (first.updates, second.updates) == (10, 20)
    assert first.normalised == pytest.approx(0.1)
    assert second.returns.count == 2
    assert (first.tokens, second.tokens) == (25_000, 50_000)
    assert (first.env_steps, second.env_steps) == (0, 500), "what was played by the report"
    assert second.hours == pytest.approx(0.7)
    assert curves.losses == ((10.0, 1.5), (20.0, 1.5))


def test_seeds_are_averaged_by_the_interquartile_mean_and_settings_that_differ_are_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, score in enumerate((0.2, 0.4, 0.6, 0.8)):
        made(f"slow{seed}", seed, {0: 0.0, 100: score})
    made("quick", 7, {0: 0.0, 50: 1.5, 200: 1.9}, rate=1e-2)
    names = ["slow0", "slow1", "quick", "slow2", "slow3"]
    status, out, err = gato(
        monkeypatch, capsys, "compare", *names, "--csv", "all.csv", "--picture", "all.svg"
    )
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["A", "slow0,", "slow1,", "slow2,", "slow3", "0,", "1,", "2,", "3"] in lines
    assert ["learner.max_rate", "0.001", "0.01"] in lines
    assert "seed" not in {line[0] for line in lines if line}
    (over,) = [line for line in lines if line[:3] == ["all", "tasks", "A"]]
    assert over[3] == "0.50"
    assert 0.2 <= float(over[4]) < 0.5 < float(over[5]) <= 0.8
    assert over[6:] == ["4", "100"]
    assert ["B", "1.90", "-", "-", "1", "200"] in lines

    rows = list(csv.DictReader((here / "all.csv").open(newline="")))
    last = [r for r in rows if r["group"] == "A" and not r["run"] and r["task"] == OVERALL][-1]
    assert (float(last["x"]), float(last["value"])) == (100, pytest.approx(0.5))
    quick = [r for r in rows if r["run"] == "quick" and r["task"] == TASKS[1]]
    assert [float(r["value"]) for r in quick] == pytest.approx([0.0, 1.5, 1.9])
    assert [r["episodes"] for r in quick] == ["2", "2", "2"]
    picture = ElementTree.parse(here / "all.svg")
    assert sum(node.tag.endswith("polyline") for node in picture.iter()) == 6
    assert sum(node.tag.endswith("polygon") for node in picture.iter()) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a", "nobody"), "there is no run 'nobody'"),
        (("a", "a"), "a is named twice"),
        (("a", "new"), "new has no evaluation yet"),
        (("a", "--picture", "a.png"), "must end in .svg"),
        (("a", "--csv", "no/where.csv"), "cannot write no/where.csv"),
    ],
)
def test_what_cannot_be_compared_is_a_line(
    words: tuple[str, ...],
    message: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made("a", 0, {0: 0.1})
    written(RunFolder.create(replace(RUNS["debug"], name="new")), [learner_report(1)])
    status, _, err = gato(monkeypatch, capsys, "compare", *words)
    assert status == 2
    assert message in err


class Journal:
    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def read(self, after_id: str = "0-0", *, block_s: float = 0.0, count: int = 1000):
        from cluster.journal.journal import Entry

        first = int(after_id.partition("-")[0])
        numbered = list(enumerate(self._records, start=1))[first : first + count]
        return [Entry(f"{number}-0", float(number), record) for number, record in numbered]


def run_of(name: str, scores: Mapping[int, float], settings: Mapping[str, object]) -> ComparedRun:
    curves = read_curves(Journal(records(scores)), name, dict.fromkeys(TASKS, SCALE))
    return ComparedRun(curves=curves, settings=settings)


def test_curves_are_compared_where_all_seeds_have_them_and_straight_between() -> None:
    settings = {"name": "x", "seed": 1, "learner": {"rate": 1}}
    a = run_of("a", {0: 0.0, 100: 1.0}, settings)
    b = run_of("b", {20: 0.2, 60: 0.6, 200: 0.6}, {**settings, "seed": 2})
    (group,) = compare([a, b])
    band = group.bands[TASKS[0]]
    assert band.xs == (20, 60, 100)
    assert band.values == pytest.approx((0.2, 0.6, 0.8))
    assert band.num_seeds == 2
    assert group.bands[OVERALL].num_tasks == 2


def test_runs_that_never_meet_have_no_common_curve() -> None:
    a, b = run_of("a", {0: 0.1}, {"seed": 1}), run_of("b", {50: 0.2}, {"seed": 2})
    (group,) = compare([a, b])
    assert group.bands == {}


def test_the_band_is_that_of_drawing_seeds_again() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0.5, 0.1, size=(3, 2, 8))
    values, lows, highs = seed_band(scores)
    assert values == pytest.approx(interquartile_mean(scores))
    assert (lows < values).all()
    assert (values < highs).all()
    wide = seed_band(0.5 + 3 * (scores - 0.5))
    assert (wide[2] - wide[1] > 2 * (highs - lows)).all()


def test_seeds_are_whole_networks_so_a_copy_of_a_task_narrows_no_band() -> None:
    scores = np.random.default_rng(0).normal(0.5, 0.1, size=(3, 1, 8))
    for one, three in zip(seed_band(scores), seed_band(scores.repeat(3, axis=1)), strict=True):
        assert three == pytest.approx(one)


@pytest.mark.parametrize("axis", ["hours", "env_steps"])
def test_a_curve_goes_along_its_axis_also_if_a_clock_was_set_back(axis: Axis) -> None:
    def point(updates: int, place: float) -> Point:
        places: dict[Axis, float] = {"hours": 0.0, "tokens": 0.0, "env_steps": 0.0, axis: place}
        return Point(
            updates=updates, **places, returns=Spread.of([float(updates)]), normalised=None
        )

    curve = (point(10, 1.0), point(20, 3.0), point(30, 2.0))
    run = ComparedRun(curves=Curves(run="a", tasks={"t": curve}), settings={})
    (group,) = compare([run], axis=axis)
    assert group.bands["t"].xs == (1.0, 2.0, 3.0)
    assert group.bands["t"].values == (10.0, 30.0, 20.0)


def resumed() -> list[Record]:
    """Ten hours to update 300, then a learner that goes on from update 100."""

    def at(epoch: int, step: int, value: float) -> list[Record]:
        version = Version(epoch, step)
        report = replace(learner_report(step, loss=value), version=version)
        return [
            report,
            Evaluation(task=TASKS[0], version=version, learner_step=step, returns=(value, value)),
        ]

    first = [*at(1, 100, 1.0), *at(1, 200, 2.0), *at(1, 300, 3.0)]
    begin = Evaluation(task=TASKS[0], version=Version(2, 300), learner_step=100, returns=(4.0, 4.0))
    late = Evaluation(task=TASKS[0], version=Version(1, 250), learner_step=250, returns=(9.0, 9.0))
    return [*first, begin, late, *at(2, 150, 5.0), *at(2, 250, 6.0)]


def test_a_learner_that_goes_back_takes_its_lost_weights_out_of_the_curve() -> None:
    curves = read_curves(Journal(resumed()), "a", {})
    points = curves.tasks[TASKS[0]]
    assert [(p.updates, p.returns.mean) for p in points] == [(100, 4.0), (150, 5.0), (250, 6.0)]
    assert [p.hours * 3600 for p in points] == pytest.approx([0.0, 8.0, 10.0])
    assert [p.tokens for p in points] == [25_000, 100_000, 125_000]
    assert curves.losses == ((100.0, 1.0), (150.0, 5.0), (250.0, 6.0))


def test_the_curve_of_a_result_is_that_of_the_weights_that_were_kept() -> None:
    from benchmarks.curve import curve

    journal = resumed()
    journal.append(replace(journal[-1], returns=(0.0,)))
    journal.append(replace(journal[-1], returns=(float("nan"), 1.0)))
    entries = Journal(journal).read(count=100)
    points = curve(entries, TASKS[0], 0.0, {"random_return": 0.0, "teacher_return": 10.0})
    assert [(p["step"], p["return"]) for p in points] == [(100, 4.0), (150, 5.0), (250, 6.0)]


def test_returns_that_are_not_finite_are_in_no_curve() -> None:
    bad = Evaluation(
        task=TASKS[0], version=Version(1, 5), learner_step=5, returns=(float("inf"), float("-inf"))
    )
    curves = read_curves(Journal([bad, *records({10: 0.5})]), "a", {})
    assert [p.updates for p in curves.tasks[TASKS[0]]] == [10]


def test_names_in_a_picture_are_text() -> None:
    evil = "</text><script>x</script>\x1b[2J"
    line = Line(name=evil, xs=[0, 1], ys=[0, 1])
    text = draw([Panel(title=evil, x_label=evil, lines=[line])], [(evil, 0)])
    assert "<script>" not in text
    assert "\x1b" not in text
    assert ElementTree.fromstring(text) is not None


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0, 40) == [0, 10, 20, 30, 40]
    assert ticks(-3, 1234) == [0, 500, 1000]
