"""Training at 1,024 tokens: Gato, with both settings of positions, against a bare GPT: `python -m
benchmarks.train`.

The yardstick is a plain pre-norm decoder (GELU, learned absolute positions, fused causal attention,
tied head) with its loss at the same targets and, by the width of its hidden layers, as many
parameters as Gato without its patch embedding, which rows without images do not pass.
Transformer-XL's projections of distances are parameters, but are applied to distances and not to
tokens: against a GPT as big as Gato is without them, which does less for a token, its row gives a
second ratio.

Memory is what two steps add to the peak of a process of their own; its ratio is the yardstick's
bytes by ours.

All take turns in one run; a ratio is the median over turns of the yardstick's seconds by ours. On a
CPU they are seconds of the processor, on one thread: other jobs on the machine then do not count.
On a GPU it also gives tokens/s of the presets, with their share of the measured rate of products of
matrices (MFU).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from actors.tasks.catalog import TASKS
from benchmarks.bare_gpt import BareGPT, passed_parameters
from benchmarks.machine import ROOT, about
from gato.config import PRESETS, ModelConfig
from gato.network.flops import Work, training_flops
from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.packing import RowWriter
from gato.sequence import StepLayout, Window
from gato.threads import use_threads

Row = dict[str, float | str | int]
SETTINGS: tuple[Literal["transformer-xl"], Literal["rotary"]] = ("transformer-xl", "rotary")
ROW_TOKENS = 1024
CPU_MODEL = ModelConfig(
    num_layers=4, num_heads=8, width=512, feedforward=2048, context_tokens=ROW_TOKENS,
    num_text_ids=1024, stochastic_depth=0.1
)  # fmt: skip
"""As wide as its heads times 64, with the paper's proportions, and a step of seconds on one
core."""


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


def take_turns(
    steps: Mapping[str, Callable[[], None]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    after: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each, in turns, after one of each that is not counted. `after`: follows each, and
    is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            begun = clock()
            step()
            if turn:
                seconds[name].append(clock() - begun)
            after()
    return seconds


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over turns."""
    return round(float(np.median(np.array(theirs) / np.array(ours))), 3)


def step_bytes(
    config: ModelConfig, *, is_bare: bool, bf16: bool, num_rows: int, answer: Connection
) -> None:
    """Send what two training steps add to the memory of this process, which has done nothing
    else: weights, gradients, moments and activations."""
    use_threads(1)
    device = torch.device("cpu")
    batch = hopper_batch(config, num_rows, device)
    before = _peak_resident_bytes()
    if is_bare:
        model: nn.Module = BareGPT(config, passed_parameters(config))
        loss = partial(model.loss, batch)
    else:
        model = Gato(config).train()
        loss = partial(loss_of, model, batch)
    step = training_step(model, loss, device=device, bf16=bf16)
    step()
    step()
    answer.send(_peak_resident_bytes() - before)


def _peak_resident_bytes() -> int:
    """Of this process. Linux's `ru_maxrss` would be the parent's where that was larger."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def peak_bytes(config: ModelConfig, *, is_bare: bool, bf16: bool, num_rows: int) -> int:
    """`step_bytes` of a process of its own."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=step_bytes,
        args=(config,),
        kwargs={"is_bare": is_bare, "bf16": bf16, "num_rows": num_rows, "answer": theirs},
    )
    process.start()
    theirs.close()  # so that a process that fails is an end of the pipe
    answer = ours.recv()
    process.join()
    return answer


