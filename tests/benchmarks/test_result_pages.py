"""Pages of results say what was measured, normalised by what was kept with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import generalist
from benchmarks.context.page import write_page as write_context
from benchmarks.decision_transformer.page import write_page as write_transformer

MACHINE = {"cpu": "a processor", "date": "2026-01-01", "commit": "abc"}


def target_entry(model: str, data: str, seed: int, reached: list[float]) -> dict[str, Any]:
    """An entry of the benchmark of target returns."""
    points = [
        {"target": 100.0 * (i + 1), "normalised": value, "mean": value, "returns": [value]}
        for i, value in enumerate(reached)
    ]
    return {
        "task": "mujoco/hopper", "data": data, "model": model, "seed": seed, "updates": 10,
        "points": points, "data_normalised": 38.1, "machine": MACHINE,
    }  # fmt: skip


def test_target_returns_are_averaged_over_seeds_beside_the_datas_own(tmp_path: Path) -> None:
    entries = [
        target_entry("gato", "medium", 0, [40.0]),
        target_entry("gato", "medium", 1, [50.0]),
        target_entry("plain", "medium", 0, [30.0]),
        target_entry("gato", "random+medium+expert", 0, [10.0, 20.0]),
        target_entry("gato", "random+medium+expert", 1, [30.0, 40.0]),
    ]
    write_transformer(entries, tmp_path, "page")
    text = (tmp_path / "page.md").read_text()
    ours = "| mujoco/hopper | medium | 38.1 | Gato, decision-transformer | 2 | 45.0 | 7.1 |"
    assert ours in text
    assert "| plain Decision Transformer | 1 | 30.0 | 0.0 |" in text
    assert "| mujoco/hopper | Gato, decision-transformer | 200 | 30 |" in text
    assert (tmp_path / "page.png").is_file()


def test_context_is_told_by_part(tmp_path: Path) -> None:
    scale = {"random": 0.0, "teacher": 2.0, "machine": MACHINE}
    modes = {"neither": {"mean": 0.0}, "demonstration": {"mean": 1.0}}
    entries: list[dict[str, Any]] = [
        {"part": "opposites", "tasks": {"right": modes, "left": modes}, **scale},
        {"part": "seen", "task": "mujoco/hopper", "modes": modes, **scale},
        {"part": "windows", "steps": 4, "mean": 1.0, **scale},
        {"part": "windows", "steps": 4, "mean": 2.0, **scale},
    ]
    write_context(entries, tmp_path, "page")
    text = (tmp_path / "page.md").read_text()
    assert "| demonstration | 0.50 | 0.50 | 1 |" in text
    assert "| mujoco/hopper (seen) | all | 0.00 | 0.50 | 1 |" in text
    assert "| 4 | 0.75 | 0.35 | 2 |" in text


def test_the_generalists_page_has_the_mean_over_families(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generalist, "RESULTS", tmp_path)

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
        "curves": {name: [{"step": 1, "normalised": 0.5}] for name in tasks},
    }  # fmt: skip
    generalist.write(result, "generalist")
    text = (tmp_path / "generalist.md").read_text()
    assert "5 of 10 updates" in text
    assert "| atari/pong | 2 | 1.0 | 0.0 | 0.10 | 10.0 | 0.0 | 16.5 |" in text
    assert "over 2 tasks (mujoco): 0.90" in text
    rows = (tmp_path / "generalist.csv").read_text().splitlines()
    assert len(rows) == 1 + 6
    assert (tmp_path / "generalist.png").is_file()
