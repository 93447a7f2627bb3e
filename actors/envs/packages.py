"""What a task's environment needs: a package of an extra, or another interpreter."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from actors.envs.env import ENV_PYTHON
from gato.task import Task

OUTSIDE_ID = "gato/Outside-v0"
"""The id of environments in another interpreter (`actors.envs.adapters.outside_env`)."""
PACKAGES: Mapping[str, str] = {"metaworld": "metaworld", "dm-control": "dm_control"}
"""Packages that are installed by an extra of the family's name, by family."""


def find_python(given: str = "") -> str:
    """The interpreter of environments: `given`, else the variable's.

    Raises:
        ValueError: if there is none, or it is not a program.
    """
    path = given or os.environ.get(ENV_PYTHON, "")
    if not path:
        raise ValueError(
            "an environment of another interpreter needs to know it; --set"
            f" actors.env_python=PATH, or {ENV_PYTHON}=PATH for other commands, such as"
            " /opt/old/bin/python"
        )
    found = shutil.which(os.path.expanduser(path))
    if found is None:
        raise ValueError(
            f"actors.env_python is {path!r}, which is not a program on this machine; give the path"
            " of a Python interpreter, such as /opt/old/bin/python"
        )
    return found


def require_package(task: Task, *, env_python: str = "") -> None:
    """Raises ValueError if the package of a task's family is missing here, with the command that
    installs it, or if its environment lives in another interpreter which is not there."""
    if task.env_id.endswith(OUTSIDE_ID):
        find_python(env_python)
    package = PACKAGES.get(task.family)
    if package is not None and find_spec(package) is None:
        raise ValueError(
            f"task {task.name} needs the package {package}, which is not installed; pip install -e"
            f" '.[{task.family}]' -c constraints.txt in the project's folder"
        )


EXTRAS: Mapping[str, str] = {
    "metaworld": "metaworld",
    "dm-control": "dm_control",
    "minigrid": "minigrid",
    "easy-vqa": "easy_vqa",
}
"""The package of each extra that tasks or data sets need."""


def extra_of(name: str) -> str:
    """The extra that the task or the data set called `name` needs; empty if it needs none."""
    prefix = name.partition("/")[0].partition(":")[0]
    return prefix if prefix in EXTRAS else ""


def require_extras(names: Iterable[str]) -> None:
    """Raises ValueError with one command if more than one extra is missing that tasks or data sets
    of these names need. A single one is named where it is used."""
    wanted = dict.fromkeys(filter(None, map(extra_of, names)))
    missing = [extra for extra in wanted if find_spec(EXTRAS[extra]) is None]
    if len(missing) > 1:
        packages = ", ".join(EXTRAS[extra] for extra in missing)
        raise ValueError(
            f"packages that are not installed: {packages}; pip install -e"
            f" '.[{','.join(missing)}]' -c constraints.txt in the project's folder"
        )
