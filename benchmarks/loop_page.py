"""The page of the loop's benchmark: curves and a table of what was trained so far."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.machine import ROOT
from cluster.monitor.iqm import aggregate

RESULTS = ROOT / "docs" / "results"
FOLDER = RESULTS / "loop"
LAST_EPISODES = 20
TITLES = {
    "demonstrations": "(a) demonstrations alone",
    "generate": "(b) and its own good episodes",
    "relabel": "(c) and relabelled play",
    "early": "(c) with play from the first version on",
    "more": "as many demonstrations as (c) has labels",
}


def kept() -> Iterator[dict[str, Any]]:
    """What was trained so far."""
    for path in sorted(FOLDER.glob("*.json")):
        yield json.loads(path.read_text())


def same_as_before(made: list[dict[str, Any]], tasks: list[str]) -> list[str]:
    """A sentence for each task on which the agent's own play was never good enough to be read."""
    out: list[str] = []
    for name in tasks:
        returns = {(e["arm"], e["seed"]): e["returns"] for e in made if e["task"] == name}
        seeds = [seed for arm, seed in returns if arm == "generate"]
        if seeds and all(
            returns.get(("demonstrations", seed)) == returns["generate", seed] for seed in seeds
        ):
            out += [
                (
                    f"On {name} no episode of its own play reached the filter, so (b) is (a),"
                    " number for number."
                ),
                "",
            ]
    return out


def begins_later(made: list[dict[str, Any]], tasks: list[str]) -> list[str]:
    """A sentence for each task on which the agent's own play is used from some update on."""
    out: list[str] = []
    for name in tasks:
        of_task = [entry for entry in made if entry["task"] == name and entry["arm"] != "early"]
        begun = max((entry["plan"].get("play_from", 0) for entry in of_task), default=0)
        if begun:
            out += [
                (
                    f"On {name} its own play is used from update {begun:,} on, but for the arm that"
                    " says otherwise."
                ),
                "",
            ]
    return out


def draw(tasks: list[str]) -> None:
    """Curves and a table of what is kept."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    made = list(kept())
    if not made:
        raise SystemExit(f"nothing in {FOLDER} yet; train first: python -m benchmarks.loop run")
    names = [name for name in tasks if any(entry["task"] == name for entry in made)]
    arms = [arm for arm in TITLES if any(entry["arm"] == arm for entry in made)]
    figure, axes = pyplot.subplots(
        1, len(names), figsize=(5.5 * len(names), 3.8), squeeze=False, sharey=True
    )
    lines = [
        "# Does the loop help?",
        "",
        "The same model and number of updates: on demonstrations alone, with the agent's own"
        " episodes that returned at least 80 % of",
        "the teacher's, and with the agent's episodes relabelled by the teacher. Made by `python -m"
        " benchmarks.loop run`, drawn by",
        "`python -m benchmarks.loop draw`; every training is a file in [loop](loop). Returns are of"
        " the last weights, never the best,",
        f"over {LAST_EPISODES} episodes on the same seeds; 0 is a random policy, 1 the teacher. IQM"
        " with the 95 % interval of a bootstrap",
        "over the episodes of each seed.",
        "",
        "| task | arm | seeds | return of each seed | normalised | IQM | teacher's labels |"
        " own steps |",
        "|---|---|--:|---|--:|---|--:|--:|",
    ]
    for axis, name in zip(axes[0], names, strict=True):
        for number, arm in enumerate(arms):
            runs = [entry for entry in made if entry["task"] == name and entry["arm"] == arm]
            if not runs:
                continue
            span = runs[0]["teacher_return"] - runs[0]["random_return"]
            for entry in runs:
                values = [
                    (point["return"] - entry["random_return"]) / span for point in entry["curve"]
                ]
                steps = [point["step"] for point in entry["curve"]]
                label = TITLES[arm] if entry is runs[0] else None
                axis.plot(steps, values, color=f"C{number}", alpha=0.75, marker=".", label=label)
            over = aggregate(
                [
                    [(value - entry["random_return"]) / span for value in entry["returns"]]
                    for entry in runs
                ]
            )
            assert over is not None
            returns = ", ".join(f"{entry['return']:,.1f}" for entry in runs)
            mean = float(np.mean([entry["normalised"] for entry in runs]))
            lines.append(
                f"| {name} | {TITLES[arm]} | {len(runs)} | {returns} | {mean:.2f} | {over.text()}"
                f" | {np.mean([e['labels'] for e in runs]):,.0f}"
                f" | {np.mean([e['own_steps'] for e in runs]):,.0f} |"
            )
        axis.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
        axis.set(title=name, xlabel="updates")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("return (0 random, 1 teacher)")
    by_label = {
        label: line
        for axis in axes[0]
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        by_label.values(), by_label.keys(), loc="lower center", ncols=3, fontsize=8, frameon=False
    )
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(RESULTS / "loop.png", dpi=110)
    pyplot.close(figure)
    machine = made[0]["machine"]
    commits = ", ".join(dict.fromkeys(entry["machine"]["commit"] for entry in made))
    lines += [
        "",
        *same_as_before(made, names),
        *begins_later(made, names),
        f"{machine['cpu']}, one thread, no GPU, {machine['date']}, commits {commits}.",
        "",
        "![curves](loop.png)",
    ]
    (RESULTS / "loop.md").write_text("\n".join(lines) + "\n")
