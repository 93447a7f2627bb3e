"""What is known of what was drawn, beside the batch itself: Reverb's sample info, for windows.

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
    """What is known of the windows of a batch, in order of its rows."""

    row: Int64[np.ndarray, " W"]
    key: list[str]
    """Of the episode; `ReplayService.update_priorities` takes it back."""
    start: Int64[np.ndarray, " W"]
    """First step of the window in its episode."""
    length: Int64[np.ndarray, " W"]
    prompt_key: list[str]
    """Of the prompt's episode; empty where there is no prompt."""
    prompt_start: Int64[np.ndarray, " W"]
    prompt_length: Int64[np.ndarray, " W"]
    probability: Float64[np.ndarray, " W"]
    """With which the episode was chosen among those of its task and table."""
    times_sampled: Int64[np.ndarray, " W"]
    """How often the episode was drawn so far, this batch included."""
    age_versions: Int64[np.ndarray, " W"]
    """How many versions of the weights are newer than the one that played it; 0 where no version
    did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A batch and what is known of its windows."""

    batch: Batch
    info: SampleInfo


def info_of(draw: WindowDraw, index: Index) -> SampleInfo:
    """What is known of the windows of a draw."""
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
