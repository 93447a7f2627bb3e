"""Drawing: which windows of which episodes fill the rows of a batch, and what prompts them; whole
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
    """W windows of one task that were drawn, row by row; each may follow a prompt."""

    row: Int64[np.ndarray, " W"]
    number: Int64[np.ndarray, " W"]
    start: Int64[np.ndarray, " W"]
    length: Int64[np.ndarray, " W"]
    prompt_number: Int64[np.ndarray, " W"]
    prompt_start: Int64[np.ndarray, " W"]
    prompt_length: Int64[np.ndarray, " W"]
    """0: no prompt."""
    probability: Float64[np.ndarray, " W"]
    """With which the episode of each window was chosen."""


def fill_rows(
    rng: np.random.Generator, candidates: Candidates, config: MixConfig, settings: TaskMix, fit: int,
    rows: Int64[np.ndarray, " R"], prompted: Bool[np.ndarray, " R"],
) -> WindowDraw:  # fmt: skip
    """Windows of some rows. Of a task without `window_steps`, short episodes leave room, which
    further windows fill, but for tables with `max_times_sampled`: there a row has one window."""
    half = min(fit // 2, fit - (settings.window_steps or 1))
    prompt_steps = np.where(prompted, config.prompt_steps or half, 0)
    if settings.window_steps:
        # Rows of fixed windows hold the same number of them, however short an episode was.
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
        if candidates.draws_are_counted:  # each round would begin to count anew
            break
        room[going] -= rounds[-1].length + rounds[-1].prompt_length
    return in_order(rounds)


def one_window_each(
    rng: np.random.Generator, candidates: Candidates, config: MixConfig, rows: Int64[np.ndarray, " W"],
    window_steps: Int64[np.ndarray, " W"], prompt_steps: Int64[np.ndarray, " W"],
) -> WindowDraw:  # fmt: skip
    """One window for each entry of `rows`; fewer where the table has no more."""
    assert candidates.sampler is not None
    chosen, probability = candidates.sampler.draw(rng, len(rows))
    rows, window_steps, prompt_steps = (
        rows[: len(chosen)],
        window_steps[: len(chosen)],
        prompt_steps[: len(chosen)],
    )
    num_steps = candidates.steps[chosen]
    length = np.minimum(window_steps, num_steps)
    # A step is drawn, which lies anywhere in its window, as far as the episode's ends allow.
    inside = rng.integers(0, num_steps)
    start = np.clip(inside - rng.integers(0, length), 0, num_steps - length)
    number = candidates.number[chosen]
    if not prompt_steps.any():
        nothing = np.zeros_like(start)
        return WindowDraw(
            row=rows, number=number, start=start, length=length, prompt_number=number, prompt_start=nothing,
            prompt_length=nothing, probability=probability,
        )  # fmt: skip
    prompt, prompt_start, prompt_length = _prompts(
        rng, candidates, config, chosen, start, prompt_steps
    )
    return WindowDraw(
        row=rows, number=number, start=start, length=length, prompt_number=candidates.number[prompt],
        prompt_start=prompt_start, prompt_length=prompt_length, probability=probability,
    )  # fmt: skip


def _prompts(
    rng: np.random.Generator, candidates: Candidates, config: MixConfig, chosen: Int64[np.ndarray, " W"],
    window_start: Int64[np.ndarray, " W"], prompt_steps: Int64[np.ndarray, " W"],
) -> tuple[Int64[np.ndarray, " W"], Int64[np.ndarray, " W"], Int64[np.ndarray, " W"]]:  # fmt: skip
    """Episode, start and length of each window's prompt: another episode of the same source, as the
    settings say; of the same one, steps before the window."""
    size, rank = candidates.group_size[chosen], candidates.rank[chosen]
    if config.prompt_episode == "any":
        place = rng.integers(0, size)
    else:
        place = rng.integers(0, np.maximum(size - 1, 1))
        place = np.where(size > 1, place + (place >= rank), rank)
    prompt = candidates.by_source[candidates.group_start[chosen] + place]
    length = np.minimum(prompt_steps, candidates.steps[prompt])
    at_end = rng.random(len(chosen)) < config.prompt_end_fraction
    last_start = candidates.steps[prompt] - length
    start = np.where(at_end, last_start, rng.integers(0, last_start + 1))
    itself = prompt == chosen
    length = np.where(itself, np.minimum(prompt_steps, window_start), length)
    return prompt, np.where(itself, window_start - length, start), length


def in_order(draws: list[WindowDraw]) -> WindowDraw:
    """Draws of one task as one, its rows in order; windows of a row stay in the order in which they
    were drawn."""
    if len(draws) == 1:
        return draws[0]
    joined = {
        name: np.concatenate([getattr(draw, name) for draw in draws])
        for name in WindowDraw.__dataclass_fields__
    }
    order = np.argsort(joined["row"], kind="stable")
    return WindowDraw(**{name: values[order] for name, values in joined.items()})
