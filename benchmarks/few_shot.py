"""Fine-tuning on few demonstrations of a task that the model has never seen, against a model that
has seen none (the paper's section 5.2): `python -m benchmarks.few_shot`.

A small model is trained on four robots. On a fifth it is fine-tuned with 1, 5 and 25 episodes, and
so is one with random weights: the same updates, rates and batches, three seeds. It takes about an
hour on one core, goes on where it was ended, and writes docs/results/few-shot.{json,md,png}.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.learning import RESULTS, Study, carry_out, last_scores, record, with_mean_scores
from cluster.control.build_run import make_config
from cluster.runs.config_file import write_config
from cluster.runs.presets import RUNS

SEEN = ("hopper", "halfcheetah", "swimmer", "reacher")
NEW = "walker2d"
EPISODES = (1, 5, 25)
SEEDS = (0, 1, 2)
SMALL = ("model.context_tokens=96", "replay.mix.row_tokens=96", "replay.mix.prompt_fraction=0")
TRAINING = Study(
    name="few-shot-training",
    base="demo",
    data=[f"seen-{task}" for task in SEEN],
    settings=[
        *SMALL,
        "replay.mix.rows=48",
        # As one group: else windows follow from the base, of one step.
        "replay.mix.tasks="
        + json.dumps({f"mujoco/{task}": {"window_steps": None} for task in SEEN}),
        "actors.evaluate.window_steps=null",
    ],
    trials=[{"seed": 0}],
    updates=1500,
    evaluate_every=500,
    episodes=4,
)  # fmt: skip


def tuning(folder: Path, weights: Path, beginning: str, episodes: int) -> Study:
    """Fine-tuning with some episodes, from the trained weights or from random ones."""
    name = f"new-{episodes}"
    config = make_config(
        "finetune", name="few-shot", tasks=None, data=[name], settings=[*SMALL],
        weights=str(weights),
    )  # fmt: skip
    if beginning == "random":
        config = replace(config, initial_weights="")
    file = folder / f"{beginning}-{episodes}.yaml"
    write_config(replace(config, about=RUNS["finetune"].about), file)
    return Study(
        name="few-shot",
        base=str(file),
        data=[name],
        # The paper's rate is that of models 80 times as large.
        settings=["learner.max_rate=1e-3", "replay.mix.rows=48"],
        trials=[{"seed": seed} for seed in SEEDS],
        updates=300,
        evaluate_every=300,
        episodes=8,
        labels={"weights": beginning, "episodes": episodes},
    )


def trained_weights(folder: Path) -> Path:
    """The last checkpoint of the training. One that was ended and begun again has a folder of its
    own, few-shot-training-2. Raises SystemExit if none is whole."""
    last = f"trials/1-0/checkpoints/step-{TRAINING.updates:09d}"
    found = list((folder / "sweeps").glob(f"{TRAINING.name}*/{last}"))
    if not found:
        raise SystemExit(
            f"no training in {folder / 'sweeps'} has reached update {TRAINING.updates:,}; remove"
            f" {RESULTS / TRAINING.name}.json to train again"
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def write_page(trials: Sequence[dict[str, Any]], training: Sequence[dict[str, Any]]) -> None:
    """The table and the picture of what was measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trials = with_mean_scores(trials)
    figure, axis = pyplot.subplots(figsize=(5.5, 3.6))
    lines = [
        "# Few-shot fine-tuning", "",
        "`python -m benchmarks.few_shot`: a small Gato (0.9 million parameters, 96 tokens of"
        f" context) trained on {', '.join(SEEN)} ({TRAINING.updates:,} updates of 48 rows) is"
        f" fine-tuned on {NEW}, which it has never seen: 300 updates with few demonstrations. One"
        " with random weights gets the same. Last checkpoint, 8 episodes; 0 is a random policy, 1"
        " the teacher.",
        "", "| weights | episodes | seed | return | normalised |", "|---|--:|--:|--:|--:|",
    ]  # fmt: skip
    for beginning in ("trained", "random"):
        means: list[float] = []
        for episodes in EPISODES:
            scores = last_scores(trials, weights=beginning, episodes=episodes)
            means.append(statistics.mean(scores))
            axis.plot([episodes] * len(scores), scores, ".", color="grey")
        axis.plot(EPISODES, means, "o-", label=f"{beginning} weights")
    for trial in trials:
        label, last = trial["settings"], trial["slices"][-1]
        [value] = last["returns"].values()
        lines.append(
            f"| {label['weights']} | {label['episodes']} | {label['seed']} | {value:,.0f} |"
            f" {last['score']:.2f} |"
        )
    axis.set(xscale="log", xlabel=f"demonstrations of {NEW}", ylabel="return (1: teacher)")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "few-shot.png", dpi=110)
    pyplot.close(figure)
    machine, last = trials[0]["machine"], training[0]["slices"][-1]
    seen = ", ".join(f"{task} {value:,.0f}" for task, value in last["returns"].items())
    lines += [
        "", f"Returns of the trained model on what it was trained on: {seen}.",
        f"{machine['cpu']}, {machine['date']}, commit {machine['commit']}.", "",
        "![returns](few-shot.png)",
    ]  # fmt: skip
    (RESULTS / "few-shot.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Record the episodes, train what is missing, write the page."""
    folder = Path(os.environ.setdefault("GATO_RUNS", "runs/few-shot")).absolute()
    os.environ["GATO_RUNS"] = str(folder)
    for task in SEEN:
        record(f"mujoco/{task}", 25, name=f"seen-{task}")
    for episodes in EPISODES:
        record(f"mujoco/{NEW}", episodes, name=f"new-{episodes}", seed=1_000)
    training = carry_out(TRAINING)
    checkpoint = trained_weights(folder)
    trials: list[dict[str, Any]] = []
    for episodes, beginning in product(EPISODES, ("trained", "random")):
        trials = carry_out(tuning(folder, checkpoint, beginning, episodes))
    write_page(trials, training)
    print(json.dumps([trial["settings"] for trial in trials]))


if __name__ == "__main__":
    main()
