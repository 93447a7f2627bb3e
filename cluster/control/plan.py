"""What a run would do, before anything of it runs (`gato start --plan`): its settings by task, the
expected time and memory.

Shape letters: B rows, L tokens in a row, S tokens in a step, m patches in a step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from rich.console import Console

from cluster.monitor.format import duration_text
from cluster.monitor.table import print_table
from cluster.runs.config import RunConfig
from cluster.runs.data import datasets
from cluster.runs.resolve import layout_of, tasks_of
from cluster.runs.task_settings import TaskNeeds, all_needs
from gato.network.flops import Work, training_flops
from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.sequence import PATCH, PLACE_ACTION, Batch, StepLayout
from gato.threads import use_threads
from learner.clock import product_rate
from learner.preparation.memory import MemoryPlan, free_bytes, plan_memory
from learner.preparation.precision import Computing, candidates
from replay.sampling.config import TaskMix, task_weight

MEASURED_FLOPS = 4e10
"""About how much of an update is computed to measure its speed: a second of one core."""
BLIND_SHARE = 0.4
"""Of the speed of large products, where not even one row is computed to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """One task's part of a run."""

    needs: TaskNeeds
    weight: float
    share: float
    """Of the rows of a batch."""
    window_steps: int | None
    steps_per_update: float
    is_taught: bool
    """Whether a teacher demonstrates; if not, the steps of demonstrations are those of data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do."""

    config: RunConfig
    tasks: tuple[TaskPlan, ...]
    parameters: int
    memory: MemoryPlan | str
    """Of the learner; a text if not one row fits."""
    tokens_per_s: float
    """Of one learner on this machine, as estimated."""
    is_measured: bool
    computing: str
    """With what precision, and on a CPU how many threads: the fastest, if it was measured."""
    device: str

    @property
    def read_tokens(self) -> int:
        mix = self.config.replay.mix
        return self.config.learner.num_updates * mix.rows * mix.row_tokens

    @property
    def learner_s(self) -> float:
        return self.read_tokens / self.tokens_per_s

    @property
    def teacher_s(self) -> float:
        """Of one worker."""
        return sum(of.needs.teacher_s for of in self.tasks if of.is_taught)


def make_plan(config: RunConfig) -> Plan:
    """The plan of a run on this machine. It computes a part of one update on made-up tokens, to see
    how fast that is; nothing is played, stored or started."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        use_threads(config.learner.num_threads or 1)
    tasks, mix = tasks_of(config), config.replay.mix
    weights = {name: task_weight(mix, task) for name, task in tasks.items()}
    shown = {task for name in config.data for task in datasets.find(name).tasks}
    planned: list[TaskPlan] = []
    for needs in all_needs(config):
        share = weights[needs.name] / sum(weights.values())
        window_steps = mix.tasks.get(needs.name, TaskMix()).window_steps
        planned.append(
            TaskPlan(
                needs=needs,
                weight=weights[needs.name],
                share=share,
                window_steps=window_steps,
                steps_per_update=share * mix.rows * needs.steps_in(mix.row_tokens),
                is_taught=needs.demonstration_steps > 0
                and needs.name not in shown
                and tasks[needs.name].has_environment,
            )
        )
    layout = layout_of(config, tasks, None)
    steps = {name: StepLayout(task, layout) for name, task in tasks.items()}
    whole = _made_up_work(config, steps, weights)
    with torch.device("meta"):
        model = Gato(config.model)
    ways = candidates(config.learner, device, max_threads=config.learner.num_threads or 1)
    try:
        memory: MemoryPlan | str = plan_memory(
            model,
            whole,
            bf16=all(way.bf16 for way in ways),  # float32 needs more
            activation_checkpointing=config.learner.activation_checkpointing,
            free_bytes=free_bytes(device),
            micro_batch_rows=config.learner.micro_batch_rows,
        )
    except ValueError as problem:
        memory = str(problem)
    flops = training_flops(config.model, whole)
    rows = int(whole.rows * MEASURED_FLOPS / flops)
    is_measured = rows >= 1
    if is_measured:
        rows = min(rows, whole.rows)
        taken_s = _gradients_s(config, steps, weights, rows, device, ways)
        way = min(ways, key=lambda way: taken_s[way])
        seconds = taken_s[way] * whole.rows / rows
    else:
        way = ways[0]
        seconds = flops / (BLIND_SHARE * product_rate(device, bf16=way.bf16))
    return Plan(
        config=config,
        tasks=tuple(planned),
        parameters=sum(p.numel() for p in model.parameters()),
        memory=memory,
        tokens_per_s=whole.tokens / seconds,
        is_measured=is_measured,
        computing=str(way),
        device=torch.cuda.get_device_name() if device.type == "cuda" else "this processor",
    )


def _made_up_work(
    config: RunConfig, steps: Mapping[str, StepLayout], weights: Mapping[str, float]
) -> Work:
    """What a batch holds on average."""
    mix = config.replay.mix
    targets = patches = 0.0
    for name, of in steps.items():
        in_batch = mix.rows * weights[name] / sum(weights.values())
        in_batch *= mix.row_tokens // of.tokens_per_step
        targets += in_batch * of.num_action_tokens
        patches += in_batch * of.num_patches
    return Work(
        rows=mix.rows, row_tokens=mix.row_tokens, targets=int(targets), patches=int(patches)
    )


def made_up_batch(
    steps: Mapping[str, StepLayout], weights: Mapping[str, float], *, rows: int, row_tokens: int
) -> Batch:
    """A batch of these tasks' shapes, with rows by their weights, whose every token is 0."""
    shape = (rows, row_tokens)
    place, segment = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    patch_at: list[np.ndarray] = []
    intervals: list[np.ndarray] = []
    names, shares = list(steps), np.cumsum([weights[name] for name in steps])
    of_row = np.searchsorted(shares, (np.arange(rows) + 0.5) / rows * shares[-1])
    for row, index in enumerate(of_row.tolist()):
        of = steps[names[index]]
        count = row_tokens // of.tokens_per_step
        used = count * of.tokens_per_step
        place[row, :used] = np.tile(of.place_S, count)
        segment[row, :used] = 1
        start_T = row * row_tokens + np.arange(count) * of.tokens_per_step
        patch_at.append((start_T[:, None] + of.patch_at_m).reshape(-1))
        intervals.append(np.tile(of.intervals_m4, (count, 1)))
    at = np.concatenate(patch_at).astype(np.int64)
    return Batch(
        ids=np.zeros(shape, np.int32),
        place=place,
        segment=segment,
        is_target=(place == PLACE_ACTION) & (segment > 0),
        patches=np.zeros((len(at), PATCH, PATCH, 3), np.uint8),
        patch_at=at,
        patch_intervals=np.concatenate(intervals),
        patch_leaders=np.zeros((len(at), 2), np.int64),
        task_index=of_row,
    )


