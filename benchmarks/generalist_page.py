"""The page of a run on many tasks: tables of domains and tasks, means, curves."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from typing import Any

from benchmarks.learning import RESULTS
from cluster.cli.evaluate import measure_text
from cluster.control.evaluation.domains import domain_scores
from cluster.monitor.format import number_text
from cluster.monitor.iqm import Aggregate, aggregate
from cluster.monitor.terminal.names import short_names
from gato.task import RECORDED

EPISODES = 50
TARGETS: Mapping[str, float] = {
    "atari/pong": 16.5,
    "atari/freeway": 27.0,
    "atari/boxing": 60.0,
    "atari/breakout": 30.5,
}
"""Returns that the run `generalist` is to reach; Breakout's is the human's."""
ROBOTS_TARGET = 0.85
"""Interquartile mean over the robots, of their teachers: JAT's of its experts."""


def over(result: Mapping[str, Any], family: str) -> Aggregate | None:
    """Interquartile mean of the teachers' returns over the tasks of a family, such as mujoco."""
    scores = [
        [
            (value - result["scales"][name]["random_return"])
            / (result["scales"][name]["teacher_return"] - result["scales"][name]["random_return"])
            for value in task["returns"]
        ]
        for name, task in result["tasks"].items()
        if name in result["scales"] and _is_of(name, family)
    ]
    return aggregate(scores)


def _is_of(task: str, family: str) -> bool:
    """Whether a task is of this family. Of the family "" are all that are played, not recorded."""
    played = re.split("[/:]", task)[0]
    return played == family if family else played not in RECORDED


def write(result: Mapping[str, Any], name: str) -> None:
    """docs/results/NAME.json, .csv, .md and .png."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "episode", "return"])
        for task, played in result["tasks"].items():
            writer.writerows([task, i, value] for i, value in enumerate(played["returns"]))
    machine = result["machine"]
    targets = TARGETS if name == "generalist" else {}
    episodes = result.get("episodes", EPISODES)
    other = [
        f"{task}={len(played['returns'])}"
        for task, played in result["tasks"].items()
        if len(played["returns"]) != episodes
    ]
    options = f" --preset {result['preset']}" if result.get("preset") else ""
    options += f" --episodes {episodes}" if episodes != EPISODES else ""
    options += f" --other {' '.join(other)}" if other else ""
    lines = [
        f"# The run {name}", "",
        f"One set of weights ({result['parameters'] / 1e6:.2f} million numbers) on all tasks:"
        f" `{result['command']}` (seed {result['seed']}), then"
        f" `python -m benchmarks.generalist RUN{options}`."
        f" {result['updates']:,} of {result['planned_updates']:,} updates,"
        f" {result['trained_tokens'] / 1e6:,.0f} million tokens,"
        f" {result['learner_s'] / 3600:.1f} hours of the learner{_wall(result)}. {machine['cpu']},"
        f" {machine['date']}, commit {machine['commit']}. Last checkpoint; 0 is a random"
        " policy, 1 the teacher.", "",
        *([result["note"], ""] if result.get("note") else []),
        *_domains(result),
        *_tasks(result, targets), "",
    ]  # fmt: skip
    for task, played in result["tasks"].items():
        if played.get("measures"):
            said = (measure_text(*measure) for measure in played["measures"].items())
            lines.append(f"- {task}: {', '.join(said)}.")
    lines += _successes(result)
    means = {family: over(result, family) for family in ("mujoco", "atari", "metaworld", "")}
    for family, found in means.items():
        target = ROBOTS_TARGET if targets and family == "mujoco" else None
        of_families = [mean.num_tasks for name, mean in means.items() if name and mean is not None]
        is_said = not family and found is not None and found.num_tasks in of_families
        if found is not None and not is_said:
            said = f"{found.iqm:.2f}"
            if (bounds := found.bounds) is not None:
                said += f", 95 % interval {bounds[0]:.2f} to {bounds[1]:.2f}"
            said += f"; the target is {target}" if target else ""
            lines.append(
                f"- Interquartile mean over {found.num_tasks} tasks ({family or 'all'}): {said}."
            )
    lines += [*_on_the_way(result), "", "Tasks count alike there, however many episodes they have."]
    has_curves = sum(len(points) > 1 for points in result["curves"].values())
    draws_curves = 2 * has_curves >= len(result["curves"])
    shown = "curves" if draws_curves else "the last checkpoint, by task"
    lines += ["", f"![{shown}]({name}.png)", "", f"[All returns]({name}.csv)."]
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    (_draw if draws_curves else _draw_bars)(result, name)


def _on_the_way(result: Mapping[str, Any]) -> list[str]:
    """What the run's own evaluations came to after each half hour, if its curves have minutes."""
    curves = [
        points
        for name, points in result["curves"].items()
        if _is_of(name, "") and points and "minutes" in points[0]
    ]
    last = max((point["minutes"] for points in curves for point in points), default=0.0)
    said: list[str] = []
    for minutes in range(30, min(int(last), 240) + 1, 30):
        if not any(minutes - 30 < p["minutes"] <= minutes for points in curves for p in points):
            continue  # the run paused
        seen = [[p["normalised"] for p in points if p["minutes"] <= minutes] for points in curves]
        if all(seen) and (over_tasks := aggregate([[of[-1]] for of in seen])) is not None:
            said.append(f"{over_tasks.iqm:.2f} after {minutes} minutes")
    return [f"- Of the evaluations on the way, of few episodes: {', '.join(said)}."] if said else []


