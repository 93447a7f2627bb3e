"""How many rows of a batch a device has the memory for, planned before the first update."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from gato.memory import available_bytes
from gato.network.flops import Work, activation_bytes
from gato.network.model import Gato

SAFE = 0.9
"""Share of the free memory that a plan may use: fragments, and what libraries take."""
CPU_SAFE = 0.7
"""On a CPU other processes, workers among them, use the same memory."""
LIMIT_FILE = "rows-at-once.json"
STATE_BYTES = 16
"""Of a parameter: weight, gradient, and the optimiser's two moments, in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What an update needs, and has."""

    rows: int
    """Of a batch."""
    micro_batch_rows: int
    """Computed at once; gradients of the others are added."""
    state_bytes: int
    """Weights, gradients, moments, and the copies that products take."""
    batch_bytes: int
    """For the gradient of a whole batch."""
    free_bytes: int

    @property
    def accumulate(self) -> int:
        """Forward passes of one update."""
        return -(-self.rows // self.micro_batch_rows)

    def __str__(self) -> str:
        needs, has = (self.state_bytes + self.batch_bytes) / 1e9, self.free_bytes / 1e9
        text = f"{self.rows} rows at once need {needs:.1f} GB, there are {has:.1f} GB"
        if self.accumulate == 1:
            return text
        return f"{text}: accumulate {self.accumulate} (learner.micro_batch_rows)"


def plan_memory(
    model: Gato,
    work: Work,
    *,
    bf16: bool,
    activation_checkpointing: bool,
    free_bytes: int,
    micro_batch_rows: int | None = None,
    num_shards: int = 1,
) -> MemoryPlan:
    """Split a batch so that it fits.

    Args:
        model: On the device already; its weights are counted.
        work: A whole batch.
        bf16: Whether products are in bfloat16.
        activation_checkpointing: Whether blocks are computed again for the gradient.
        free_bytes: Of the device, with the model's weights.
        micro_batch_rows: What the user says. None: as many as fit.
        num_shards: Devices that share the training state.

    Raises:
        ValueError: Not even one row fits.
    """
    state = state_bytes(model, bf16=bf16) // num_shards
    per_row = -(
        -activation_bytes(
            model.config, work, bf16=bf16, activation_checkpointing=activation_checkpointing
        )
        // work.rows
    )
    fitting = max(0, free_bytes - state) // max(per_row, 1)
    if fitting < 1 and micro_batch_rows is None:
        ways = "" if activation_checkpointing else "learner.activation_checkpointing=true, "
        raise ValueError(
            f"one row of {work.row_tokens} tokens needs {(state + per_row) / 1e9:.1f} GB, there are"
            f" {free_bytes / 1e9:.1f} GB; set {ways}shorter rows (replay.mix.row_tokens) or a"
            " smaller model"
        )
    if micro_batch_rows is None:
        # Parts of equal size: the fewest that fit.
        parts = -(-work.rows // min(int(fitting), work.rows))
        micro_batch_rows = -(-work.rows // parts)
    return MemoryPlan(
        rows=work.rows,
        micro_batch_rows=min(micro_batch_rows, work.rows),
        state_bytes=state,
        batch_bytes=per_row * work.rows,
        free_bytes=free_bytes,
    )


def state_bytes(model: Gato, *, bf16: bool) -> int:
    """What training keeps whatever the batch is. Autocast keeps a bfloat16 copy of each matrix from
    the forward pass to the gradient's end."""
    copies = sum(p.numel() for p in model.parameters() if p.ndim >= 2) * 2 if bf16 else 0
    return STATE_BYTES * model.num_parameters() + copies


def free_bytes(device: torch.device) -> int:
    """Memory that the learner may use, with what this process has already."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(SAFE * (free + torch.cuda.memory_reserved(device)))
    return int(CPU_SAFE * available_bytes())


class TooManyRows(RuntimeError):
    """One of several learners has no memory for the rows that it computes at once. The others wait
    for it: all begin again, with fewer."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.rows = rows

    def __str__(self) -> str:
        return f"no memory for {self.rows} rows at once"


def keep_row_limit(folder: Path, too_many: int, asked: int | None) -> None:
    """Remember in the folder of checkpoints that each learner computes at most half of `too_many`
    rows at once, as long as the user asks for no other number than `asked`
    (`learner.micro_batch_rows`). Where the disk is full this is forgotten."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"{LIMIT_FILE}.{os.getpid()}.tmp"
        draft.write_text(json.dumps({"rows": -(-too_many // 2), "asked": asked}) + "\n")
        draft.replace(folder / LIMIT_FILE)


def row_limit(folder: Path, asked: int | None) -> int | None:
    """What `keep_row_limit` wrote; None: memory has not run out since that number was asked for."""
    try:
        kept = json.loads((folder / LIMIT_FILE).read_text())
        return max(1, int(kept["rows"])) if kept["asked"] == asked else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_out_of_memory(problem: RuntimeError) -> bool:
    """Whether PyTorch could not get the memory for a tensor."""
    return isinstance(problem, torch.OutOfMemoryError) or "can't allocate memory" in str(problem)
