"""Checkpoints of a specialist's training: whatever stops one from being written, the training goes
on from a whole one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from actors.tasks.catalog import TASKS
from actors.teachers.train.config import settings_for
from actors.teachers.train.loop import _load, _save, _State, checkpoint_folder
from tests.actors.teachers.train.test_rllib import CountingTrainer

CONFIG = settings_for("inverted-pendulum", seed=1, env_steps=4500)
RMTREE, RENAME = shutil.rmtree, Path.rename


class Killed(BaseException):
    """The process ends here."""


class Killer:
    """Lets some deletions and changes of name pass; at the next one it kills, in its midst."""

    def __init__(self, passes: int) -> None:
        self._passes = passes

    def _dies(self) -> bool:
        self._passes -= 1
        return self._passes < 0

    def rmtree(self, path: Path, ignore_errors: bool = False) -> None:
        if path.is_dir() and self._dies():
            RMTREE(path / "algorithm")
            raise Killed
        RMTREE(path, ignore_errors=ignore_errors)

    def rename(self, path: Path, target: Path) -> Path:
        if self._dies():
            raise Killed
        return RENAME(path, target)


def trainer_at(count: int) -> CountingTrainer:
    trainer = CountingTrainer(CONFIG, TASKS[CONFIG.task])
    trainer.count = count
    return trainer


@pytest.mark.parametrize("passes", range(5))
def test_one_that_is_replaced_is_whole_wherever_it_was_stopped(
    passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, again = checkpoint_folder(tmp_path, CONFIG), trainer_at(0)
    _save(folder, CONFIG, trainer_at(1), _State(steps=1))
    killer, stopped = Killer(passes), False
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killer.rmtree)
        patched.setattr(Path, "rename", lambda path, target: killer.rename(path, target))
        try:
            _save(folder, CONFIG, trainer_at(2), _State(steps=2))
        except Killed:
            stopped = True
    # state.json, the old one aside, deleted, the new one in its place
    assert stopped == (passes < 4)
    state = _load(folder, CONFIG, again)
    assert state.steps == again.count == (1 if passes == 0 else 2)
    _save(folder, CONFIG, trainer_at(3), _State(steps=3))
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert _load(folder, CONFIG, again).steps == again.count == 3
