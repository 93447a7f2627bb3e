"""The report of a run is one file with all in it, in which names are text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cluster.journal.records import Event
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from gato.metrics import Evaluation
from gato.version import Version
from tests.cluster.cli.test_main import gato, here
from tests.cluster.journals import BEGIN_S, learner_report, written

__all__ = ["here"]
EVIL = "<script>alert(1)</script><img src=x onerror=y>\x1b[2J\"'&"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run(here: Path) -> RunFolder:
    folder = RunFolder.create(replace(RUNS["debug"], name="demo", about=EVIL))
    scale = {"random_return": 0.0, "teacher_return": 100.0, "human_return": 50.0}
    (folder.path / "scales.json").write_text(json.dumps({EVIL: scale, "mujoco/hopper": scale}))
    evaluation = Evaluation(task=EVIL, version=Version(1, 1), learner_step=1, returns=(10.0, 30.0))
    written(folder, [
        learner_report(1), evaluation,
        replace(evaluation, version=Version(1, 2), learner_step=2, returns=(60.0,)),
        replace(evaluation, task="mujoco/hopper"),
        Event(kind="failed", text=f"not finite {EVIL}", time_s=BEGIN_S),
    ])  # fmt: skip
    folder.set_state("finished")
    clips = folder.path / "clips" / "mujoco"
    clips.mkdir(parents=True)
    (clips / "hopper.gif").write_bytes(b"GIF89a-bytes")
    (clips / "hopper.json").write_text(json.dumps({"learner_step": 7, "return": 12.5}))
    (clips / f"{re.sub('[^a-z]', '', EVIL)}<b>.mp4").write_bytes(b"mp4-bytes")
    return folder


def test_all_is_in_one_file_and_names_are_text(
    run: RunFolder, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = gato(monkeypatch, capsys, "report", "demo", "demo.html")
    assert (status, err) == (0, "")
    page = (here / "demo.html").read_text()
    tags = Tags()
    tags.feed(page)
    names = [tag for tag, _ in tags.found]
    assert "script" not in names
    assert "b" not in [tag for tag, attrs in tags.found if attrs]
    assert "\x1b" not in page
    for _, attributes in tags.found:
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
        assert "href" not in attributes
    assert names.count("video") == 1
    assert names.count("img") == 1
    assert names.count("svg") == 2
    assert names.count("polyline") == 1
    for part in (
        "demo", "60", "0.60", "Interquartile mean over 2 tasks", "update 7, return 12.5",
        "failed", "All settings", "max_rate", EVIL.replace("\x1b", "\\x1b"),
    ):  # fmt: skip
        assert part in tags.text, part


def test_clips_that_are_too_large_are_named(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.exporters import report

    monkeypatch.setattr(report, "MAX_CLIPS_BYTES", 4)
    page = report.report_of(run)
    assert "data:image" not in page
    assert page.count("left out") == 2


def test_what_cannot_be_reported_is_a_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder.create(replace(RUNS["debug"], name="new")).set_state("stopped")
    for words, said in (
        (("new", "x.html"), "never got as far as a journal"),
        (("new", "x.pdf"), "must end in .html"),
        (("nobody", "x.html"), "there is no run"),
    ):
        status, _, err = gato(monkeypatch, capsys, "report", *words)
        assert status == 2
        assert said in err
