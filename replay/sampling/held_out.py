"""Held-out records: those that evaluations ask, and that are never drawn for training."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from gato.sequence import Window
from replay.storage.column_reader import EpisodeGone
from replay.storage.header import DamagedEpisode
from replay.storage.store import EpisodeStore


def held_out(store: EpisodeStore, task_name: str, most: int) -> Window | None:
    """At most `most` held-out steps of a task, drawn from all of its held-out episodes; the same
    ones as long as the store holds the same. A damaged episode is left out.

    Returns:
        One record a step; None if there are none.
    """
    headers = sorted(
        (h for h in list(store.episodes.values()) if h.task == task_name and h.held_out),
        key=lambda header: header.key,
    )
    if not headers:
        return None
    steps = np.array([header.steps for header in headers])
    rng = np.random.default_rng(zlib.crc32(task_name.encode()))
    chosen = rng.permutation(int(steps.sum()))[:most]
    begins = np.cumsum(steps) - steps
    episode = np.searchsorted(begins, chosen, side="right") - 1
    found: list[Window | None] = []
    for at, step in zip(episode.tolist(), (chosen - begins[episode]).tolist(), strict=True):
        with suppress(DamagedEpisode, EpisodeGone):
            found.append(store.read(headers[at], step, step + 1))
    return joined(found)


def joined(windows: Sequence[Window | None]) -> Window | None:
    """All windows one after another; None if there is none."""
    found = [window for window in windows if window is not None]
    if not found:
        return None
    return Window(
        observations={
            name: np.concatenate([window.observations[name] for window in found])
            for name in found[0].observations
        },
        actions=np.concatenate([window.actions for window in found]),
    )
