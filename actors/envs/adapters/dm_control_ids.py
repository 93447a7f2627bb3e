"""Registers the ids that shimmy has of dm_control, such as `dm_control/cheetah-run-v0`.

Needs the extra `dm-control`.
"""

from __future__ import annotations

from actors.envs.adapters.dm_control_package import import_suite

import_suite()
import shimmy  # pyright: ignore[reportMissingImports, reportUnusedImport] # noqa: E402, F401