def _successes(result: Mapping[str, Any]) -> list[str]:
    """Mean success of the tasks that are solved or not, and how many are mostly solved: the form of
    Gato's figure 5."""
    rates = [
        task["success"]
        for name, task in result["tasks"].items()
        if task.get("success") is not None and _is_of(name, "")
    ]
    if not rates:
        return []
    mean, most = sum(rates) / len(rates), sum(rate > 0.5 for rate in rates)
    return [
        f"- Success: {mean:.0%} on average over {len(rates)} tasks, above 50 % on {most} of them."
    ]


def _domains(result: Mapping[str, Any]) -> list[str]:
    """The table of domains, where there are three or more."""
    scores = domain_scores(
        {name: (task.get("success"), task["normalised"]) for name, task in result["tasks"].items()}
    )
    if len(scores) < 3:
        return []
    return [
        "| domain | tasks | success | of the teacher | accuracy |", "|---|--:|--:|--:|--:|",
        *(f"| {' | '.join(score.cells())} |" for score in scores), "",
    ]  # fmt: skip


def _tasks(result: Mapping[str, Any], targets: Mapping[str, float]) -> list[str]:
    """The table of tasks, with a column of success where some task has it, and one of targets where
    there are any."""
    has_success = any(task.get("success") is not None for task in result["tasks"].values())
    titles = ["task", "episodes", "return", "±", "of the teacher", "teacher", "random"]
    titles += ["success"] if has_success else []
    titles += ["target"] if targets else []
    lines = [f"| {' | '.join(titles)} |", "|---" + "|--:" * (len(titles) - 1) + "|"]
    for name, task in result["tasks"].items():
        scale = result["scales"].get(name, {})
        success = task.get("success")
        cells = [
            name, str(len(task["returns"])), number_text(task["return"]),
            number_text(task["return_std"]), number_text(task["normalised"]),
            number_text(scale.get("teacher_return")), number_text(scale.get("random_return")),
        ]  # fmt: skip
        if has_success:
            cells.append("-" if success is None else f"{success:.0%}")
        if targets:
            cells.append(f"{targets[name]:g}" if name in targets else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _wall(result: Mapping[str, Any]) -> str:
    minutes = result.get("wall_s", 0.0) / 60
    return f", {minutes:.0f} minutes in all, pauses included" if minutes else ""


def _draw_bars(result: Mapping[str, Any], name: str) -> None:
    """Success of each task, or its normalised return, the best first."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scores = {
        task: of["normalised"] if of.get("success") is None else of["success"]
        for task, of in result["tasks"].items()
    }
    labels = short_names(list(scores))
    known = {labels[task]: score for task, score in scores.items() if score is not None}
    order = sorted(known, key=lambda label: known[label])
    figure, axis = pyplot.subplots(figsize=(7, 1 + 0.2 * len(order)))
    axis.barh(order, [known[label] for label in order], height=0.7)
    axis.set_xlabel("share of episodes that solve the task (else: return, 1: teacher)")
    axis.set_ylim(-0.6, len(order) - 0.4)
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=110)
    pyplot.close(figure)


def _draw(result: Mapping[str, Any], name: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = result["curves"]
    columns = 4
    rows = -(-len(curves) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(12, 2.4 * rows), sharex=True, squeeze=False
    )
    for axis, (task, points) in zip(axes.flat, curves.items(), strict=False):
        axis.plot([p["step"] for p in points], [p["normalised"] for p in points], marker=".")
        axis.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
        axis.set_ylim(bottom=min([0.0, *(p["normalised"] for p in points)]) - 0.05)
        axis.set_title(task, fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("updates")
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=110)
    pyplot.close(figure)