def _gradients_s(
    config: RunConfig,
    steps: Mapping[str, StepLayout],
    weights: Mapping[str, float],
    rows: int,
    device: torch.device,
    ways: Sequence[Computing],
) -> dict[Computing, float]:
    """Seconds for the gradient of some rows, in each way the second of two turns; on one core
    the processor's, so that other jobs do not count."""
    model = Gato(config.model).to(device)
    batch = made_up_batch(steps, weights, rows=rows, row_tokens=config.replay.mix.row_tokens)
    tensors = TensorBatch.of(batch, device)
    on_one_core = device.type == "cpu" and all(way.threads == 1 for way in ways)
    seconds = time.process_time if on_one_core else time.perf_counter
    taken_s: dict[Computing, float] = {}
    for way, _ in product(ways, range(2)):
        begun_s = seconds()
        with torch.autocast(device.type, torch.bfloat16, enabled=way.bf16):
            loss = next_token_loss(model, tensors).mean
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken_s[way] = seconds() - begun_s
    return taken_s


def print_plan(plan: Plan, console: Console) -> None:
    """Print a plan as a table and some lines."""
    config, mix = plan.config, plan.config.replay.mix
    titles = ["task", "tokens a step", "window", "weight", "rows", "steps an update"]
    titles += ["demonstrations", "by the teacher", "trained on"]
    rows = [
        [
            of.needs.name,
            str(of.needs.tokens_per_step),
            "row" if of.window_steps is None else str(of.window_steps),
            f"{of.weight:g}",
            f"{100 * of.share:.0f} %",
            f"{of.steps_per_update:.0f}",
            f"{of.needs.demonstration_steps:,}" if of.is_taught else "data",
            duration_text(of.needs.teacher_s) if of.is_taught else "",
            f"{of.steps_per_update * config.learner.num_updates:,.0f}",
        ]
        for of in plan.tasks
    ]
    print_table(titles, rows, console, left=["task"])
    cores = os.cpu_count() or 1
    limiter = config.replay.limiter
    ratio = limiter.reads_per_inserted_token
    how = "measured on a part of an update" if plan.is_measured else "by its products of matrices"
    lines = [
        f"model: {plan.parameters / 1e6:,.2f} million parameters, a context of"
        f" {config.model.context_tokens} tokens",
        f"training: {config.learner.num_updates:,} updates of {mix.rows} rows of"
        f" {mix.row_tokens} tokens, {plan.read_tokens / 1e6:,.0f} million tokens",
        "limiter: "
        + ("readers and writers are not coupled" if ratio is None else f"{ratio:g} reads a token")
        + f", nothing is read before {limiter.warmup_tokens:,} tokens are in, slack"
        f" {limiter.slack_tokens:,}",
        f"memory: the learner's {plan.memory}; replay up to"
        f" {config.replay.capacity_bytes / 1e9:.1f} GB on disk,"
        f" {config.replay.cache_bytes / 1e9:.1f} GB of cache",
        f"time: {duration_text(plan.learner_s)} of the learner at {plan.tokens_per_s:,.0f} tokens/s"
        f" on {plan.device} ({plan.computing}, {how}); {duration_text(plan.teacher_s)} of"
        f" {config.actors.num_workers} worker(s) for demonstrations, meanwhile if there is a core"
        f" for it ({cores} here)",
        "nothing was started; the same command without --plan starts it",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
