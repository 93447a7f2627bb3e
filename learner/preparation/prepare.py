"""Before the first update: how to compute, how many rows at once, and whether to compile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gato.network.flops import Work, training_flops
from gato.network.model import Gato
from gato.network.share import Share
from gato.sequence import Batch
from learner.clock import product_rate
from learner.config import LearnerConfig
from learner.preparation.memory import MemoryPlan, free_bytes, is_out_of_memory, plan_memory
from learner.preparation.precision import (
    Computing,
    candidates,
    choose,
    keep_choice,
    kept_choice,
    told,
    use,
)
from learner.staging import Staged, Stager
from learner.update import Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What was found out."""

    computing: Computing
    memory: MemoryPlan
    is_compiled: bool
    product_rate: float
    """FLOP/s of large products."""
    notes: tuple[str, ...]
    """For people."""


def work_of(batch: Batch) -> Work:
    """What the cost of a batch depends on."""
    rows, row_tokens = batch.ids.shape
    return Work(
        rows=rows,
        row_tokens=row_tokens,
        targets=int(batch.is_target.sum()),
        patches=len(batch.patches),
    )


def batch_flops(model: Gato, batch: Batch) -> int:
    """Model FLOPs of an update."""
    return training_flops(model.config, work_of(batch))


def prepare(
    model: Gato,
    update: Update,
    batch: Batch,
    config: LearnerConfig,
    *,
    stager: Stager,
    device: torch.device,
    max_threads: int,
    folder: Path,
    most_rows: int | None = None,
) -> Prepared:
    """Try what the settings leave open on a batch, and set `update` and `stager` to it.

    Nothing is learned: gradients are dropped.

    Args:
        model: In place.
        update: Of the model.
        batch: The first.
        config: What it says is not tried.
        stager: Of all batches.
        device: Where the model is.
        max_threads: That leave room for the workers.
        folder: Of the checkpoints, where the choice is kept.
        most_rows: At once, where memory has run out with more. None: as many as are planned.

    Raises:
        ValueError: Not even one row fits the memory.
        torch.OutOfMemoryError, RuntimeError: There is too little memory for the rows at once, of
            which `stager` has the number.
    """
    ways = candidates(config, device, max_threads=max_threads)

    def planned(*, bf16: bool) -> MemoryPlan:
        plan = plan_memory(
            model,
            work_of(batch),
            bf16=bf16,
            activation_checkpointing=config.activation_checkpointing,
            free_bytes=free_bytes(device),
            micro_batch_rows=config.micro_batch_rows,
        )
        return replace(plan, micro_batch_rows=min(plan.micro_batch_rows, most_rows or plan.rows))

    memory = planned(bf16=all(way.bf16 for way in ways))  # float32 needs more
    stager.micro_batch_rows = memory.micro_batch_rows
    sample = stager.stage(batch.split(memory.micro_batch_rows)[0])

    def once(way: Computing) -> None:
        update.bf16 = way.bf16
        _gradient(model, update, sample)

    notes: list[str] = []
    computing = ways[0] if len(ways) == 1 else kept_choice(folder, ways, device)
    if computing is None:
        computing, seconds = choose(ways, once, device)
        notes.append(told(computing, seconds, rows=memory.micro_batch_rows))
        with suppress(OSError):  # a full disk is said where a checkpoint cannot be written
            keep_choice(folder, ways, device, computing)
    use(computing)
    update.bf16 = computing.bf16
    memory = planned(bf16=computing.bf16)
    stager.micro_batch_rows = memory.micro_batch_rows
    if memory.accumulate > 1:
        notes.append(str(memory))
    if problem := _packs(model, lambda: _gradient(model, update, sample), device):
        notes.append(f"attends to packed rows with a mask: {problem}")
    wanted = config.compile if config.compile is not None else device.type == "cuda"
    problem = compiled(model, lambda: _gradient(model, update, sample)) if wanted else ""
    if problem:
        notes.append(f"computes without torch.compile: {problem}")
    update.clock.take()
    return Prepared(
        computing=computing,
        memory=memory,
        is_compiled=wanted and not problem,
        product_rate=product_rate(device, bf16=computing.bf16),
        notes=tuple(notes),
    )


def plan_share(
    model: Gato,
    batch: Batch,
    share: Share,
    config: LearnerConfig,
    *,
    device: torch.device,
    bf16: bool,
    num_shards: int,
) -> MemoryPlan:
    """How many of a rank's rows are computed at once: all of them, whatever number, if they fit.

    Args:
        model: The whole of it, whatever of it is on the device.
        batch: The rank's rows.
        share: Which rows they are.
        config: The learner's.
        device: Of the rank.
        bf16: Whether it computes in bfloat16.
        num_shards: Ranks that share the training state.

    Raises:
        ValueError: Not even one row fits.
    """
    plan = plan_memory(
        model,
        work_of(batch),
        bf16=bf16,
        activation_checkpointing=config.activation_checkpointing,
        free_bytes=free_bytes(device),
        micro_batch_rows=config.micro_batch_rows,
        num_shards=num_shards,
    )
    # Other ranks may have a row more.
    return plan if plan.accumulate > 1 else replace(plan, micro_batch_rows=share.most_rows)


def equal_parts(share: Share, rows: int) -> int:
    """The most rows at once, up to `rows`, with which all ranks compute equally many parts. Raises
    ValueError if there are none."""
    if share.num_rows % share.size:
        # Some ranks have one row less than others.
        while rows > 1 and rows < share.most_rows and (share.most_rows - 1) % rows == 0:
            rows -= 1
        if rows == 1 and share.most_rows > 1:
            raise ValueError(
                f"{share.num_rows} rows on {share.size} learners, one at a time: all must have"
                f" equally many; make replay.mix.rows a multiple of {share.size}"
            )
    return rows


def _gradient(model: Gato, update: Update, sample: Staged) -> None:
    try:
        update.gradient(sample, 0)
    finally:
        model.zero_grad(set_to_none=True)


def _packs(model: Gato, once: Callable[[], None], device: torch.device) -> str:
    """Try attention without a mask on a GPU; why it is not used, empty: it is, or never was to
    be."""
    if device.type != "cuda" or model.transformer.is_packed is False:
        return ""
    try:
        once()
    except RuntimeError as problem:  # an older GPU, or heads of an odd width
        if is_out_of_memory(problem):
            raise
        model.transformer.is_packed = False
        return str(problem).strip().splitlines()[0][:200]
    return ""


def compiled(model: Gato, once: Callable[[], None]) -> str:
    """Compile the blocks and try them; why they stay uncompiled, empty: they do not."""
    try:
        model.transformer.compile_blocks()
        once()
    except Exception as problem:  # whatever a compiler raises
        model.transformer.compile_blocks(False)
        if isinstance(problem, RuntimeError) and is_out_of_memory(problem):
            raise  # fewer rows may fit
        said = str(problem).strip().splitlines()
        return f"{type(problem).__name__}: {said[0] if said else ''}"[:200]
    return ""