def against_bare(config: ModelConfig, *, bf16: bool, repeats: int, num_rows: int) -> list[Row]:
    """A row for each setting of positions, on the CPU."""
    device = torch.device("cpu")
    batch = hopper_batch(config, num_rows, device)
    steps: dict[str, Callable[[], None]] = {}
    sizes: dict[str, int] = {}
    for positions in SETTINGS:
        sized = replace(config, positions=positions)
        gato, bare = Gato(sized).train(), BareGPT(sized, passed_parameters(sized))
        sizes[positions], sizes[f"bare {positions}"] = (
            passed_parameters(sized),
            sum(p.numel() for p in bare.parameters()),
        )
        steps[positions] = training_step(
            gato, partial(loss_of, gato, batch), device=device, bf16=bf16
        )
        steps[f"bare {positions}"] = training_step(
            bare, partial(bare.loss, batch), device=device, bf16=bf16
        )
    seconds = take_turns(steps, repeats, time.process_time)
    rows: list[Row] = []
    for positions in SETTINGS:
        ours, theirs = seconds[positions], seconds[f"bare {positions}"]
        our_bytes, their_bytes = (
            peak_bytes(
                replace(config, positions=positions), is_bare=bare, bf16=bf16, num_rows=num_rows
            )
            for bare in (False, True)
        )
        rows.append(
            {
                "path": (
                    f"train step, CPU {'bf16' if bf16 else 'fp32'}, L={ROW_TOKENS}, {positions}"
                ),
                "against": "a bare GPT of equal size",
                "ours_s": float(np.median(ours)),
                "theirs_s": float(np.median(theirs)),
                "ratio": ratio(ours, theirs),
                "ratio_to_bare_without_distances": ratio(ours, seconds["bare rotary"]),
                "tokens_per_s": round(batch.num_tokens / float(np.median(ours))),
                "parameters": sizes[positions],
                "bare_parameters": sizes[f"bare {positions}"],
                "peak_bytes": our_bytes,
                "bare_peak_bytes": their_bytes,
                "memory_ratio": round(their_bytes / our_bytes, 3),
            }
        )
    return rows


def loss_of(gato: Gato, batch: TensorBatch) -> Tensor:
    return next_token_loss(gato, batch).mean


def matmul_rate(device: torch.device, size: int = 8192, repeats: int = 20) -> float:
    """FLOPs a second of a square product in bfloat16: the best of some runs, the peak that a model
    is measured by."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)

    def product() -> None:
        torch.mm(a, a)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2 * size**3 / min(take_turns({"product": product}, repeats)["product"])


def utilisation(config: ModelConfig, work: Work, seconds: float, peak: float) -> float:
    """Share of the peak: model FLOPs of a training step, none counted twice, by the time it
    took."""
    return training_flops(config, work) / seconds / peak


def presets_on_gpu(num_rows: Mapping[str, int], repeats: int = 10) -> list[Row]:
    """Tokens/s and MFU of presets, compiled, in bfloat16; the yardstick is the chip's rate of
    products."""
    device = torch.device("cuda")
    peak = matmul_rate(device)
    rows: list[Row] = []
    for name, rows_at_once in num_rows.items():
        for positions in SETTINGS:
            config = replace(PRESETS[name], positions=positions)
            batch = hopper_batch(config, rows_at_once, device)
            gato = Gato(config).to(device).train()
            loss = torch.compile(loss_of, fullgraph=True)
            step = training_step(gato, partial(loss, gato, batch), device=device, bf16=True)
            seconds = float(np.median(take_turns({"ours": step}, repeats)["ours"]))
            work = Work(rows=rows_at_once, row_tokens=ROW_TOKENS, targets=len(batch.target_at))
            share = utilisation(config, work, seconds, peak)
            rows.append(
                {
                    "path": f"train step, GPU bf16, L={ROW_TOKENS}, {name}, {positions}",
                    "against": "products of matrices at the measured peak (MFU)",
                    "ours_s": seconds,
                    "theirs_s": seconds * share,
                    "ratio": round(share, 3),
                    "tokens_per_s": round(batch.num_tokens / seconds),
                    "peak_flops_per_s": round(peak),
                }
            )
    return rows


def measures() -> Iterator[Row]:
    """All rows that this machine can give; `benchmarks.run` adds machine, date and commit."""
    use_threads(1)
    for bf16 in (True, False):
        yield from against_bare(CPU_MODEL, bf16=bf16, repeats=5, num_rows=4)
    if torch.cuda.is_available():
        yield from presets_on_gpu({"79m": 32, "364m": 16})


def main() -> None:
    """Measure, and add the rows to those of all benchmarks."""
    machine = about()
    for row in measures():
        print(
            f"{row['path']}: {row['ratio']} x {row['against']} ({row['tokens_per_s']} tokens/s),"
            f" memory {row.get('memory_ratio', '-')} x",
            flush=True,
        )
        with (ROOT / "benchmarks" / "rows.jsonl").open("a") as out:
            out.write(json.dumps(row | machine) + "\n")


if __name__ == "__main__":
    main()
