"""A run on questions beside a robot: it learns to answer, is evaluated on what was held out, and
answers at the command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from cluster.journal.journal_file import JournalFile
from gato.metrics import Evaluation
from tests.cluster.control.test_run import GATO, Shell
from tests.replay.formats.test_records import png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TASK = "vqa/q?answer_tokens=6&question_tokens=12"


def write(folder: Path, number: int) -> None:
    """Images of two colours; whether they are bright is the question."""
    for split, count in (("train", number), ("test", 8)):
        (folder / split / "images").mkdir(parents=True)
        asked: list[list[object]] = []
        for at in range(count):
            is_bright = at % 2 == 0
            (folder / split / "images" / f"{at}.png").write_bytes(png(230 if is_bright else 20))
            asked.append(["bright?", "yes" if is_bright else "no", at])
        (folder / split / "questions.json").write_text(json.dumps(asked))


def test_a_run_learns_to_answer_and_says_so(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    write(tmp_path / "q", 40)
    shell("import", "q", "--task", TASK)
    shell(
        "start", "debug", "--name", "asked", "--data", "q",
        "--tasks", f"{TASK},mujoco/inverted-pendulum", "--updates", "150",
        "--set", "model.context_tokens=72", "--set", "replay.mix.row_tokens=72",
        "--set", "actors.demonstration_steps=500",
        "--set", "learner.max_rate=5e-3", "--set", "learner.publish_every=50",
        "--set", "page.is_on=false",
    )  # fmt: skip
    done = json.loads(shell("evaluate", "asked", "--task", TASK, "--episodes", "8", "--json"))
    result = done["tasks"][TASK]
    assert result["measures"].keys() == {
        "yes/no", "yes/no by one constant answer", "bits per byte"
    }  # fmt: skip
    assert result["measures"]["yes/no by one constant answer"] == 0.5
    assert result["return"] == result["success"] == result["measures"]["yes/no"] > 0.9
    (tmp_path / "bright.png").write_bytes(png(225, (40, 40)))
    (tmp_path / "dark.png").write_bytes(png(24))
    assert shell("ask", "asked", "--image", "bright.png", "bright?") == "yes\n"
    said = json.loads(shell("ask", "asked", "--image", "dark.png", "bright?", "--json"))
    assert said == {"question": "bright?", "answer": "no"}
    # The run's own evaluations say the same on the chart, and nothing was played on the questions.
    found = [
        entry.record
        for entry in JournalFile(tmp_path / "runs" / "asked" / "journal").read()
        if isinstance(entry.record, Evaluation) and entry.record.task == TASK
    ]
    assert found[-1].failed is None
    assert len(found[-1].returns) == 256
    for words, says in (
        (("bright?",), "name its file with --image FILE"),
        (("bright?", "--image", "missing.png"), "cannot read missing.png"),
        (("bright?", "--image", "q/train/questions.json"), "is not an image"),
        (("is it very bright in here?", "--image", "dark.png"), "has room for 12"),
        (("--image", "dark.png"), "was not trained to caption images"),
    ):
        done_badly = subprocess.run(
            [str(GATO), "ask", "asked", *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=shell.environment,
            check=False,
        )
        assert (done_badly.returncode, done_badly.stdout) == (2, "")
        assert says in done_badly.stderr
        assert done_badly.stderr.count("\n") == 1
