"""Window draws: which windows of which episodes fill the rows of a batch, and their prompts. Whole
arrays at a time.

Shape letters: R rows of one task in one table, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from replay.sampling.candidates import Candidates
from replay.sampling.config import MixConfig, TaskMix


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowDraw:
    """W windows of one task, row by row; each may follow a prompt."""

    row: Int64[np.ndarray, " W"]
    number: Int64[np.ndarray, " W"]
    start: Int64[np.ndarray, " W"]
    length: Int64[np.ndarray, " W"]
    prompt_number: Int64[np.ndarray, " W"]
    prompt_start: Int64[np.ndarray, " W"]
    prompt_length: Int64[np.ndarray, " W"]
    """0: no prompt."""
    probability: Float64[np.ndarray, " W"]
    """Of the episode of each window being drawn."""


def fill_rows(
    rng: np.random.Generator,
    candidates: Candidates,
    config: MixConfig,
    settings: TaskMix,
    fit: int,
    rows: Int64[np.ndarray, " R"],
    prompted: Bool[np.ndarray, " R"],
) -> WindowDraw:
    """The windows of some rows of one task.

    Without `window_steps` a row gets one window after another until it is full, because short
    episodes leave room; in tables with `max_times_sampled` it gets one window.

    Args:
        fit: steps that fit in a row.
        prompted: which rows have prompts.
    """
    half = min(fit // 2, fit - (settings.window_steps or 1))
    prompt_steps = np.where(prompted, config.prompt_steps or half, 0)
    if settings.window_steps:
        # A row has a fixed number of windows, however short their episodes are.
        repeats = fit // (prompt_steps + settings.window_steps)
        window_steps = np.full(int(repeats.sum()), settings.window_steps)
        return one_window_each(
            rng,
            candidates,
            config,
            np.repeat(rows, repeats),
            window_steps,
            np.repeat(prompt_steps, repeats),
        )
    room = np.full(len(rows), fit)
    rounds: list[WindowDraw] = []
    while (going := np.flatnonzero(room > prompt_steps)).size:
        prompt = prompt_steps[going]
        rounds.append(
            one_window_each(rng, candidates, config, rows[going], room[going] - prompt, prompt)
        )
        if candidates.draws_are_counted:  # a second round would not count the draws of the first
            break
        room[going] -= rounds[-1].length + rounds[-1].prompt_length
    return in_order(rounds)


def one_window_each(
    rng: np.random.Generator,
    candidates: Candidates,
    config: MixConfig,
    rows: Int64[np.ndarray, " W"],
    window_steps: Int64[np.ndarray, " W"],
    prompt_steps: Int64[np.ndarray, " W"],
) -> WindowDraw:
    """One window for each entry of `rows`; fewer if the table has no more draws left."""
    assert candidates.sampler is not None
    chosen, probability = candidates.sampler.draw(rng, len(rows))
    rows, window_steps, prompt_steps = (
        rows[: len(chosen)],
        window_steps[: len(chosen)],
        prompt_steps[: len(chosen)],
    )
    num_steps = candidates.steps[chosen]
    length = np.minimum(window_steps, num_steps)
    # Each step of the episode is equally likely to be drawn; the window is then placed so that this
    # step lies anywhere in it, as far as the ends of the episode allow.
    inside = rng.integers(0, num_steps)
    start = np.clip(inside - rng.integers(0, length), 0, num_steps - length)
    number = candidates.number[chosen]
    if not prompt_steps.any():
        nothing = np.zeros_like(start)
        return WindowDraw(
            row=rows,
            number=number,
            start=start,
            length=length,
            prompt_number=number,
            prompt_start=nothing,
            prompt_length=nothing,
            probability=probability,
        )
    prompt, prompt_start, prompt_length = _prompts(
        rng, candidates, config, chosen, start, prompt_steps
    )
    return WindowDraw(
        row=rows,
        number=number,
        start=start,
        length=length,
        prompt_number=candidates.number[prompt],
        prompt_start=prompt_start,
        prompt_length=prompt_length,
        probability=probability,
    )


def _prompts(
    rng: np.random.Generator,
    candidates: Candidates,
    config: MixConfig,
    chosen: Int64[np.ndarray, " W"],
    window_start: Int64[np.ndarray, " W"],
    prompt_steps: Int64[np.ndarray, " W"],
) -> tuple[Int64[np.ndarray, " W"], Int64[np.ndarray, " W"], Int64[np.ndarray, " W"]]:
    """Episode, start and length of each window's prompt: from another episode of the same source,
    or from the same episode the steps before the window."""
    # Episodes of one source are consecutive in `by_source`; `rank` is the place of the window's
    # own.
    size, rank = candidates.group_size[chosen], candidates.rank[chosen]
    if config.prompt_episode == "any":
        place = rng.integers(0, size)
    else:
        # One of the others: those behind the own episode move up by one.
        place = rng.integers(0, np.maximum(size - 1, 1))
        place = np.where(size > 1, place + (place >= rank), rank)
    prompt = candidates.by_source[candidates.group_start[chosen] + place]
    length = np.minimum(prompt_steps, candidates.steps[prompt])
    at_end = rng.random(len(chosen)) < config.prompt_end_fraction
    last_start = candidates.steps[prompt] - length
    start = np.where(at_end, last_start, rng.integers(0, last_start + 1))
    # The prompt must not overlap the window if both are of one episode.
    itself = prompt == chosen
    length = np.where(itself, np.minimum(prompt_steps, window_start), length)
    return prompt, np.where(itself, window_start - length, start), length


def in_order(draws: list[WindowDraw]) -> WindowDraw:
    """Several draws of one task as one, rows in order; the windows of a row keep their order."""
    if len(draws) == 1:
        return draws[0]
    joined = {
        name: np.concatenate([getattr(draw, name) for draw in draws])
        for name in WindowDraw.__dataclass_fields__
    }
    order = np.argsort(joined["row"], kind="stable")
    return WindowDraw(**{name: values[order] for name, values in joined.items()})
