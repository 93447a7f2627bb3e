"""Sample info: key, probability, times sampled and age of each window of a batch, as Reverb has it.

Shape letter: W windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from gato.sequence import Batch
from replay.sampling.candidates import ages
from replay.sampling.window_draw import WindowDraw
from replay.storage.index import Index


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleInfo:
    """Facts on the windows of a batch, in order of its rows."""

    row: Int64[np.ndarray, " W"]
    key: list[str]
    """Of the episode; `ReplayService.update_priorities` accepts it."""
    start: Int64[np.ndarray, " W"]
    """First step of the window in its episode."""
    length: Int64[np.ndarray, " W"]
    prompt_key: list[str]
    """Of the prompt's episode; empty if there is no prompt."""
    prompt_start: Int64[np.ndarray, " W"]
    prompt_length: Int64[np.ndarray, " W"]
    probability: Float64[np.ndarray, " W"]
    """Of the episode being drawn, among those of its task and table."""
    times_sampled: Int64[np.ndarray, " W"]
    """How often the episode was drawn, this batch included."""
    age_versions: Int64[np.ndarray, " W"]
    """How many versions of the weights are newer than the episode's; 0 if it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A batch and its sample info."""

    batch: Batch
    info: SampleInfo


def info_of(draw: WindowDraw, index: Index) -> SampleInfo:
    """The sample info of a draw."""
    known = index.look_up(draw.number)
    prompted = np.flatnonzero(draw.prompt_length)
    prompt_key = [""] * len(draw.number)
    for window, key in zip(
        prompted.tolist(), index.look_up(draw.prompt_number[prompted]).key, strict=True
    ):
        prompt_key[window] = key
    return SampleInfo(
        row=draw.row,
        key=known.key,
        start=draw.start,
        length=draw.length,
        prompt_key=prompt_key,
        prompt_start=draw.prompt_start,
        prompt_length=draw.prompt_length,
        probability=draw.probability,
        times_sampled=known.times_sampled,
        age_versions=ages(known.version, index.newest_version),
    )
