"""A worker keeps environments as long as memory allows."""

from dataclasses import replace
from pathlib import Path

import pytest

from actors.envs.env import EnvFailedError
from actors.envs.factory import make_envs
from actors.envs.kept import KeptEnvs
from actors.envs.vector import VectorEnv
from actors.tasks.catalog import TASKS
from gato import memory
from gato.task import Task

POLE = TASKS["mujoco/inverted-pendulum"]
OTHERS = [replace(POLE, name=f"mine/{number}") for number in range(5)]


def test_environments_are_made_once_for_a_task_and_a_number() -> None:
    made: list[tuple[str, int]] = []

    def make(task: Task, num_envs: int) -> VectorEnv:
        made.append((task.name, num_envs))
        return make_envs(task, num_envs)

    envs = KeptEnvs(make, memory_is_short=lambda: False)
    first = envs.of(POLE, 2)
    assert envs.of(POLE, 2) is first
    assert envs.of(POLE, 1) is not first
    envs.drop(POLE, 2)
    envs.drop(POLE, 3)  # there are none
    assert envs.of(POLE, 2) is not first
    assert made == [(POLE.name, 2), (POLE.name, 1), (POLE.name, 2)]


def test_where_memory_is_short_the_least_recently_used_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_short = False
    envs = KeptEnvs(make_envs, memory_is_short=lambda: is_short)
    first, second, third = (envs.of(task, 1) for task in OTHERS[:3])
    closed: list[VectorEnv] = []
    for each in (first, second, third):
        monkeypatch.setattr(each, "close", lambda each=each: closed.append(each))
    envs.of(OTHERS[0], 1)
    is_short = True
    envs.of(OTHERS[3], 1)
    assert closed == [second]
    assert envs.of(OTHERS[0], 1) is first  # it is there already, and others are closed all the same
    assert closed == [second, third]
    assert len(envs) == 2
    is_short = False
    envs.of(OTHERS[1], 1)
    assert len(envs) == 3
    assert envs.of(OTHERS[0], 1) is first


def test_environments_that_cannot_be_made_or_closed_are_a_failed_environment() -> None:
    def make(task: Task, num_envs: int) -> VectorEnv:
        if task is OTHERS[1]:
            raise ValueError("no such arm")
        return make_envs(task, num_envs)

    envs = KeptEnvs(make, memory_is_short=lambda: True)
    broken = envs.of(OTHERS[0], 1)

    def close() -> None:
        raise EnvFailedError("gone")

    broken.close = close
    with pytest.raises(EnvFailedError, match="mine/1 could not be made: no such arm"):
        envs.of(OTHERS[1], 1)
    assert len(envs) == 0


def test_what_is_left_is_the_machines_or_the_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, group = tmp_path / "meminfo", tmp_path / "group"
    machine.write_text("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 300 kB\nHugePages: 0\n")
    monkeypatch.setattr(memory, "MACHINE", machine)
    monkeypatch.setattr(memory, "GROUP", group)
    assert memory.available_bytes() == 300 << 10
    much = 1 << 40
    assert memory.is_short(share=0.31, most_bytes=much)
    assert not memory.is_short(share=0.29, most_bytes=much)
    assert not memory.is_short(share=0.31, most_bytes=300 << 10)  # a share of much is enough
    group.mkdir()
    (group / "memory.max").write_text("200000\n")
    (group / "memory.current").write_text("170000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 8000\nactive_file 2000\nshmem 9\n")
    assert memory.available_bytes() == 40_000
    assert memory.is_short(share=0.21, most_bytes=much)
    assert not memory.is_short(share=0.19, most_bytes=much)
    (group / "memory.max").write_text("max\n")
    assert memory.available_bytes() == 300 << 10
    machine.unlink()
    assert memory.available_bytes() > 0
    assert not memory.is_short(share=0.9, most_bytes=much)
