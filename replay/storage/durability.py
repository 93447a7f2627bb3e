"""When a store's writes are on the disk: a setting, apart from what carries it out."""

from __future__ import annotations

from typing import Literal

Durability = Literal["always", "group", "none"]
"""When an episode is acknowledged. always: after a commit of its own. group: after a commit that it
shares with the episodes that came while the last one was written. none: once the operating system
has it; a killed process does not lose it, but a power cut may, and with it the whole store.
"""
