"""Imports dm_control in a form that works with today's MuJoCo and without a display."""

from __future__ import annotations

import ctypes.util
import logging
import os
from types import ModuleType

OPENGL = {"egl": "EGL", "osmesa": "OSMesa"}
"""Libraries that draw without a display, by what dm_control calls them."""


def choose_opengl() -> None:
    """Say in MUJOCO_GL what draws pictures, if the user has not: without a display it must be said
    before dm_control is imported."""
    if os.environ.get("MUJOCO_GL") or os.environ.get("DISPLAY"):
        return
    found = next((name for name, lib in OPENGL.items() if ctypes.util.find_library(lib)), "off")
    os.environ["MUJOCO_GL"] = found


def import_suite() -> ModuleType:
    """`dm_control.suite`.

    dm_control lists the arrays of MuJoCo's structs with their sizes, and stops at one that this
    MuJoCo does not have. Such entries are removed: the suite reads none of them.

    Raises:
        ImportError: if dm_control is not installed.
    """
    choose_opengl()
    import mujoco
    from dm_control.mujoco.wrapper.mjbindings import (  # pyright: ignore[reportMissingImports]
        sizes,
    )

    model = mujoco.MjModel.from_xml_string("<mujoco/>")  # pyright: ignore[reportAttributeAccessIssue]
    data = mujoco.MjData(model)  # pyright: ignore[reportAttributeAccessIssue]
    for struct, present in (("mjmodel", model), ("mjdata", data)):
        listed = sizes.array_sizes[struct]
        for name in [name for name in listed if not hasattr(present, name)]:
            del listed[name]
    # It would print what MuJoCo says of each model, in every process.
    logging.getLogger("absl").setLevel(logging.ERROR)
    from dm_control import suite  # pyright: ignore[reportMissingImports]

    return suite
