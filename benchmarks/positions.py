"""Both settings of positions on the same episodes, over three seeds: `python -m
benchmarks.positions`.

Hopper and Pong with as many steps of context as fit in 192 tokens, where the order of steps says
how fast the ball is. It takes half an hour on one core, goes on where it was ended, and writes
docs/results/positions.{json,md,png}.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from itertools import product
from typing import Any

from benchmarks.learning import RESULTS, Study, carry_out, last_scores, record, with_mean_scores

TASKS = ("mujoco/hopper", "atari/pong")
SETTINGS = ("transformer-xl", "rotary")
SEEDS = (0, 1, 2)
STUDY = Study(
    name="positions",
    base="demo",
    data=["positions-hopper", "positions-pong"],
    settings=[
        "model.context_tokens=192",
        "replay.mix.row_tokens=192",
        "replay.mix.rows=16",
        "replay.mix.prompt_fraction=0",
        # As one group: else windows follow from the base, of one step.
        f"replay.mix.tasks={json.dumps({task: {'window_steps': None} for task in TASKS})}",
        "actors.evaluate.window_steps=null",
    ],
    trials=[{"model.positions": how, "seed": seed} for seed, how in product(SEEDS, SETTINGS)],
    updates=400,
    evaluate_every=200,
    episodes=4,
)


def write_page(trials: list[dict[str, Any]]) -> None:
    """The table and the picture of what was measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trials = with_mean_scores(trials)
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6))
    colours = dict(zip(SETTINGS, ("tab:blue", "tab:orange"), strict=True))
    for trial in trials:
        how = trial["settings"]["model.positions"]
        steps = [each["step"] for each in trial["slices"]]
        for axis, what in zip(axes, ("loss", "score"), strict=True):
            axis.plot(steps, [each[what] for each in trial["slices"]], ".-", color=colours[how])
    axes[0].set(xlabel="updates", ylabel="training loss", title="loss")
    axes[1].set(xlabel="updates", ylabel="return (0 random, 1 teacher)", title="mean of tasks")
    for how, colour in colours.items():
        axes[1].plot([], [], color=colour, label=how)
    axes[1].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(RESULTS / "positions.png", dpi=110)
    pyplot.close(figure)
    machine = trials[0]["machine"]
    lines = [
        "# Positions: Transformer-XL and rotary", "",
        "`python -m benchmarks.positions`: the preset small (0.9 million parameters) with 192"
        f" tokens of context on recorded episodes of Hopper and Pong, {STUDY.updates} updates of 16"
        " rows,"
        f" last checkpoint, {STUDY.episodes} episodes a task. {machine['cpu']}, {machine['date']},"
        f" commit {machine['commit']}.", "",
        "| positions | seed | loss | Hopper | Pong | score |",
        "|---|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for trial in trials:
        last, settings = trial["slices"][-1], trial["settings"]
        returns = last["returns"]
        lines.append(
            f"| {settings['model.positions']} | {settings['seed']} | {last['loss']:.3f} |"
            f" {returns['mujoco/hopper']:,.0f} | {returns['atari/pong']:.1f} |"
            f" {last['score']:.3f} |"
        )
    lines.append("")
    for how in SETTINGS:
        scores = last_scores(trials, **{"model.positions": how})
        losses = [
            trial["slices"][-1]["loss"]
            for trial in trials
            if trial["settings"]["model.positions"] == how
        ]
        lines.append(
            f"{how}: loss {statistics.mean(losses):.3f} ({min(losses):.3f} to {max(losses):.3f}),"
            f" score {statistics.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f}),"
            f" {len(scores)} seeds.\n"
        )
    lines += ["Score: mean over the tasks, 0 is a random policy and 1 the teacher.", ""]
    (RESULTS / "positions.md").write_text("\n".join([*lines, "![curves](positions.png)"]) + "\n")


def main() -> None:
    """Record the episodes, train what is missing, write the page."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GATO_RUNS"] = folder
        record("mujoco/hopper", 60, name="positions-hopper")
        record("atari/pong", 20, name="positions-pong")
        write_page(carry_out(STUDY))


if __name__ == "__main__":
    main()
