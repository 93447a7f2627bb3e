"""What the learner finds out before its first update: precision, threads, rows, compilation."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gato.config import ModelConfig
from gato.network.flops import Work, activation_bytes
from gato.network.model import Gato, Loss, TensorBatch, next_token_loss
from gato.network.transformer import Transformer
from gato.packing import RowWriter
from gato.sequence import Batch, StepLayout, Window
from gato.threads import use_threads
from learner import update
from learner.preparation import memory, precision
from learner.preparation.memory import plan_memory, state_bytes
from learner.preparation.precision import Computing, candidates, choose, keep_choice, kept_choice
from tests.cluster.hosts import ROOT
from tests.gato.models import GAME, random_observations
from tests.learner.test_learner import CONFIG, MODEL, ListSource, make, weights_of

CPU = torch.device("cpu")
FP32, BF16 = (Computing(bf16=bf16, threads=1) for bf16 in (False, True))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    yield
    use_threads(1)


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, {False, True}), (False, {False})])
def test_only_what_the_settings_leave_open_is_tried(
    has_bf16: bool, expected: set[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: has_bf16)
    free = replace(CONFIG, bf16=None, num_threads=None)
    tried = candidates(free, CPU, max_threads=6)
    assert {way.threads for way in tried} == {1, 2, 4, 6}
    assert {way.bf16 for way in tried} == expected
    assert candidates(replace(free, num_threads=3), CPU, max_threads=6)[0].threads == 3
    assert candidates(CONFIG, CPU, max_threads=6) == (FP32,)


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({"fp32, 1 thread": 1.0, "fp32, 2 threads": 0.9, "bf16, 1 thread": 2.0}, "fp32, 2 threads"),
        ({"fp32, 1 thread": 1.0, "fp32, 2 threads": 0.97, "bf16, 1 thread": 2.0}, "fp32, 1 thread"),
        ({"fp32, 1 thread": 1.0, "fp32, 2 threads": 0.8, "bf16, 1 thread": 0.7}, "bf16, 1 thread"),
    ],
)
def test_the_fastest_way_is_taken_and_more_threads_must_be_worth_it(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], best: str
) -> None:
    ways = (FP32, Computing(bf16=False, threads=2), BF16)
    current: list[Computing] = []

    def timed(act: object, device: torch.device) -> float:
        assert callable(act)
        act()
        return seconds[str(current[-1])]

    monkeypatch.setattr(precision, "_seconds", timed)
    taken, measured = choose(ways, current.append, CPU)
    assert str(taken) == best
    assert measured == seconds
    assert torch.get_num_threads() == taken.threads


@pytest.mark.parametrize(("second_s", "tries"), [(3.9, 4), (4.1, 1)])
def test_a_hopeless_way_is_tried_once(
    second_s: float, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Computing] = []

    def timed(act: object, device: torch.device) -> float:
        assert callable(act)
        act()
        return second_s if tried[-1] == BF16 else 1.0

    monkeypatch.setattr(precision, "_seconds", timed)
    taken, measured = choose((FP32, BF16), tried.append, CPU)
    assert taken == FP32
    assert measured[str(BF16)] == second_s
    assert tried == [FP32] * 4 + [BF16] * tries


def test_a_choice_is_kept_for_the_same_machine_and_the_same_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = (FP32, BF16)
    assert kept_choice(tmp_path, ways, CPU) is None
    keep_choice(tmp_path, ways, CPU, BF16)
    assert kept_choice(tmp_path, ways, CPU) == BF16
    assert kept_choice(tmp_path, (FP32,), CPU) is None
    monkeypatch.setattr(precision, "machine", lambda device: "another")
    assert kept_choice(tmp_path, ways, CPU) is None
    (tmp_path / precision.FILE).write_text("{")
    assert kept_choice(tmp_path, ways, CPU) is None


def test_a_learner_says_how_it_computes_and_computes_so_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    config = replace(CONFIG, bf16=None, num_updates=4)
    learner = make(tmp_path, config=config)
    list(learner.run())
    assert learner.notes[0][1].startswith("computes with ")
    assert "bf16, 1 thread" in learner.notes[0][1]
    assert "fp32, 1 thread" in learner.notes[0][1]
    other = "false" if learner._update.bf16 else "true"
    file = tmp_path / precision.FILE
    kept = json.loads(file.read_text())
    kept["computing"]["bf16"] = json.loads(other)
    file.write_text(json.dumps(kept))
    again = make(tmp_path, config=replace(config, num_updates=6))
    list(again.run())
    assert not [text for kind, text in again.notes if kind == "learner"]
    assert again._update.bf16 == json.loads(other)


def game_batch(rows: int) -> Batch:
    rng = np.random.default_rng(0)
    steps = StepLayout(GAME, MODEL.layout)
    writer = RowWriter(num_rows=rows, row_tokens=32)
    for row in range(rows):
        observations = random_observations(GAME, 1 + row % 2, rng)
        actions = rng.integers(18, size=1 + row % 2)
        window = Window(observations=observations, actions=actions)
        writer.write_row(row, task_index=0, steps=steps, windows=[window])
    return writer.batch()


def test_a_batch_in_parts_has_the_losses_of_the_whole() -> None:
    torch.manual_seed(0)
    model = Gato(MODEL).eval()  # patches take the middle of their places
    whole = game_batch(5)
    losses = next_token_loss(model, TensorBatch.of(whole)).losses
    parts = [next_token_loss(model, TensorBatch.of(part)).losses for part in whole.split(2)]
    assert [len(part.ids) for part in whole.split(2)] == [2, 2, 1]
    torch.testing.assert_close(torch.cat(parts), losses)
    leaders = np.concatenate([part.patches[part.patch_leaders[:, 0]] for part in whole.split(2)])
    assert np.array_equal(leaders, whole.patches[whole.patch_leaders[:, 0]])


def test_added_gradients_make_the_update_of_the_whole_batch(tmp_path: Path) -> None:
    whole, parts = (
        make(tmp_path / str(rows), config=replace(CONFIG, micro_batch_rows=rows, num_updates=6))
        for rows in (None, 3)
    )
    ours, theirs = list(whole.run()), list(parts.run())
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.loss.count == other.loss.count
        assert mine.loss.total == pytest.approx(other.loss.total, rel=1e-5)
        assert mine.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-4)
    for name, value in weights_of(whole).items():
        torch.testing.assert_close(value, weights_of(parts)[name], atol=1e-3, rtol=1e-2)


def test_where_memory_runs_out_the_update_is_made_in_smaller_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def little_memory(model: Gato, batch: TensorBatch, **options: object) -> Loss:
        rows.append(len(batch.ids))
        if len(batch.ids) > 1 and len(rows) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return next_token_loss(model, batch, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(update, "next_token_loss", little_memory)
    learner = make(tmp_path)
    reports = list(learner.run())
    assert reports[-1].step == CONFIG.num_updates
    assert [text.split(";")[0] for _, text in learner.notes] == [
        "no memory for 4 rows at once (step 4)",
        "no memory for 2 rows at once (step 4)",
    ]
    assert rows[:4] == [4] * 4
    assert set(rows[6:]) == {1}


def test_where_memory_runs_out_while_it_measures_the_learner_measures_with_fewer_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def little_memory(model: Gato, batch: TensorBatch, **options: object) -> Loss:
        rows.append(len(batch.ids))
        if len(batch.ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return next_token_loss(model, batch, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(update, "next_token_loss", little_memory)
    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    learner = make(tmp_path, config=replace(CONFIG, bf16=None))
    assert list(learner.run())[-1].step == CONFIG.num_updates
    problems = [text.split(";")[0] for kind, text in learner.notes if kind == "problem"]
    assert problems == [
        "no memory for 4 rows at once (before the first update)",
        "no memory for 2 rows at once (before the first update)",
    ]
    assert rows[:2] == [4, 2]
    assert set(rows[2:]) == {1}


def test_another_error_of_pytorch_is_not_taken_for_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Loss:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(update, "next_token_loss", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(make(tmp_path).run())


WORK = Work(rows=32, row_tokens=1024, targets=32 * 200)
LARGE = ModelConfig(
    num_layers=8, num_heads=24, width=768, feedforward=3072, context_tokens=1024, num_text_ids=32000
)


def test_memory_is_planned_and_said() -> None:
    with torch.device("meta"):
        model = Gato(LARGE)
    state = state_bytes(model, bf16=True)
    batch = activation_bytes(LARGE, WORK, bf16=True)

    def plan(free: int, **options: int) -> memory.MemoryPlan:
        return plan_memory(
            model, WORK, bf16=True, activation_checkpointing=False, free_bytes=free, **options
        )

    assert plan(state + batch + 32).accumulate == 1
    half = plan(state + batch * 2 // 3)
    assert (half.accumulate, half.micro_batch_rows) == (2, 16)
    needs, has = (state + batch) / 1e9, (state + batch * 2 // 3) / 1e9
    assert str(half).startswith(f"32 rows at once need {needs:.1f} GB, there are {has:.1f} GB")
    assert "accumulate 2" in str(half)
    assert plan(state, micro_batch_rows=4).accumulate == 8  # the user knows better
    with pytest.raises(ValueError, match=r"one row of 1024 tokens needs .*checkpointing=true"):
        plan(state)


def test_free_memory_is_that_of_the_machine_or_of_its_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = memory.free_bytes(CPU)
    assert 0 < free < 1 << 50
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 20)
    assert memory.free_bytes(CPU) == int(memory.CPU_SAFE * (1 << 20))


def test_a_report_tells_what_time_went_into(tmp_path: Path) -> None:
    reports = list(make(tmp_path).run())
    first = reports[0]
    assert set(first.seconds) >= {"data", "forward", "backward", "optimiser"}
    assert {"publish", "checkpoint"} <= set(reports[1].seconds)
    for report in reports:
        assert sum(report.seconds.values()) <= report.wall_s
    assert 0.0 < first.mfu < 1.0
    assert first.memory_bytes > 1 << 20
    accuracy = reports[-2].accuracy_by_task["test/robot"]
    assert accuracy.count == 36
    assert 0.0 <= accuracy.value <= 1.0
    assert set(first.norm_by_part) == {"tables", "attention", "feedforward", "norms"}
    squares = sum(norm**2 for norm in first.norm_by_part.values())
    assert squares**0.5 == pytest.approx(first.gradient_norm, rel=1e-4)


COMPILED = """
import functools, sys, tempfile
from dataclasses import replace
from pathlib import Path

