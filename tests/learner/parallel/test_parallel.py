"""Several processes train as one does: the same loss, the same weights, the same checkpoints."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from gato.config import ModelConfig
from gato.network.model import Gato, TensorBatch
from learner.config import LearnerConfig
from learner.parallel.rows import part_of
from learner.preparation.precision import FILE, has_bf16
from learner.preparation.prepare import equal_parts, plan_share
from tests.learner.parallel.runs import (
    CONFIG,
    MODEL,
    Job,
    Kept,
    MixedSource,
    bad_loss,
    losses_of,
    make_learner,
    no_memory,
    on_ranks,
    seen_by,
    sharded_names,
    train,
    train_until,
)

WAYS: tuple[Literal["ddp", "fsdp"], ...] = ("ddp", "fsdp")
IMAGES = (1, 2, 0, 1, 2)
"""Tasks of the rows: images, text and values, on both ranks."""
IMAGES_ON_ONE_RANK = (1, 0, 2, 0, 0)
VALUES = (0, 0, 0, 0, 0)
ROTARY = replace(MODEL, positions="rotary")


CASES: dict[str, tuple[Sequence[int], ModelConfig]] = {
    "images and text": (IMAGES, MODEL),
    "values": (VALUES, MODEL),
    "images on one rank": (IMAGES_ON_ONE_RANK, ROTARY),
}
IN_PARTS: dict[Literal["ddp", "fsdp"], Sequence[int]] = {
    "ddp": IMAGES,  # two parts on one rank, one on the other
    "fsdp": (*IMAGES, 0),
}
SHORT = replace(CONFIG, num_updates=12, checkpoint_every=6, activation_checkpointing=True)
NORM_RTOL = 1e-4
"""The norm is of sums that are added in another order, which processors do differently."""
WITHOUT_GRADIENT = ("embedding.patch.conv1.bias",)
"""With one channel a group, the norm behind it takes it away: its gradient is rounding alone."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes did, all in one start of them."""
    root = tmp_path_factory.mktemp("ranks")
    jobs: list[Job] = [("names", sharded_names, ())]
    for way in WAYS:
        config, short = replace(CONFIG, parallel=way), replace(SHORT, parallel=way)
        jobs += [
            (f"{way} {name}", train, (tasks, config, model))
            for name, (tasks, model) in CASES.items()
        ]
        train_until(make_learner(root / f"{way} more", IMAGES, config=short), 6)
        jobs += [
            (f"{way} fewer", train, (IMAGES, short, MODEL, 6)),
            (f"{way} more", train, (IMAGES, short)),
            (f"{way} parts", train, (IN_PARTS[way], replace(config, micro_batch_rows=2))),
            (f"{way} bad", bad_loss, (config,)),
            (f"{way} tight", no_memory, (config,)),
            (f"{way} measured", train, (VALUES, replace(short, bf16=None))),
        ]
    on_ranks(2, root, jobs)
    return root


def same(ours: Sequence[float], theirs: Sequence[float]) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_losses_and_weights_of_one(
    root: Path, tmp_path: Path, case: str
) -> None:
    tasks, model = CASES[case]
    sink = Kept()
    alone = make_learner(tmp_path, tasks, model=model, sink=sink)
    reports = list(alone.run())
    assert len(losses_of(reports)) == 20
    for way in WAYS:
        folder = root / f"{way} {case}"
        for rank in range(2):
            seen = seen_by(folder, rank)
            same(seen["losses"], losses_of(reports))
            norms = [report.gradient_norm for report in reports]
            np.testing.assert_allclose(seen["norms"], norms, rtol=NORM_RTOL)
            assert seen["tokens"] == [report.tokens for report in reports]
        # Only rank 0 publishes, as often as one process does.
        numbers = [weights.version.number for weights in sink.weights]
        assert seen_by(folder, 0)["versions"] == numbers
        assert seen_by(folder, 1)["versions"] == []
        # Checkpoints of the group are those of one process.
        again = make_learner(folder, tasks, model=model)
        assert again.progress.step == alone.progress.step  # the last version is published later
        for name, value in again.model.named_parameters():
            expected = alone.model.get_parameter(name)
            if name.startswith("embedding.patch.") and tasks is VALUES:
                assert torch.equal(value, expected), name  # never seen, so never updated
            elif name not in WITHOUT_GRADIENT:
                assert (value - expected).norm() < 1e-3 * expected.norm(), name


