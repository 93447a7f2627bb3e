"""The table of tasks: what each environment shows and takes, and the returns that it is measured
against."""

from __future__ import annotations

from collections.abc import Mapping

from actors.tasks.atari_table import GAMES
from actors.tasks.mujoco_table import ROBOTS
from gato.task import Task

TASKS: Mapping[str, Task] = {task.name: task for task in (*ROBOTS, *GAMES)}
"""By name. `gato.task.find_task` also finds the names that other projects use,
`actors.tasks.resolve` users' own tasks."""