import torch

from gato.network.transformer import Transformer
from tests.cluster.hosts import ROOT
from tests.learner.test_learner import CONFIG, make, weights_of

folder = Path(tempfile.mkdtemp())
own = Transformer.__dict__["_is_compiled"]
Transformer._is_compiled = True  # all tokens in all blocks, as compiled: the sums are the same
plain = make(folder / "plain")
list(plain.run())
Transformer._is_compiled = own
eager = functools.partialmethod(Transformer.compile_blocks, backend="eager")
Transformer.compile_blocks = eager
fast = make(folder / "fast", config=replace(CONFIG, compile=True))
list(fast.run())
assert fast._steps.prepared.is_compiled, fast.notes
assert not fast.notes
for name, value in weights_of(plain).items():
    torch.testing.assert_close(value, weights_of(fast)[name])
"""


def test_compiled_blocks_make_the_same_updates() -> None:
    """In a process of its own: here jaxtyping's checks stand in each function's way."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]


VARIANTS = """
import torch
from gato.network.transformer import Transformer
from tests.learner.test_learner import MODEL

stack = Transformer(MODEL.transformer)
stack.compile_blocks(backend="eager")
for rows in range(1, 13):
    stack(torch.zeros(rows, 4, MODEL.width), torch.ones(rows, 4, dtype=torch.int64))
"""