@pytest.mark.parametrize("way", WAYS)
def test_ranks_that_compute_their_rows_in_parts_have_the_losses_of_one_process(
    root: Path, tmp_path: Path, way: Literal["ddp", "fsdp"]
) -> None:
    reports = list(make_learner(tmp_path, IN_PARTS[way]).run())
    for rank in range(2):
        seen = seen_by(root / f"{way} parts", rank)
        same(seen["losses"], losses_of(reports))
        norms = [report.gradient_norm for report in reports]
        np.testing.assert_allclose(seen["norms"], norms, rtol=NORM_RTOL)


@pytest.mark.parametrize(
    ("num_rows", "asked", "planned"),
    [
        (6, 2, 2),  # three rows each
        (5, 3, 3),  # three and two rows: one part each
        (7, 2, 2),  # four and three: two parts each
        (9, 2, None),  # five and four would be three and two parts, and one by one five and four
        (9, 4, 3),  # and these two and one
        (9, 3, 3),
    ],
)
def test_ranks_that_share_the_model_have_equally_many_parts(
    num_rows: int, asked: int, planned: int | None
) -> None:
    batch = MixedSource([0] * num_rows).next_batch(0, 1.0)
    assert batch is not None
    parts = [part_of(batch, rank, 2) for rank in range(2)]
    if planned is None:
        with pytest.raises(ValueError, match=r"make replay.mix.rows a multiple of 2"):
            equal_parts(parts[0][1], asked)
        return
    assert equal_parts(parts[0][1], asked) == equal_parts(parts[1][1], asked) == planned
    counts = [-(-len(part.ids) // planned) for part, _ in parts]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(("asked", "planned"), [(None, 3), (2, 2)])
def test_a_rank_whose_rows_fit_asks_no_other_for_parts(asked: int | None, planned: int) -> None:
    batch = MixedSource([0] * 5).next_batch(0, 1.0)
    assert batch is not None
    config = replace(CONFIG, micro_batch_rows=asked)
    plans = [
        plan_share(
            Gato(MODEL), *part_of(batch, rank, 2), config,
            device=torch.device("cpu"), bf16=False, num_shards=1,
        ).micro_batch_rows
        for rank in range(2)
    ]  # fmt: skip
    assert min(plans) == planned


@pytest.mark.parametrize("way", WAYS)
def test_ranks_without_memory_for_their_rows_begin_again_with_half_of_them(
    root: Path, way: Literal["ddp", "fsdp"]
) -> None:
    for rank in range(2):
        seen = seen_by(root / f"{way} tight", rank)
        assert (seen["rows"], seen["then"]) == (2, 1)
        assert math.isfinite(seen["loss"])
        expected = "memory has run out on a learner; each goes on with 1 row at once"
        assert any(kind == "problem" and text.startswith(expected) for kind, text in seen["said"])


def test_the_first_rank_measures_the_precision_for_all(root: Path) -> None:
    first, other = (seen_by(root / "ddp measured", rank) for rank in range(2))
    assert first["losses"] == other["losses"]
    is_bf16 = False
    if has_bf16():
        (said,) = first["said"]
        ours = r"each of the learners computes with (fp32|bf16), 1 thread \(gradient"
        assert re.match(ours, said)
        kept = json.loads((root / "ddp measured" / FILE).read_text())["computing"]
        assert kept["threads"] == 1
        is_bf16 = kept["bf16"]
    else:
        assert first["said"] == []  # there is one way
    # Sharded parameters are put together by all ranks: none can measure alone.
    assert seen_by(root / "fsdp measured", 0)["said"] == []
    alone = losses_of(list(make_learner(root / "alone", VALUES, config=SHORT).run()))
    same(seen_by(root / "fsdp measured", 0)["losses"], alone)
    if not is_bf16:
        same(first["losses"], alone)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_goes_on_with_another_number_of_processes(
    root: Path, tmp_path: Path, way: Literal["ddp", "fsdp"]
) -> None:
    unbroken = losses_of(list(make_learner(tmp_path, IMAGES, config=SHORT).run()))
    fewer = make_learner(root / f"{way} fewer", IMAGES, config=SHORT, epoch=2)
    assert fewer.progress.step == 6
    before = seen_by(root / f"{way} fewer", 0)["losses"]
    same(before + losses_of(list(fewer.run())), unbroken)
    same(seen_by(root / f"{way} more", 1)["losses"], unbroken[6:])


def test_the_table_that_the_head_shares_is_gathered_with_the_root(root: Path) -> None:
    first, *blocks = seen_by(root / "names", 0)["groups"]
    assert "embedding.table.weight" in first
    assert "transformer.norm.weight" in first
    assert len(blocks) == MODEL.num_layers
    assert all(name.startswith("transformer.blocks.") for block in blocks for name in block)
    parts = [seen_by(root / "names", rank)["rows"] for rank in range(2)]
    assert sum(parts) == MODEL.layout.vocab_size
    assert max(parts) < MODEL.layout.vocab_size


@pytest.mark.parametrize("way", WAYS)
def test_a_loss_that_is_not_finite_on_one_rank_ends_all_before_the_update(
    root: Path, way: Literal["ddp", "fsdp"]
) -> None:
    for rank in range(2):
        seen = seen_by(root / f"{way} bad", rank)
        assert "at step 0; no update was made" in seen["said"]
        assert seen["unchanged"]
        assert (root / f"{way} bad" / f"bad-batch-000000000-rank-{rank}.safetensors").is_file()


def test_ranks_have_disjoint_rows_that_make_up_the_batch() -> None:
    batch = MixedSource(IMAGES).next_batch(3, 1.0)
    assert batch is not None
    whole = TensorBatch.of(batch)
    parts = [part_of(batch, rank, 3) for rank in range(3)]
    for name in ("ids", "place", "segment", "is_target", "task_index"):
        joined = np.empty_like(getattr(batch, name))
        for part, share in parts:
            joined[share.rows] = getattr(part, name)
        np.testing.assert_array_equal(joined, getattr(batch, name))
    tensors = [TensorBatch.of(part) for part, _ in parts]
    assert sum(len(part.target_at) for part in tensors) == len(whole.target_at)
    assert sum(part.num_tokens for part, _ in parts) == batch.num_tokens
    # Each patch stays in front of the same token, and keeps its leaders.
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    for part, share in parts:
        assert share.num_targets == len(whole.target_at)
        assert share.num_patches == len(batch.patches)
        row, column = np.divmod(part.patch_at, batch.ids.shape[1])
        for i in range(len(part.patches)):
            place = (int(row[i]) * 3 + share.rank, int(column[i]))
            found[place] = [part.patches[i], part.patch_intervals[i], part.patch_leaders[i]]
    assert len(found) == len(batch.patches)
    for i, at in enumerate(batch.patch_at):
        patch, intervals, leaders = found[divmod(int(at), batch.ids.shape[1])]
        np.testing.assert_array_equal(patch, batch.patches[i])
        np.testing.assert_array_equal(intervals, batch.patch_intervals[i])
        np.testing.assert_array_equal(leaders, batch.patch_leaders[i])


def test_more_processes_than_rows_are_refused_in_one_line() -> None:
    batch = MixedSource(VALUES).next_batch(0, 1.0)
    assert batch is not None
    with pytest.raises(ValueError, match=r"a batch of 5 rows is not enough for 6 learners; lower"):
        part_of(batch, 0, 6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_learners": 0}, "num_learners is 0, it must be at least 1"),
        ({"parallel": "fsdp", "compile": True}, "parallel=fsdp cannot be compiled; use"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        LearnerConfig(num_updates=1, **settings)  # pyright: ignore[reportArgumentType]
