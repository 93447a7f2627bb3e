"""What the design's choices are worth: one changed at a time, on the same episodes, over three
seeds: `python -m benchmarks.ablations`.

The demo's model on recorded episodes of two robots, and two more sizes of it for a curve over
tokens. It takes hours on one core, goes on where it was ended (recorded episodes lie under
GATO_RUNS), and writes docs/results/ablations.{json,md,png}. Positions with more than one step of
context are in positions.md, and relabelled play in loop.md and the log.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.learning import RESULTS, Study, carry_out, record, with_mean_scores
from cluster.sweep.space import Value

SEEDS = (0, 1, 2)
ROBOTS = ("hopper", "halfcheetah")
VARIANTS: Mapping[str, Mapping[str, Value]] = {
    "base": {},
    "rotary positions": {"model.positions": "rotary"},
    "no shared cosines": {"model.value_waves": 0},
    "shared cosines alone": {"model.own_value_rows": False},
    "targets spread over 4 bins": {"learner.spread_bins": 4.0},
    "no prompts": {"replay.mix.prompt_fraction": 0.0},
    "half with prompts": {"replay.mix.prompt_fraction": 0.5},
    "half as wide": {"model.width": 64, "model.feedforward": 256},
    "twice as wide": {"model.width": 256, "model.feedforward": 1024},
}
"""What is changed of the preset small: Transformer-XL positions, 32 shared cosines beside each
value's own row, one bin as the target, a quarter of the rows with a prompt."""
SIZES = ("half as wide", "base", "twice as wide")
ROWS, ROW_TOKENS = 60, 54
STUDY = Study(
    name="ablations",
    base="demo",
    data=[f"ablations-{robot}" for robot in ROBOTS],
    settings=[
        f"model.context_tokens={ROW_TOKENS}",
        f"replay.mix.row_tokens={ROW_TOKENS}",
        f"replay.mix.rows={ROWS}",
        "actors.evaluate.window_steps=1",
    ],
    trials=[],
    updates=800,
    evaluate_every=200,
    episodes=5,
)


def trials_of(seeds: Sequence[int]) -> list[Mapping[str, Value]]:
    """Settings of all trials, all variants of a seed before the next seed."""
    return [{"seed": seed, **VARIANTS[name]} for seed, name in product(seeds, VARIANTS)]


def variant_of(settings: Mapping[str, Value]) -> str:
    """The variant that a trial is."""
    mine = {name: value for name, value in settings.items() if name != "seed"}
    return next(name for name, changed in VARIANTS.items() if changed == mine)


def write_page(trials: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """The table and the picture of what was measured."""
    trials = with_mean_scores(trials)
    machine = trials[-1]["machine"]
    lines = [
        "# Ablations", "",
        "`python -m benchmarks.ablations`: the preset small (0.9 million parameters; Transformer-XL"
        " positions, 32 shared cosines, a quarter of the rows with a prompt), one setting changed"
        f" at a time, on recorded episodes of {' and '.join(ROBOTS)}: {STUDY.updates} updates of"
        f" {ROWS} rows of {ROW_TOKENS} tokens with one step of context. Last checkpoint,"
        f" {STUDY.episodes} episodes a task. Score: mean over the tasks; 0 is a random policy, 1"
        " the teacher. Losses compare where targets and rows are alike. Of one seed, differences of"
        " 0.1 may be chance.", "",
        f"| changed | seeds | score | least to most | {' | '.join(ROBOTS)} | loss |",
        "|---|--:|--:|--:|" + "--:|" * len(ROBOTS) + "--:|",
    ]  # fmt: skip
    for name in VARIANTS:
        mine = [trial["slices"][-1] for trial in trials if variant_of(trial["settings"]) == name]
        if not mine:
            continue
        scores = [last["score"] for last in mine]
        returns = " | ".join(
            f"{statistics.mean(last['returns'][f'mujoco/{robot}'] for last in mine):,.0f}"
            for robot in ROBOTS
        )
        lines.append(
            f"| {name} | {len(scores)} | {statistics.mean(scores):.2f} |"
            f" {min(scores):.2f} to {max(scores):.2f} |"
            f" {returns} | {statistics.mean(last['loss'] for last in mine):.2f} |"
        )
    lines += [
        "", "Three widths over trained tokens:", "", "![three widths](ablations.png)", "",
        f"{machine['cpu']}, {machine['date']}, commit {machine['commit']}.",
    ]  # fmt: skip
    (folder / "ablations.md").write_text("\n".join(lines) + "\n")
    _draw(trials, folder / "ablations.png")


def _draw(trials: Sequence[Mapping[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6))
    for name in SIZES:
        mine = [trial["slices"] for trial in trials if variant_of(trial["settings"]) == name]
        for axis, what in zip(axes, ("loss", "score"), strict=True):
            points = [
                statistics.mean(each[what] for each in slices) for slices in zip(*mine, strict=True)
            ]
            tokens = [each["step"] * ROWS * ROW_TOKENS / 1e6 for each in mine[0]] if mine else []
            axis.plot(tokens, points, ".-", label=name)
            axis.set(xlabel="trained tokens, millions", ylabel=what)
            axis.grid(alpha=0.3)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Record the episodes, train what is missing, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("word", nargs="?", default="run", choices=["run", "draw"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    arguments = parser.parse_args()
    seeds: list[int] = arguments.seeds
    if arguments.word == "draw":
        write_page(json.loads((RESULTS / f"{STUDY.name}.json").read_text()), RESULTS)
        return
    folder = Path(os.environ.get("GATO_RUNS", "runs/ablations")).absolute()
    os.environ["GATO_RUNS"] = str(folder)
    for robot in ROBOTS:
        record(f"mujoco/{robot}", 60, name=f"ablations-{robot}")
    write_page(carry_out(replace(STUDY, trials=trials_of(seeds))), RESULTS)


if __name__ == "__main__":
    main()