def test_a_compiled_block_computes_more_shapes_than_pytorchs_limit_of_eight() -> None:
    """Numbers of rows, masks and frozen parts each make another variant."""
    done = subprocess.run(
        [sys.executable, "-c", VARIANTS], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_memory_that_runs_out_while_it_compiles_is_no_fault_of_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer rows are tried, compiled too."""
    compiled = [False]

    def compile_blocks(_: Transformer, is_wanted: bool = True) -> None:
        compiled[0] = is_wanted

    def little_memory(model: Gato, batch: TensorBatch, **options: int) -> Loss:
        if compiled[0] and len(batch.ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return next_token_loss(model, batch, **options)

    monkeypatch.setattr(Transformer, "compile_blocks", compile_blocks)
    monkeypatch.setattr(update, "next_token_loss", little_memory)
    learner = make(tmp_path, config=replace(CONFIG, compile=True))
    assert list(learner.run())[-1].step == CONFIG.num_updates
    assert [text.split(";")[0] for kind, text in learner.notes if kind == "problem"] == [
        "no memory for 4 rows at once (before the first update)"
    ]
    assert compiled[0]
    assert learner._steps.prepared is not None
    assert learner._steps.prepared.is_compiled


def test_a_learner_that_cannot_compile_says_why_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = functools.partialmethod(Transformer.compile_blocks, backend="no_such_compiler")
    monkeypatch.setattr(Transformer, "compile_blocks", wrong)
    learner = make(tmp_path, config=replace(CONFIG, compile=True))
    reports = list(learner.run())
    assert reports[-1].step == CONFIG.num_updates
    assert "computes without torch.compile" in learner.notes[0][1]
    assert "no_such_compiler" in learner.notes[0][1]


def test_a_batch_that_was_staged_before_the_plan_is_staged_again(tmp_path: Path) -> None:
    learner = make(tmp_path, config=replace(CONFIG, micro_batch_rows=1))
    staged = learner._stager.stage(ListSource().next_batch(0, 0.0))  # pyright: ignore[reportArgumentType]
    assert staged.max_rows == 4
    seen: list[int] = []
    gradient = learner._update.gradient

    def watched(staged: object, *args: object, **options: object) -> object:
        seen.append(staged.max_rows)  # pyright: ignore[reportAttributeAccessIssue]
        return gradient(staged, *args, **options)  # pyright: ignore[reportArgumentType]

    learner._update.gradient = watched  # pyright: ignore[reportAttributeAccessIssue]
    learner._steps(staged, 0, in_detail=False)
    assert seen == [1]
