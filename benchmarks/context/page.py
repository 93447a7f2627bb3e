"""The page and the picture of the context benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Entries = Sequence[Mapping[str, Any]]


def write_page(entries: Entries, folder: Path, name: str) -> None:
    """Write NAME.md and NAME.png into a folder, from the kept entries."""
    if not entries:
        raise SystemExit("nothing was measured yet")
    machine = entries[-1]["machine"]
    lines = [
        "# What context and prompts are worth", "",
        "`python -m benchmarks.context`: the demo's model (0.9 million parameters; of the two"
        " opposite tasks that of `debug`). Means over seeds of the last update; 0 is random play, 1"
        " the teacher.",
    ]  # fmt: skip
    for part in (_opposites, _targets, _modes, _windows):
        lines += part(entries)
    if any(entry["part"] == "windows" for entry in entries):
        lines += ["", f"![return over the length of the window]({name}.png)"]
    lines += ["", f"{machine['cpu']}, {machine['date']}, commit {machine['commit']}."]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n")
    _draw(entries, folder / f"{name}.png")


def _score(entry: Mapping[str, Any], mean: float) -> float:
    return (mean - entry["random"]) / (entry["teacher"] - entry["random"])


def _opposites(entries: Entries) -> list[str]:
    mine = [entry for entry in entries if entry["part"] == "opposites"]
    if not mine:
        return []
    lines = [
        "", "## Two tasks that only a prompt tells apart", "",
        "The same observations and actions, opposite rewards"
        " (`benchmarks/context/opposites.py`). With a demonstration of the other task the return"
        " must change sign.", "",
        "| the episode begins with | updates | right | left | seeds |", "|---|--:|--:|--:|--:|",
    ]  # fmt: skip
    tasks = list(mine[0]["tasks"])
    for updates, of in _by_updates(mine):
        for mode in of[0]["tasks"][tasks[0]]:
            means = [
                statistics.mean(_score(entry, entry["tasks"][task][mode]["mean"]) for entry in of)
                for task in tasks
            ]
            cells = " | ".join(f"{mean:.2f}" for mean in means)
            lines.append(f"| {mode} | {updates} | {cells} | {len(of)} |")
    return lines


def _targets(entries: Entries) -> list[str]:
    mine = [entry for entry in entries if entry["part"] == "targets"]
    if not mine:
        return []
    lines = [
        "", "## Target returns", "",
        "The first of those tasks, with demonstrations of all returns from 0 to 1.25.", "",
        "| target | updates | reached | seeds |", "|--:|--:|--:|--:|",
    ]  # fmt: skip
    for updates, of in _by_updates(mine):
        for points in zip(*(entry["points"] for entry in of), strict=True):
            reached = statistics.mean(
                _score(entry, point["mean"]) for entry, point in zip(of, points, strict=True)
            )
            lines.append(f"| {points[0]['target']:g} | {updates} | {reached:.2f} | {len(of)} |")
    return lines


def _modes(entries: Entries) -> list[str]:
    mine = [entry for entry in entries if entry["part"] in ("seen", "held out")]
    if not mine:
        return []
    modes = list(mine[0]["modes"])
    lines = [
        "", "## Prompts on a task that was trained, and on one that was held out", "",
        "Windows of 8 steps after a prompt of 4; half of the rows of training have one, three"
        " quarters tell the return. The held-out task is fine-tuned with few episodes. A prompt is"
        " in sight for the first 11 steps of an episode, until the window has rolled over it.", "",
        f"| task | episodes | updates | {' | '.join(modes)} | seeds |",
        f"|---|--:|--:|{'--:|' * len(modes)}--:|",
    ]  # fmt: skip
    groups = dict.fromkeys((e["part"], e["task"], e.get("episodes")) for e in mine)
    for part, task, few in groups:
        alike = [e for e in mine if (e["part"], e["task"], e.get("episodes")) == (part, task, few)]
        for updates, of in _by_updates(alike):
            means = [
                statistics.mean(_score(entry, entry["modes"][mode]["mean"]) for entry in of)
                for mode in modes
            ]
            cells = " | ".join(f"{mean:.2f}" for mean in means)
            what = f"{task} ({part}) | {few or 'all'} | {updates}"
            lines.append(f"| {what} | {cells} | {len(of)} |")
    return lines


def _by_updates(entries: Entries) -> list[tuple[str, Entries]]:
    """Entries of equally many updates, as the text of a cell; older ones do not say it."""
    kept: dict[int, list[Mapping[str, Any]]] = {}
    for entry in entries:
        kept.setdefault(entry.get("updates", 0), []).append(entry)
    return [(f"{updates:,}" if updates else "", of) for updates, of in sorted(kept.items())]


def _by_steps(entries: Entries) -> dict[int, list[float]]:
    out: dict[int, list[float]] = {}
    for entry in entries:
        out.setdefault(entry["steps"], []).append(_score(entry, entry["mean"]))
    return dict(sorted(out.items()))


def _windows(entries: Entries) -> list[str]:
    mine = [entry for entry in entries if entry["part"] == "windows"]
    if not mine:
        return []
    lines = [
        "", "## The length of the window", "",
        "Hopper, without prompts: the same tokens a batch, updates and episodes.", "",
        "| steps of the window | updates | score | ± over seeds | seeds |",
        "|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for updates, of in _by_updates(mine):
        for steps, scores in _by_steps(of).items():
            spread = f"{statistics.stdev(scores):.2f}" if len(scores) > 1 else "-"
            what = f"{steps} | {updates} | {statistics.mean(scores):.2f}"
            lines.append(f"| {what} | {spread} | {len(scores)} |")
    return lines


def _draw(entries: Entries, file: Path) -> None:
    mine = [entry for entry in entries if entry["part"] == "windows"]
    if not mine:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(4.5, 3.4))
    for updates, of in _by_updates(mine):
        by_steps = _by_steps(of)
        for steps, scores in by_steps.items():
            axis.plot([steps] * len(scores), scores, ".", color="grey")
        means = [statistics.mean(scores) for scores in by_steps.values()]
        axis.plot(list(by_steps), means, "o-", label=f"{updates} updates")
    if len(_by_updates(mine)) > 1:
        axis.legend(fontsize=8)
    axis.set(xscale="log", xlabel="steps of the window", ylabel="return (1: teacher)")
    steps = sorted({entry["steps"] for entry in mine})
    axis.set_xticks(steps, [str(each) for each in steps])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
