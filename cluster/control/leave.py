"""Before this machine leaves its cluster, the runs whose home it is save."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from cluster.control.run_journal import control_of
from cluster.nodes.node import Node
from cluster.runs.folder import RunFolder
from cluster.runs.home import read_home

SAVE_S = 20.0
"""How long a learner may take to save before its node ends anyway."""


def save_runs(node: Node, say: Callable[[str], object]) -> None:
    """Have the runs at home here save and stop, within `SAVE_S`.

    `say`: takes a line for the user.
    """
    begun_s = time.monotonic()
    asked = [folder for folder in runs_at_home(node) if _ask(folder, node, say)]
    for folder in asked:
        say(f"run {folder.name} is at home here: its learner saves ...")
    while (active := [f.name for f in asked if _goes_on(f)]) and (
        time.monotonic() - begun_s < SAVE_S
    ):
        time.sleep(0.1)
    for folder in asked:
        if folder.name in active:
            say(
                f"run {folder.name} has not saved and copied all within {SAVE_S:.0f} s; gato resume"
                " goes on from its last checkpoint"
            )
        else:
            say(f"run {folder.name} stopped; gato resume {folder.name} continues it")


def runs_at_home(node: Node) -> list[RunFolder]:
    """The runs that go on and whose home is this machine, as a node of this cluster."""
    found: list[RunFolder] = []
    for file in sorted(Path(node.runs).glob("*/home.json")) if node.runs else []:
        folder = RunFolder(file.parent.parent, file.parent.name)
        try:
            home = read_home(folder.path)
            if (
                home is not None
                and home.is_here
                and home.address == node.address
                and _goes_on(folder)
            ):
                found.append(folder)
        except (ValueError, OSError):
            continue  # its files are damaged: it cannot be asked
    return found


def _ask(folder: RunFolder, node: Node, say: Callable[[str], object]) -> bool:
    try:
        with control_of(folder) as journal:
            journal.post_control("stop", f"its home {node.name} left the cluster")
    except ValueError as problem:
        say(f"run {folder.name} cannot be asked to save: {problem}")
        return False
    return True


def _goes_on(folder: RunFolder) -> bool:
    return folder.info().is_active
