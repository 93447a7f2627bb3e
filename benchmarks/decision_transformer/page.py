"""The page and the picture of the decision-transformer benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

NAMES = {"gato": "Gato, decision-transformer", "plain": "plain Decision Transformer"}
PUBLISHED = {
    "mujoco/halfcheetah": "42.6 ± 0.1",
    "mujoco/hopper": "67.6 ± 1.0",
    "mujoco/walker2d": "74.0 ± 1.4",
}
"""The paper's, on D4RL's own medium-v2 files and 100,000 updates: other data."""


Entries = Sequence[Mapping[str, Any]]


class Group(NamedTuple):
    """What entries share whose seeds are averaged."""

    task: str
    model: str
    source: str
    updates: int
    windows: int

    def cells(self) -> str:
        """Updates and windows of an update, as cells of a table."""
        return f"{self.updates:,} | {self.windows:,}"


def write_page(entries: Entries, folder: Path, name: str) -> None:
    """Write NAME.md and NAME.png into a folder, from the kept entries."""
    if not entries:
        raise SystemExit("nothing was measured yet")
    episodes = sorted({len(point["returns"]) for entry in entries for point in entry["points"]})
    machine = entries[-1]["machine"]
    lines = [
        "# Decision Transformer", "",
        "`python -m benchmarks.decision_transformer`: the run `decision-transformer` beside a plain"
        " Decision Transformer with the paper's sizes and settings"
        " (`benchmarks/decision_transformer/plain.py`): the same data, updates, windows of an"
        " update, target return and evaluation"
        f" ({', '.join(map(str, episodes))} episodes, last update). Scores are"
        " normalised as D4RL's: 0 is random play, 100 the expert.", "",
        "| task | data | its mean | model | updates | windows | seeds | score | ± over seeds |"
        " paper, other data |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for group, mine in _grouped(entry for entry in entries if entry["data"] == "medium").items():
        scores = [entry["points"][0]["normalised"] for entry in mine]
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        lines.append(
            f"| {group.task} | medium, {group.source} | {mine[0]['data_normalised']:.1f} |"
            f" {NAMES[group.model]} | {group.cells()} | {_num_seeds(mine)} |"
            f" {statistics.mean(scores):.1f} | {spread:.1f} | {PUBLISHED.get(group.task, '')} |"
        )
    lines += [
        "", "On random, medium and expert data together, the reached score against the target"
        " return:", "", f"![reached against target]({name}.png)", "",
        "| task | data | model | updates | windows | seeds | target | reached, mean over seeds |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    mixed = _mixed(entries)
    for group, mine in mixed.items():
        lines += [
            f"| {group.task} | {group.source} | {NAMES[group.model]} | {group.cells()} |"
            f" {_num_seeds(mine)} | {target:,.0f} | {reached:,.0f} |"
            for target, reached in _curve(mine)
        ]
    lines += ["", f"{machine['cpu']}, {machine['date']}, commit {machine['commit']}."]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n")
    _draw(mixed, folder / f"{name}.png")


def _grouped(entries: Iterable[Mapping[str, Any]]) -> dict[Group, list[Mapping[str, Any]]]:
    """Entries that differ in their seeds alone, in the order of their groups."""
    groups: dict[Group, list[Mapping[str, Any]]] = {}
    for entry in entries:
        groups.setdefault(Group(*(entry[name] for name in Group._fields)), []).append(entry)
    return dict(sorted(groups.items()))


def _num_seeds(entries: Entries) -> int:
    return len({entry["seed"] for entry in entries})


def _mixed(entries: Entries) -> dict[Group, list[Mapping[str, Any]]]:
    return _grouped(entry for entry in entries if entry["data"] != "medium")


def _curve(entries: Entries) -> list[tuple[float, float]]:
    """Target and reached return, averaged over seeds."""
    by_target: dict[float, list[float]] = {}
    for entry in entries:
        for point in entry["points"]:
            by_target.setdefault(point["target"], []).append(point["mean"])
    return [(target, statistics.mean(reached)) for target, reached in by_target.items()]


def _draw(mixed: Mapping[Group, Entries], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = list(dict.fromkeys(group.task for group in mixed))
    if not tasks:
        return
    figure, axes = pyplot.subplots(1, len(tasks), figsize=(4.5 * len(tasks), 3.6), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        mine = {group: of for group, of in mixed.items() if group.task == task}
        for group, of in mine.items():
            label = NAMES[group.model]
            if len(mine) > len({each.model for each in mine}):
                label += f" ({group.source}, {group.updates:,} of {group.windows:,})"
            axis.plot(*zip(*_curve(of), strict=True), "o-", label=label)
        ends = axis.get_xlim()
        axis.plot(ends, ends, "--", color="grey", linewidth=0.8)
        axis.set(title=task, xlabel="target return")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("reached return")
    axes[0][-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
