"""Counts of FLOPs and bytes, held to PyTorch's counter and to the tensors that are really kept."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.config import ModelConfig
from gato.network.flops import (
    Work,
    activation_bytes,
    cache_bytes_per_token,
    forward_flops,
    training_flops,
)
from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.packing import RowWriter
from gato.sequence import StepLayout, Window
from gato.task import Task
from tests.gato.models import GAME, ROBOT, random_observations

CONFIG = ModelConfig(
    num_layers=3, num_heads=4, width=64, feedforward=256, context_tokens=288, num_text_ids=1024,
    max_observation_tokens=16, patch_channels=32, patch_stride=1, stochastic_depth=0.1,
)  # fmt: skip
each_setting = pytest.mark.parametrize("positions", ["transformer-xl", "rotary"])
each_task = pytest.mark.parametrize("task", [ROBOT, GAME], ids=["robot", "game"])


def batch_of(
    task: Task, config: ModelConfig, *, rows: int, row_tokens: int
) -> tuple[TensorBatch, Work]:
    """Full rows of one window each."""
    rng = np.random.default_rng(0)
    steps = StepLayout(task, config.layout)
    num_steps = row_tokens // steps.tokens_per_step
    writer = RowWriter(num_rows=rows, row_tokens=row_tokens)
    for row in range(rows):
        actions = np.zeros((num_steps, *task.action.shape), task.action.dtype)
        window = Window(observations=random_observations(task, num_steps, rng), actions=actions)
        writer.write_row(row, task_index=0, steps=steps, windows=[window])
    batch = TensorBatch.of(writer.batch())
    return batch, Work(
        rows=rows, row_tokens=row_tokens, targets=len(batch.target_at), patches=len(batch.patches)
    )


def counted(work: Callable[[], object]) -> int:
    """FLOPs that PyTorch counts; by plain products, since its CPU kernel of fused attention goes
    uncounted."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@each_setting
@each_task
@pytest.mark.parametrize("value_waves", [0, 8])
def test_the_formulas_of_flops_agree_with_pytorchs_counter(
    task: Task, positions: str, value_waves: int
) -> None:
    # Rows no longer than a block of queries, whose whole square is multiplied, as the formula
    # counts it.
    config = replace(CONFIG, positions=positions, value_waves=value_waves)
    model = Gato(config).train()
    batch, work = batch_of(task, config, rows=4, row_tokens=117)
    forward = counted(lambda: next_token_loss(model, batch))
    assert forward_flops(config, work).total == pytest.approx(forward, rel=0.01)
    training = counted(lambda: next_token_loss(model, batch).mean.backward())
    assert training_flops(config, work) == pytest.approx(training, rel=0.02)
    model.transformer.activation_checkpointing = True
    training = counted(lambda: next_token_loss(model, batch).mean.backward())
    assert training_flops(config, work, activation_checkpointing=True) == pytest.approx(
        training, rel=0.02
    )


def test_long_rows_leave_out_what_no_token_sees() -> None:
    batch, work = batch_of(ROBOT, CONFIG, rows=1, row_tokens=288)
    model = Gato(CONFIG)
    flops = forward_flops(CONFIG, work)
    # 288 tokens in blocks of 128: (128 x 128 + 128 x 256 + 32 x 288) of 288 x 288 pairs.
    pairs = (128 * 128 + 128 * 256 + 32 * 288) / 288**2
    executed = flops.total - flops.attention + pairs * flops.attention
    assert counted(lambda: next_token_loss(model, batch)) == pytest.approx(executed, rel=0.01)


def kept_bytes(model: Gato, batch: TensorBatch, *, bf16: bool) -> int:
    """Bytes of all storages that the graph of one loss keeps, but for parameters and the batch's
    own."""
    fields = [getattr(batch, name) for name in TensorBatch.__dataclass_fields__]
    given = [*model.parameters(), *[field for field in fields if isinstance(field, torch.Tensor)]]
    ours = {tensor.untyped_storage().data_ptr() for tensor in given}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = next_token_loss(model, batch).mean
        total = sum(kept.values())
        loss.detach_()
    return total


@each_setting
@each_task
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_the_formula_of_activations_agrees_with_what_is_kept(
    task: Task, positions: str, bf16: bool
) -> None:
    """What a second row adds: weights and their copies in bfloat16 do not grow with the batch."""
    config = replace(CONFIG, positions=positions)
    model = Gato(config).train()
    (one, work_one), (two, work_two) = (
        batch_of(task, config, rows=rows, row_tokens=288) for rows in (1, 2)
    )

    def formula(checkpointing: bool, layers: int = CONFIG.num_layers) -> int:
        sized = replace(config, num_layers=layers)
        first, second = (
            activation_bytes(sized, work, bf16=bf16, activation_checkpointing=checkpointing)
            for work in (work_one, work_two)
        )
        return second - first

    kept = kept_bytes(model, two, bf16=bf16) - kept_bytes(model, one, bf16=bf16)
    assert formula(False) == pytest.approx(kept, rel=0.03)
    model.transformer.activation_checkpointing = True
    kept = kept_bytes(model, two, bf16=bf16) - kept_bytes(model, one, bf16=bf16)
    # Outside of the forward pass the values of the one block that is computed again are not there
    # yet.
    one_block = formula(False, layers=4) - formula(False, layers=3)
    assert formula(True) - one_block == pytest.approx(kept, rel=0.03)
    assert formula(True) < formula(False)


def test_the_formula_of_the_cache_agrees_with_the_cache() -> None:
    model = Gato(CONFIG)
    state = Policy(model, ROBOT, ActingConfig()).start(3)
    slots = state.caches[0].keys.shape[2]
    held = sum(cache.keys.nbytes + cache.values.nbytes for cache in state.caches)
    assert held == 3 * slots * cache_bytes_per_token(CONFIG)
    assert cache_bytes_per_token(CONFIG, bytes_per_value=2) == 3 * 2 * 64 * 2
