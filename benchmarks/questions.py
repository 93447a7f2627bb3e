"""What learning to answer questions costs the play of the same weights: `python -m
benchmarks.questions`.

A small form of `gato start breadth`: a robot, a game and an arm from recorded episodes, once alone
and once with the questions of easy-vqa in rows of their own, so that the tasks that are played get
the same rows. Over three seeds, in about half an hour. It goes on where it was ended (recorded
episodes lie under GATO_RUNS), and writes docs/results/questions.{json,md}. It needs the extra
`breadth`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.learning import RESULTS, Study, carry_out, gato, record
from cluster.cli.evaluate import measure_text
from cluster.control.evaluation.evaluate import Checkpoint, evaluate_run
from cluster.control.evaluation.prompts import StoredPrompts
from cluster.monitor.terminal.names import short_name
from cluster.runs.folder import RunFolder
from cluster.runs.named.breadth import QUESTIONS
from cluster.sweep.plan import SweepConfig
from learner.checkpoints.files import list_checkpoints
from learner.preparation.precision import has_bf16

SEEDS = (0, 1, 2)
RECORDED: Mapping[str, int] = {
    "mujoco/hopper": 60,
    "atari/freeway": 10,
    "metaworld/drawer-open?task_id=1": 30,
}
"""Episodes of each task's teacher."""
WEIGHTS: Mapping[str, float] = {**dict.fromkeys(RECORDED, 1.0), "mujoco/hopper": 2.0}
ROWS, QUESTION_ROWS, ROW_TOKENS = 24, 6, 180
ALONE, TOGETHER = "play alone", "play and questions"
MIXES = (ALONE, TOGETHER)
DATA = {task: f"questions-{short_name(task, with_options=False)}" for task in RECORDED}


def study_of(mix: str, seeds: Sequence[int], *, updates: int, episodes: int) -> Study:
    """One of the two mixes."""
    asks = mix == TOGETHER
    weights = {**WEIGHTS, **({QUESTIONS: 4.0 * QUESTION_ROWS / ROWS} if asks else {})}
    return Study(
        name="questions",
        base="breadth",
        data=[*DATA.values(), *(["easy-vqa"] if asks else [])],
        settings=[
            f"replay.mix.rows={ROWS + QUESTION_ROWS if asks else ROWS}",
            f"replay.mix.row_tokens={ROW_TOKENS}",
            # As one group: a name with options is no part of a path.
            "replay.mix.tasks="
            + json.dumps(
                {task: {"weight": weight, "window_steps": 1} for task, weight in weights.items()}
            ),
        ],
        trials=[{"seed": seed} for seed in seeds],
        updates=updates,
        evaluate_every=updates,
        episodes=2,
        labels={"mix": mix, "updates": updates, "episodes": episodes, "bf16": has_bf16()},
        bf16=has_bf16(),
        last=partial(play_last, episodes=episodes),
    )


def play_last(folder: Path, sweep: SweepConfig, *, episodes: int) -> dict[str, Any]:
    """Returns and successes of the last checkpoint in a trial's folder, and its answers to a
    hundred times as many questions."""
    config = RunFolder(folder.parent, folder.name).config()
    found = Checkpoint(
        path=list_checkpoints(folder / "checkpoints")[-1], config=config, scales=sweep.scales
    )
    kept: dict[str, Any] = {}
    for name in config.tasks:
        report = evaluate_run(
            found,
            tasks=[name],
            episodes=100 * episodes if name == QUESTIONS else episodes,
            prompts=StoredPrompts(Path(sweep.stores[0]), config),
        )
        result = report.tasks[name]
        kept[name] = {
            "episodes": len(result.returns),
            "return": round(result.mean, 2),
            "return_std": round(result.std, 2),
            "normalised": result.normalised(),
            "success": result.success_rate,
            "measures": dict(result.measures),
        }
    return {"played": kept}


def write_page(trials: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """The table of what was measured."""
    last = trials[-1]
    same = ("updates", "episodes", "bf16")
    trials = [
        trial
        for trial in trials
        if all(trial["settings"][name] == last["settings"][name] for name in same)
    ]
    machine, updates = last["machine"], last["settings"]["updates"]
    lines = [
        "# Playing with and without questions", "",
        "`python -m benchmarks.questions`: the model of `gato start breadth` on recorded episodes"
        f" of {', '.join(RECORDED)}, {updates:,} updates of {ROWS} rows of {ROW_TOKENS} tokens;"
        f" then the same with {QUESTION_ROWS} more rows of questions about images. Last checkpoint."
        " Of the teacher: 0 is a random policy, 1 the teacher.", "",
        "| task | episodes | rows | seeds | return | of the teacher | least to most | success |",
        "|---|--:|---|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for task in RECORDED:
        for mix in MIXES:
            mine = _played(trials, mix, task)
            if not mine:
                continue
            scores = [of["normalised"] for of in mine]
            solved = [of["success"] for of in mine if of["success"] is not None]
            lines.append(
                f"| {task} | {mine[0]['episodes']} | {mix} | {len(mine)} |"
                f" {statistics.mean(of['return'] for of in mine):,.1f} |"
                f" {statistics.mean(scores):.2f} | {min(scores):.2f} to {max(scores):.2f} |"
                f" {f'{statistics.mean(solved):.0%}' if solved else '-'} |"
            )
    lines.append("")
    answered = _played(trials, TOGETHER, QUESTIONS)
    if answered:
        lines.append(
            f"{QUESTIONS}, {answered[0]['episodes']:,} held-out questions, each seed:"
            f" {', '.join('{:.1%}'.format(of['success']) for of in answered)} answered exactly; of"
            " the last seed: "
            + ", ".join(measure_text(*each) for each in answered[-1]["measures"].items())
            + "."
        )
    minutes = [trial["slices"][-1]["minutes"] for trial in trials]
    lines += [
        "",
        f"{machine['cpu']}, one thread, {'bfloat16' if last['settings']['bf16'] else 'float32'},"
        f" {machine['date']}, commit {machine['commit']};"
        f" {min(minutes):.0f} to {max(minutes):.0f} minutes a training.",
    ]
    (folder / "questions.md").write_text("\n".join(lines) + "\n")


def _played(trials: Sequence[Mapping[str, Any]], mix: str, task: str) -> list[Mapping[str, Any]]:
    return [
        trial["played"][task]
        for trial in trials
        if trial["settings"]["mix"] == mix and task in trial["played"]
    ]


def main() -> None:
    """Record the episodes, train what is missing, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("word", nargs="?", default="run", choices=["run", "draw"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--episodes", type=int, default=20, help="of each task, at the end")
    arguments = parser.parse_args()
    if arguments.word == "draw":
        write_page(json.loads((RESULTS / "questions.json").read_text()), RESULTS)
        return
    folder = Path(os.environ.get("GATO_RUNS", "runs/questions")).absolute()
    os.environ["GATO_RUNS"] = str(folder)
    for task, episodes in RECORDED.items():
        record(task, episodes, name=DATA[task])
    if not (folder / "data" / "easy-vqa").is_dir():
        gato("import", "easy-vqa")
    trials: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for mix in MIXES:
            study = study_of(mix, [seed], updates=arguments.updates, episodes=arguments.episodes)
            trials = carry_out(study)
    write_page(trials, RESULTS)


if __name__ == "__main__":
    main()
