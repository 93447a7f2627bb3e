"""The catalogue of tasks: observations, actions and reference returns of each environment."""

from __future__ import annotations

from collections.abc import Mapping

from actors.tasks.atari_table import GAMES
from actors.tasks.dm_control_table import SUITE
from actors.tasks.metaworld_table import MANIPULATION
from actors.tasks.mujoco_table import ROBOTS
from actors.tasks.outside_table import ELSEWHERE
from gato.task import Task

TASKS: Mapping[str, Task] = {
    task.name: task for task in (*ROBOTS, *GAMES, *MANIPULATION, *SUITE, *ELSEWHERE)
}
"""By name. `gato.task.find_task` also finds the names that other projects use, and
`actors.tasks.resolve` the tasks of users."""
