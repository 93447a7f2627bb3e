"""`gato tasks` lists every task with its tokens, teacher and references."""

import json
import os
import subprocess
import sys

import pytest

from actors.tasks.catalog import TASKS
from cluster.cli.tasks import domains, rows


def test_every_task_has_a_row_and_every_domain_some() -> None:
    by_name = {row.task: row for row in rows()}
    assert by_name.keys() == TASKS.keys()
    assert sum(len(rows(domain)) for domain in domains()) == len(TASKS)
    pong, reach = by_name["atari/pong"], by_name["metaworld/reach"]
    assert (pong.tokens_per_step, pong.teacher, pong.human) == (22, "rule", 14.6)
    assert (reach.tokens_per_step, reach.teacher, reach.extra) == (44, "expert", "metaworld")
    assert reach.teacher_success == 1.0
    assert by_name["mujoco/hopper"].teacher == "specialist"
    assert by_name["procgen/coinrun"].needs_python


def test_a_domain_that_does_not_exist_is_said_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"no domain 'metawold'; there are mujoco, .*metaworld"):
        rows("metawold")


def test_the_command_cuts_no_name() -> None:
    printed = subprocess.check_output(
        [sys.executable, "-P", "-m", "cluster.cli.main", "tasks"], text=True,
        env=os.environ | {"COLUMNS": "80"},
    )  # fmt: skip
    titles, *lines = printed.splitlines()
    assert titles.split()[:3] == ["task", "tokens", "steps"]
    assert [line.split()[0] for line in lines[: len(TASKS)]] == list(TASKS)


def test_the_command_prints_json() -> None:
    printed = subprocess.check_output(
        [sys.executable, "-P", "-m", "cluster.cli.main", "tasks", "--domain", "metaworld", "--json"]
    )
    listed = json.loads(printed)
    assert len(listed) == 50
    assert all(row["expert"] > row["random"] and row["source"] for row in listed)
