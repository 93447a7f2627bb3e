"""Pages of results say what was measured, normalised by what was kept with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ablations, few_shot, generalist_page, questions, small, specialists
from benchmarks.context.page import write_page as write_context
from benchmarks.decision_transformer.page import write_page as write_transformer
from cluster.runs.overrides import override
from cluster.runs.presets import RUNS

MACHINE = {"cpu": "a processor", "date": "2026-01-01", "commit": "abc"}


def target_entry(
    model: str, data: str, seed: int, reached: list[float], *, updates: int = 10
) -> dict[str, Any]:
    """An entry of the benchmark of target returns."""
    points = [
        {"target": 100.0 * (i + 1), "normalised": value, "mean": value, "returns": [value]}
        for i, value in enumerate(reached)
    ]
    return {
        "task": "mujoco/hopper", "data": data, "model": model, "seed": seed, "updates": updates,
        "source": "made here", "windows": 16, "points": points, "data_normalised": 38.1,
        "machine": MACHINE,
    }  # fmt: skip


def test_target_returns_are_averaged_over_seeds_beside_the_datas_own(tmp_path: Path) -> None:
    entries = [
        target_entry("gato", "medium", 0, [40.0]),
        target_entry("gato", "medium", 1, [50.0]),
        target_entry("gato", "medium", 1, [80.0], updates=1000),
        target_entry("plain", "medium", 0, [30.0]),
        target_entry("gato", "random+medium+expert", 0, [10.0, 20.0]),
        target_entry("gato", "random+medium+expert", 1, [30.0, 40.0]),
    ]
    write_transformer(entries, tmp_path, "page")
    text = (tmp_path / "page.md").read_text()
    ours = "| mujoco/hopper | medium, made here | 38.1 | Gato, decision-transformer |"
    assert f"{ours} 10 | 16 | 2 | 45.0 | 7.1 |" in text
    assert f"{ours} 1,000 | 16 | 1 | 80.0 | 0.0 |" in text
    assert "| plain Decision Transformer | 10 | 16 | 1 | 30.0 | 0.0 |" in text
    mixed = "| mujoco/hopper | made here | Gato, decision-transformer | 10 | 16 | 2 | 200 | 30 |"
    assert mixed in text
    assert (tmp_path / "page.png").is_file()


def test_context_is_told_by_part(tmp_path: Path) -> None:
    scale = {"random": 0.0, "teacher": 2.0, "machine": MACHINE}
    modes = {"neither": {"mean": 0.0}, "demonstration": {"mean": 1.0}}
    entries: list[dict[str, Any]] = [
        {"part": "opposites", "tasks": {"right": modes, "left": modes}, **scale},
        {"part": "targets", "points": [{"target": 0.5, "mean": 0.8}], **scale},
        {"part": "seen", "task": "mujoco/hopper", "modes": modes, **scale},
        {"part": "windows", "steps": 4, "mean": 1.0, "updates": 1500, **scale},
        {"part": "windows", "steps": 4, "mean": 2.0, "updates": 1500, **scale},
        {"part": "windows", "steps": 4, "mean": 0.2, "updates": 20, **scale},
    ]
    write_context(entries, tmp_path, "page")
    text = (tmp_path / "page.md").read_text()
    assert "| demonstration |  | 0.50 | 0.50 | 1 |" in text
    assert "| 0.5 |  | 0.40 | 1 |" in text
    assert "| mujoco/hopper (seen) | all |  | 0.00 | 0.50 | 1 |" in text
    assert "| 4 | 1,500 | 0.75 | 0.35 | 2 |" in text
    assert "| 4 | 20 | 0.10 | - | 1 |" in text
    assert "(page.png)" in text


def test_the_generalists_page_has_the_mean_over_families(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generalist_page, "RESULTS", tmp_path)

    def played(values: list[float]) -> dict[str, Any]:
        mean = sum(values) / len(values)
        return {"returns": values, "return": mean, "return_std": 0.0, "normalised": mean / 10.0}

    scale = {"random_return": 0.0, "teacher_return": 10.0}
    tasks = {"mujoco/hopper": [8.0, 10.0], "mujoco/ant": [9.0, 9.0], "atari/pong": [1.0, 1.0]}
    result = {
        "command": "gato start generalist", "seed": 0, "updates": 5, "planned_updates": 10,
        "trained_tokens": 1_000_000, "learner_s": 3600.0, "parameters": 1_000_000,
        "tasks": {name: played(values) for name, values in tasks.items()},
        "scales": dict.fromkeys(tasks, scale), "machine": MACHINE,
        "curves": {
            name: [
                {"step": 1, "normalised": 0.5, "minutes": 12.0},
                {"step": 2, "normalised": 0.8, "minutes": 45.0},
                {"step": 3, "normalised": 0.9, "minutes": 61.0},
            ]
            for name in tasks
        },
    }  # fmt: skip
    generalist_page.write(result, "generalist")
    text = (tmp_path / "generalist.md").read_text()
    assert "5 of 10 updates" in text
    assert "| atari/pong | 2 | 1.00 | 0.00 | 0.10 | 10.0 | 0.00 | 16.5 |" in text
    assert "over 2 tasks (mujoco): 0.90" in text
    assert "on the way, of few episodes: 0.50 after 30 minutes, 0.80 after 60 minutes." in text
    rows = (tmp_path / "generalist.csv").read_text().splitlines()
    assert len(rows) == 1 + 6
    assert (tmp_path / "generalist.png").is_file()
    assert "| domain |" not in text

    # Kinds of data that are measured otherwise stand in a table of domains, and are in no mean.
    measured = {"yes/no": 0.9, "yes/no, best single answer": 0.5, "bits per byte": 0.25}
    more = {
        "metaworld/reach": played([5.0, 5.0, 5.0]) | {"success": 2 / 3},
        "vqa/shapes": played([1.0, 0.0]) | {"success": 0.5, "measures": measured},
        "minigrid:Level-v0": played([0.5, 0.5]) | {"normalised": None},
    }
    answers = {"random_return": 0.0, "teacher_return": 1.0}
    wider = {
        "tasks": result["tasks"] | more,
        "episodes": 2,
        "note": "Trained in two pieces.",
        "scales": result["scales"] | {"vqa/shapes": answers},
        "curves": result["curves"]
        | {"vqa/shapes": [{"step": 1, "normalised": 0.0, "minutes": 1.0}]},
    }
    generalist_page.write(result | wider, "breadth")
    text = (tmp_path / "breadth.md").read_text()
    assert "--episodes 2 --other metaworld/reach=3`" in text
    assert "| metaworld | 1 | 67% | 0.50 | - |" in text
    assert "| vqa | 1 | - | - | 50% |" in text
    assert "- Success: 67% on average over 1 tasks, above 50 % on 1 of them." in text
    assert "| minigrid:Level-v0 | 2 | 0.50 | 0.00 | - | - | - | - |" in text
    assert "yes/no 90.0%, yes/no, best single answer 50.0%, bits per byte 0.250." in text
    assert "over 3 tasks (all)" in text  # hopper, ant and pong: answers are not played
    assert "0.50 after 30 minutes" in text
    assert "\n\nTrained in two pieces.\n\n" in text
    assert "target" not in text  # those of another run

    # Where most tasks were evaluated once, there is no curve to draw.
    once = {name: points[:1] for name, points in wider["curves"].items()}
    generalist_page.write(result | wider | {"curves": once}, "bars")
    assert "![the last checkpoint, by task](bars.png)" in (tmp_path / "bars.md").read_text()
    assert (tmp_path / "bars.png").is_file()


@pytest.mark.parametrize(
    ("value", "is_within"), [(0.5, True), (0.49, False), (0.8, True), (0.81, False), (None, False)]
)
def test_small_results_are_within_their_bounds(value: float | None, is_within: bool) -> None:
    found = {} if value is None else {"part": {"number": value}}
    [row] = small.checked(found, {"part": {"number": {"least": 0.5, "most": 0.8}}})
    assert row == ("part", "number", value, "at least 0.5, at most 0.8", is_within)


def test_a_rise_is_the_share_of_what_was_asked(tmp_path: Path) -> None:
    folder = tmp_path / "context-small"
    folder.mkdir()
    points = [{"target": t, "mean": m} for t, m in [(0.1, 0.2), (0.5, 0.4), (1.1, 1.2)]]
    entries = [{"part": "opposites"}, {"part": "targets", "points": points, "teacher": 2.0}]
    (folder / "context-small.json").write_text(json.dumps(entries))
    assert small.target_returns(tmp_path) == {"rise with the target": 0.5, "largest miss": 0.5}
    with pytest.raises(FileNotFoundError):
        small.target_returns(tmp_path / "nothing")


def test_prompting_is_as_good_as_its_worse_task(tmp_path: Path) -> None:
    folder = tmp_path / "context-small"
    folder.mkdir()
    tasks = {
        name: {"demonstration": {"mean": mine}, "demonstration of the other": {"mean": other}}
        for name, mine, other in [("right", 1.0, -1.6), ("left", 1.2, -0.8)]
    }
    (folder / "context-small.json").write_text(
        json.dumps([{"part": "opposites", "tasks": tasks, "teacher": 1.6}])
    )
    assert small.prompting(tmp_path) == {
        "demonstration": 0.625, "demonstration of the other": -0.5,
    }  # fmt: skip


def test_few_shot_takes_the_training_that_was_whole(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has reached update 1,500"):
        few_shot.trained_weights(tmp_path)
    for name, step in (("few-shot-training", 500), ("few-shot-training-2", 1500)):
        (tmp_path / f"sweeps/{name}/trials/1-0/checkpoints/step-{step:09d}").mkdir(parents=True)
    found = few_shot.trained_weights(tmp_path)
    assert found.relative_to(tmp_path).parts[1] == "few-shot-training-2"
    assert found.name == "step-000001500"


def test_ablations_name_each_variant_and_average_over_seeds(tmp_path: Path) -> None:
    trials = [
        {
            "settings": settings,
            "slices": [
                {
                    "step": step, "loss": 2.0, "score": 0.0,  # a sweep's, of episodes
                    "returns": {
                        "mujoco/hopper": 1000.0 * (step / 50 + int(str(settings["seed"]))),
                        "mujoco/halfcheetah": 10.0 * int(str(settings["seed"])),
                    },
                }
                for step in (10, 20)
            ],
            "scales": {
                "mujoco/hopper": {"random": 0.0, "teacher": 1000.0},
                "mujoco/halfcheetah": {"random": 0.0, "teacher": 10.0},
            },
            "machine": MACHINE,
        }
        for settings in ablations.trials_of([0, 1])
    ]  # fmt: skip
    ablations.write_page(trials, tmp_path)
    text = (tmp_path / "ablations.md").read_text()
    for name in ablations.VARIANTS:
        assert f"| {name} | 2 | 0.70 | 0.20 to 1.20 | 900 | 5 | 2.00 |" in text
    assert (tmp_path / "ablations.png").is_file()


@pytest.mark.parametrize("mix", questions.MIXES)
def test_the_settings_of_play_with_and_without_questions_are_a_run(mix: str) -> None:
    study = questions.study_of(mix, [0], updates=10, episodes=1)
    tasks = [*questions.RECORDED, *([questions.QUESTIONS] if mix == questions.TOGETHER else [])]
    mixed = override(RUNS["breadth"], study.settings).replay.mix.tasks
    assert {name: mixed[name].weight for name in questions.RECORDED} == questions.WEIGHTS
    assert {mixed[name].window_steps for name in tasks} == {1}


def test_play_is_compared_with_and_without_questions(tmp_path: Path) -> None:
    def played(score: float) -> dict[str, Any]:
        return {"episodes": 20, "return": 10 * score, "normalised": score, "success": None}

    answers = {
        "episodes": 2000, "return": 0.88, "normalised": 0.88, "success": 0.8765,
        "measures": {"yes/no": 0.95},
    }  # fmt: skip
    trials = [
        {
            "settings": {
                "mix": mix, "updates": updates, "episodes": 20, "bf16": True, "seed": seed,
            },
            "slices": [{"minutes": 3.0 + seed}],
            "played": {
                **dict.fromkeys(questions.RECORDED, played(score + seed / 10)),
                **({questions.QUESTIONS: answers} if mix == questions.TOGETHER else {}),
            },
            "machine": MACHINE,
        }
        for updates in (100, 1500)  # the page is of what was trained last
        for mix, score in ((questions.ALONE, 0.5), (questions.TOGETHER, 0.6))
        for seed in (0, 1)
    ]  # fmt: skip
    questions.write_page(trials, tmp_path)
    text = (tmp_path / "questions.md").read_text()
    assert "| mujoco/hopper | 20 | play alone | 2 | 5.5 | 0.55 | 0.50 to 0.60 | - |" in text
    assert "| mujoco/hopper | 20 | play and questions | 2 | 6.5 | 0.65 | 0.60 to 0.70 | - |" in text
    assert "2,000 held-out questions, each seed: 87.6%, 87.6% answered exactly" in text
    assert "the last seed: yes/no 95.0%." in text
    assert "3 to 4 minutes a training" in text


def test_specialists_stand_beside_the_one_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(specialists, "RESULTS", tmp_path)
    push, reach = specialists.TASKS[1], specialists.TASKS[0]
    label = {
        "episodes": 20, "of": 20_000, "updates": 400, "machine": MACHINE,
        "one_model": {"success": 0.4, "return": 900.0},
    }  # fmt: skip
    kept = [
        {**label, "task": push, "success": 0.5, "return": 1500.0},
        {**label, "task": push, "of": 10, "success": 0.0, "return": 1.0},
        {**label, "task": reach, "success": 1.0, "return": 4800.0},
    ]
    specialists.write_page(kept)
    text = (tmp_path / "mt50-specialists.md").read_text()
    assert "Mean success: 75% of the specialists, 40% of the one model" in text
    assert "| metaworld/push | 20 | 50% | 1,500 | 40% | 900 |" in text
    assert text.count("| metaworld/push |") == 1


def test_a_specialist_has_its_tasks_share_of_the_updates() -> None:
    config = specialists.specialist_of(RUNS["mt50"], specialists.TASKS[0])
    assert config.learner.num_updates == RUNS["mt50"].learner.num_updates // 50
    assert config.tasks == (specialists.TASKS[0],)
    assert config.replay.mix.rows == RUNS["mt50"].replay.mix.rows
    assert config.actors.relabel_share == 0.0
