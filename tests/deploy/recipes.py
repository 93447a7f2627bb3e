"""What the recipes for several machines say: their command lines, as the files have them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.hosts import ROOT, Host

DATA = Path(__file__).with_name("data")
ASSIGNMENT = re.compile(r"\w+=\S*")
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+):-([^}]*)\}")


def schema(name: str) -> Any:
    """A schema of the folder `data`."""
    return json.loads((DATA / f"{name}.json").read_text())


def documents(path: str) -> list[Any]:
    """The documents of a YAML file of the project."""
    return list(yaml.safe_load_all((ROOT / path).read_text()))


def interpolated(text: str, **variables: str) -> str:
    """`text` as Docker Compose passes it on: ${NAME:-default} filled in, $$ for $."""
    return VARIABLE.sub(lambda m: variables.get(m[1], m[2]), text).replace("$$", "$")


def gato_commands(line: str) -> list[list[str]]:
    """The calls of `gato` in a line of shell, such as `a && exec gato start demo`."""
    words = shlex.split(re.sub(r"\$\([^)]*\)", "10.0.0.1", line), comments=True)
    calls: list[list[str]] = []
    for part in _split(words):
        while part and (part[0] == "exec" or ASSIGNMENT.fullmatch(part[0])):
            part = part[1:]
        if part and Path(part[0]).name == "gato":
            calls.append(["gato", *part[1:]])
    return calls


def _split(words: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", "||", "|", ";"):
            parts.append([])
        elif word.endswith(";"):
            parts[-1].append(word[:-1])
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def command_folder(folder: Path) -> Path:
    """A folder with the commands `gato` and `ray`, as an image has them in its PATH."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name, module in (("gato", "cluster.cli.main"), ("ray", "ray.scripts.scripts")):
        file = bin_folder / name
        file.write_text(f'#!/bin/sh\nexec python -P -m {module} "$@"\n')
        file.chmod(0o755)
    return bin_folder


def clear(machine: Host) -> None:
    """Empty /tmp of a machine whose processes were killed. The machines of these tests see each
    other's processes, and Ray takes the socket of any raylet that it sees: let all be of one
    name."""
    for entry in (machine.folder / "tmp").iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def path_with(bin_folder: Path, environment: dict[str, str]) -> str:
    """PATH with `bin_folder` first."""
    return f"{bin_folder}{os.pathsep}{environment['PATH']}"
