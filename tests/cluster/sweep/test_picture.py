"""The picture of a sweep."""

import xml.etree.ElementTree as ElementTree

import pytest

from cluster.runs.presets import RUNS
from cluster.sweep.journal import Ended, Planned, Report, SweepRecord
from cluster.sweep.picture import _linear, draw
from cluster.sweep.plan import SweepConfig
from cluster.sweep.state import trials_in

SVG = "{http://www.w3.org/2000/svg}"
SWEEP = SweepConfig(
    name="a<b", base=RUNS["debug"], words=(), scheduler="none", trials=3, evaluate_every=10,
    over={
        "learner.max_rate": "log:1e-4:1e-2",
        "learner.weight_decay": "uniform:0:1",
        "replay.mix.rows": "choice:8,16",
        "learner.bf16": "choice:true,null",
    },
    episodes=1, stores=("x",), scales={},
)  # fmt: skip


def records(*scores: float) -> list[SweepRecord]:
    made: list[SweepRecord] = []
    for number, score in enumerate(scores, 1):
        settings = {
            "learner.max_rate": number * 1e-3,
            "learner.weight_decay": 0.1 * number,
            "replay.mix.rows": 8,
            "learner.bf16": None,
        }
        made += [
            Planned(trial=number, settings=settings),
            Report(trial=number, generation=0, step=20, score=score / 2),
            Report(trial=number, generation=0, step=40, score=score),
            Ended(trial=number, how="finished"),
        ]
    return made


def test_each_trial_is_a_line_and_a_point_over_each_setting() -> None:
    root = ElementTree.fromstring(draw(SWEEP, list(trials_in(records(0.2, 0.9, 0.4)).values())))
    assert len(root.findall(f".//{SVG}polyline")) == 3
    assert len(root.findall(f".//{SVG}circle")) == 3 * 5
    titles = [t.text for t in root.findall(f".//{SVG}text[@class='title']")]
    assert titles == ["score over updates", *SWEEP.over]
    assert "trial 2" in (root.find(f".//{SVG}text[@class='head']").text or "")  # type: ignore[union-attr]
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for circle in root.findall(f".//{SVG}circle"):
        assert 0 <= float(circle.attrib["cx"]) <= width
        assert 0 <= float(circle.attrib["cy"]) <= height


@pytest.mark.parametrize("scores", [(), (0.0,), (0.5, 0.5), (-3.0, 1e6)])
def test_any_scores_can_be_drawn(scores: tuple[float, ...]) -> None:
    ElementTree.fromstring(draw(SWEEP, list(trials_in(records(*scores)).values())))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.013, 0.017), (-5.0, 700.0), (2.0, 2.0)])
def test_an_axis_holds_its_values_between_few_round_ticks(low: float, high: float) -> None:
    axis = _linear(low, high)
    assert 2 <= len(axis.ticks) <= 8
    assert 0.0 <= axis.place(low) <= axis.place(high) <= 1.0
    assert (axis.ticks[0][0], axis.ticks[-1][0]) == (0.0, 1.0)
