"""An evaluation that was killed goes on with the episodes that had ended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cluster.cli.evaluate import evaluate
from cluster.control.evaluation.evaluate import locate, log_file
from cluster.runs.evaluation_log import EvaluationLog, Played
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from cluster.supervision.scheduler import EVALUATION_SEED
from gato.acting.config import ActingConfig
from gato.network.model import Gato
from learner.checkpoints.state import Progress, save_checkpoint
from tests.replay.episodes import counter_episode

PENDULUM = "mujoco/inverted-pendulum"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    config = replace(RUNS["debug"], name="tiny")
    folder = RunFolder.create(config)
    torch.manual_seed(0)
    model = Gato(config.model)
    adam = torch.optim.AdamW(model.parameters())
    save_checkpoint(folder.path / "checkpoints", model, adam, Progress(step=1, number=1))
    return folder


def test_episodes_are_kept_as_they_end_and_not_played_again(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate("tiny", episodes=2, as_json=True)
    file = log_file(locate("tiny"))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(row["seed"] for row in rows) == [EVALUATION_SEED, EVALUATION_SEED + 1]
    for row in rows:
        row["return"] += 1000.0  # as no episode of the pendulum returns, so that it is known again
    half = json.dumps(rows[1])
    file.write_text(f"{json.dumps(rows[0])}\nnot json\n{half[: len(half) // 2]}")
    capsys.readouterr()

    evaluate("tiny", episodes=3, resume=True, as_json=True)
    returns = json.loads(capsys.readouterr().out)["tasks"][PENDULUM]["returns"]
    place = rows[0]["seed"] - EVALUATION_SEED
    assert returns[place] > 1000.0
    assert len(returns) == 3
    assert sum(value > 1000.0 for value in returns) == 1, "the cut one was played again"
    evaluate("tiny", episodes=3, resume=True, as_json=True)
    again = json.loads(capsys.readouterr().out)["tasks"][PENDULUM]["returns"]
    assert again == returns

    evaluate("tiny", episodes=1, as_json=True)
    fresh = json.loads(capsys.readouterr().out)["tasks"][PENDULUM]["returns"]
    assert fresh[0] < 1000.0
    assert file.with_suffix(".before.jsonl").is_file(), "what took hours is not thrown away"


def test_another_checkpoint_or_way_of_acting_is_another_evaluation(
    run: RunFolder, tmp_path: Path
) -> None:
    checkpoint = locate("tiny").path
    acting, other = ActingConfig(), ActingConfig(temperature=0.25)
    episode = replace(counter_episode(1, 3), seed=7)
    file = tmp_path / "log.jsonl"
    log = EvaluationLog(file, checkpoint, resume=True)
    log.add(episode, acting)
    log.close()
    again = EvaluationLog(file, checkpoint, resume=True)
    assert again.known(episode.task, acting) == {7: Played(episode.episode_return, None)}
    assert again.known(episode.task, other) == {}
    assert again.known("another", acting) == {}
    again.close()
    (checkpoint / "checkpoint.json").write_bytes(b"{}")
    later = EvaluationLog(file, checkpoint, resume=True)
    assert later.known(episode.task, acting) == {}
    later.close()
