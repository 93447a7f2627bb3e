"""The page and the picture of the decision-transformer benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = {"gato": "Gato, decision-transformer", "plain": "plain Decision Transformer"}
PUBLISHED = {
    "mujoco/halfcheetah": "42.6 ± 0.1",
    "mujoco/hopper": "67.6 ± 1.0",
    "mujoco/walker2d": "74.0 ± 1.4",
}
"""The paper's, on D4RL's own medium-v2 files and 100,000 updates: other data."""


def write_page(entries: Sequence[dict[str, Any]], folder: Path, name: str) -> None:
    """Write NAME.md and NAME.png into a folder, from the kept entries."""
    if not entries:
        raise SystemExit("nothing was measured yet")
    updates = ", ".join(f"{value:,}" for value in sorted({entry["updates"] for entry in entries}))
    windows = ", ".join(f"{value:,}" for value in sorted({e["windows"] for e in entries}))
    episodes = sorted({len(point["returns"]) for entry in entries for point in entry["points"]})
    machine = entries[-1]["machine"]
    lines = [
        "# Decision Transformer", "",
        "`python -m benchmarks.decision_transformer`: the run `decision-transformer` beside a plain"
        " Decision Transformer with the paper's sizes and settings"
        " (`benchmarks/decision_transformer/plain.py`): the same data, updates"
        f" ({updates} of {windows} windows), target return and evaluation"
        f" ({', '.join(map(str, episodes))} episodes, last update). Scores are"
        " normalised as D4RL's: 0 is random play, 100 the expert.", "",
        "| task | data | its mean | model | seeds | score | ± over seeds | paper, other data |",
        "|---|---|--:|---|--:|--:|--:|--:|",
    ]  # fmt: skip
    mediums = [entry for entry in entries if entry["data"] == "medium"]
    for task, model in sorted({(entry["task"], entry["model"]) for entry in mediums}):
        mine = [e for e in mediums if e["task"] == task and e["model"] == model]
        scores = [entry["points"][0]["normalised"] for entry in mine]
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        lines.append(
            f"| {task} | medium | {mine[0]['data_normalised']:.1f} | {NAMES[model]} | {len(mine)} |"
            f" {statistics.mean(scores):.1f} | {spread:.1f} | {PUBLISHED.get(task, '')} |"
        )
    lines += [
        "", "On random, medium and expert data together, the reached score against the target"
        " return:", "", f"![reached against target]({name}.png)", "",
        "| task | model | target | reached, mean over seeds |", "|---|---|--:|--:|",
    ]  # fmt: skip
    for task, model, curve in _curves(entries):
        lines += [
            f"| {task} | {NAMES[model]} | {target:,.0f} | {reached:,.0f} |"
            for target, reached in curve
        ]
    lines += ["", f"{machine['cpu']}, {machine['date']}, commit {machine['commit']}."]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n")
    _draw(entries, folder / f"{name}.png")


def _curves(
    entries: Sequence[dict[str, Any]],
) -> list[tuple[str, str, list[tuple[float, float]]]]:
    """Task, model and (target, reached) of the mixed data, averaged over seeds."""
    mixed = [entry for entry in entries if entry["data"] != "medium"]
    out: list[tuple[str, str, list[tuple[float, float]]]] = []
    for task, model in sorted({(entry["task"], entry["model"]) for entry in mixed}):
        by_target: dict[float, list[float]] = {}
        for entry in mixed:
            if (entry["task"], entry["model"]) == (task, model):
                for point in entry["points"]:
                    by_target.setdefault(point["target"], []).append(point["mean"])
        out.append((task, model, [(target, statistics.mean(v)) for target, v in by_target.items()]))
    return out


def _draw(entries: Sequence[dict[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = _curves(entries)
    tasks = list(dict.fromkeys(task for task, _, _ in curves))
    if not tasks:
        return
    figure, axes = pyplot.subplots(1, len(tasks), figsize=(4.5 * len(tasks), 3.6), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for of, model, curve in curves:
            if of == task:
                axis.plot(*zip(*curve, strict=True), "o-", label=NAMES[model])
        ends = axis.get_xlim()
        axis.plot(ends, ends, "--", color="grey", linewidth=0.8)
        axis.set(title=task, xlabel="target return")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("reached return")
    axes[0][-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
