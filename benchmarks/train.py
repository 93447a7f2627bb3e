"""Training at 1,024 tokens: Gato, with both settings of positions, against a bare GPT: `python -m benchmarks.train`.

The yardstick is a plain pre-norm decoder (GELU, learned absolute positions, fused causal attention, tied head) of as many
parameters as a token of Gato passes through with rotary positions: patch embedding (the rows hold no images) and the distance projections
of transformer-xl (which are applied to distances, not to tokens) do not count. Its loss is at the same targets.
All models take turns in one run; a ratio is the median over turns of yardstick seconds by our seconds.
On a GPU it also gives tokens/s of the presets, with the share of the measured rate of matrix products (MFU).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actors.tasks import TASKS
from gato.model import Gato, ModelConfig, TensorBatch, next_token_loss
from gato.sequence import RowWriter, StepLayout, Window

ROW_TOKENS = 1024
CPU_MODEL = ModelConfig(
    num_layers=4, num_heads=8, width=512, feedforward=2048, context_tokens=ROW_TOKENS, num_text_ids=1024, stochastic_depth=0.1
)  # fmt: skip
"""As wide as its heads times 64, with the paper's proportions, and a step of seconds on one core."""


class BareBlock(nn.Module):
    """Causal attention, then GELU between two products."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        B, L, D = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, L, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, L, D))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class BareGPT(nn.Module):
    """The yardstick: as deep and wide as `config`, its hidden layer made as wide as equal size asks."""

    def __init__(self, config: ModelConfig, num_parameters: int) -> None:
        super().__init__()
        width, layers = config.width, config.num_layers
        self.table = nn.Embedding(config.layout.vocab_size, width)
        self.position = nn.Parameter(torch.randn(config.context_tokens, width) * 0.02)
        nn.init.normal_(self.table.weight, std=0.02)
        fixed = self.table.weight.numel() + self.position.numel() + 2 * width + layers * (4 * width**2 + 5 * width)
        # A hidden unit has two rows of weights and a bias; a multiple of 16, so that no product is an odd size.
        hidden = round((num_parameters - fixed) / (layers * (2 * width + 1)) / 16) * 16
        self.blocks = nn.Sequential(*[BareBlock(width, config.num_heads, hidden) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def loss(self, batch: TensorBatch) -> Tensor:
        """Mean cross-entropy at the batch's targets."""
        hidden = self.norm(self.blocks(self.table(batch.ids) + self.position[: batch.ids.shape[1]]))
        before = hidden.flatten(0, 1).index_select(0, batch.target_at - 1)
        logits = before @ self.table.weight.to(before.dtype).T
        return F.cross_entropy(logits.float(), batch.ids.flatten()[batch.target_at])


def passed_parameters(config: ModelConfig) -> int:
    """Parameters of Gato that a token without pixels passes through, its positions rotary."""
    with torch.device("meta"):
        gato = Gato(replace(config, positions="rotary"))
    return gato.num_parameters() - sum(p.numel() for p in gato.embedding.patch.parameters())


def hopper_batch(config: ModelConfig, num_rows: int, device: torch.device) -> TensorBatch:
    """Rows of one window of Hopper each: 68 steps of 15 tokens, 3 of them targets."""
    task = TASKS["mujoco/hopper"]
    rng = np.random.default_rng(0)
    steps = StepLayout(task, config.layout)
    num_steps = ROW_TOKENS // steps.tokens_per_step
    writer = RowWriter(num_rows=num_rows, row_tokens=ROW_TOKENS)
    for row in range(num_rows):
        window = Window(
            observations={"state": rng.normal(size=(num_steps, 11)).astype(np.float32)},
            actions=rng.uniform(-1, 1, (num_steps, 3)).astype(np.float32),
        )
        writer.write_row(row, task_index=0, steps=steps, windows=[window])
    return TensorBatch.of(writer.batch(), device)


def training_step(
    model: nn.Module, loss: Callable[[], Tensor], *, device: torch.device, bf16: bool
) -> Callable[[], None]:
    """Forward, gradient and update, to the end."""
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)

    def once() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            value = loss()
        value.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return once


def take_turns(steps: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, in turns, after one of each that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def against_bare(*, bf16: bool, repeats: int = 5, num_rows: int = 4) -> list[dict[str, float | str | int]]:
    """A row for each setting of positions, on the CPU."""
    device = torch.device("cpu")
    batch = hopper_batch(CPU_MODEL, num_rows, device)
    bare = BareGPT(CPU_MODEL, passed_parameters(CPU_MODEL))
    steps = {"bare": training_step(bare, lambda: bare.loss(batch), device=device, bf16=bf16)}
    sizes: dict[str, int] = {"bare": sum(p.numel() for p in bare.parameters())}
    for positions in ("transformer-xl", "rotary"):
        gato = Gato(replace(CPU_MODEL, positions=positions)).train()
        sizes[positions] = gato.num_parameters()
        steps[positions] = training_step(
            gato, lambda gato=gato: next_token_loss(gato, batch).mean, device=device, bf16=bf16
        )
    seconds = take_turns(steps, repeats)
    rows: list[dict[str, float | str | int]] = []
    for positions in ("transformer-xl", "rotary"):
        ours, theirs = np.array(seconds[positions]), np.array(seconds["bare"])
        rows.append(
            {
                "path": f"train step, CPU {'bf16' if bf16 else 'fp32'}, L={ROW_TOKENS}, {positions}",
                "against": "a bare GPT of equal size",
                "ours_s": float(np.median(ours)),
                "theirs_s": float(np.median(theirs)),
                "ratio": round(float(np.median(theirs / ours)), 3),
                "tokens_per_s": round(num_rows * ROW_TOKENS / float(np.median(ours))),
                "parameters": sizes[positions],
                "bare_parameters": sizes["bare"],
            }
        )
    return rows
