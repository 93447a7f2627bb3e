"""Learners of several processes on CPUs, for tests: a folder of results from each."""

import json
import math
import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from gato.config import ModelConfig
from gato.metrics import LearnerReport, Mean
from gato.network.model import TensorBatch
from gato.packing import RowWriter
from gato.sequence import Batch, StepLayout, Window
from gato.weights import Weights
from learner.config import LearnerConfig
from learner.loop import Learner
from learner.parallel.ranks import Ranks, meeting_place
from learner.parallel.rows import part_of
from learner.preparation.memory import TooManyRows, keep_row_limit
from learner.staging import Staged, Stager
from learner.update import LossNotFinite
from tests.gato.models import GAME, ROBOT, TALK, WordEncoder, random_observations

MODEL = ModelConfig(
    num_layers=2,
    num_heads=2,
    width=32,
    feedforward=64,
    context_tokens=64,
    num_text_ids=1024,
    max_observation_tokens=16,
    patch_channels=32,
    patch_stride=8,
    value_waves=8,
    stochastic_depth=0.3,
    action_dropout=0.5,
)
CONFIG = LearnerConfig(
    num_updates=20,
    max_rate=3e-3,
    publish_every=5,
    checkpoint_every=10,
    report_every=1,
    bf16=False,
    num_threads=1,
)
TASKS = (ROBOT, GAME, TALK)
NUM_ROWS = 5
SEED = 5


class MixedSource:
    """Batch `index` always the same: 5 rows of several lengths, of the tasks named."""

    def __init__(self, tasks: Sequence[int]) -> None:
        """`tasks`: of each row, an index into `TASKS`."""
        self._tasks = tasks

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        rng = np.random.default_rng(index)
        layout = replace(MODEL.layout, text=WordEncoder())
        writer = RowWriter(num_rows=len(self._tasks), row_tokens=MODEL.context_tokens)
        for row, task_index in enumerate(self._tasks):
            task = TASKS[task_index]
            num_steps = int(rng.integers(1, 4))
            window = Window(
                observations=random_observations(task, num_steps, rng),
                actions=(
                    rng.uniform(-2, 2, (num_steps, 3)).astype(np.float32)
                    if task is ROBOT
                    else rng.integers(0, 2, (num_steps, *task.action.shape))
                ),
            )
            steps = StepLayout(task, layout)
            writer.write_row(row, task_index=task_index, steps=steps, windows=[window])
        return writer.batch()


class Kept:
    """Keeps the versions that were published."""

    def __init__(self) -> None:
        self.weights: list[Weights] = []

    def publish(self, weights: Weights) -> bool:
        self.weights.append(weights)
        return True


def make_learner(
    folder: Path,
    tasks: Sequence[int],
    *,
    config: LearnerConfig = CONFIG,
    model: ModelConfig = MODEL,
    sink: Kept | None = None,
    ranks: Ranks | None = None,
    epoch: int = 1,
) -> Learner:
    return Learner(
        config,
        model,
        MixedSource(tasks),
        sink or Kept(),
        folder,
        epoch=epoch,
        task_names=[task.name for task in TASKS],
        seed=SEED,
        device=torch.device("cpu"),
        ranks=ranks,
    )


def losses_of(reports: Sequence[LearnerReport]) -> list[float]:
    return [report.loss.value for report in reports if report.loss.count]


def train(
    ranks: Ranks,
    folder: Path,
    tasks: Sequence[int],
    config: LearnerConfig,
    model: ModelConfig = MODEL,
    stop_at: int | None = None,
) -> dict[str, Any]:
    """Train to the end as one rank, or until rank 0 stops after `stop_at` updates. Returns what the
    rank saw and published."""
    sink = Kept()
    learner = make_learner(folder, tasks, config=config, model=model, sink=sink, ranks=ranks)
    reports = train_until(learner, stop_at if ranks.is_first else None)
    return {
        "losses": losses_of(reports),
        "norms": [report.gradient_norm for report in reports],
        "tokens": [report.tokens for report in reports],
        "versions": [weights.version.number for weights in sink.weights],
        "said": [text for _, text in learner.notes],
    }


def train_until(learner: Learner, stop_at: int | None) -> list[LearnerReport]:
    """Train to the end, or stop after `stop_at` updates."""
    reports: list[LearnerReport] = []
    for report in learner.run():
        reports.append(report)
        if report.step == stop_at:
            learner.stop()
    return reports


def sharded_names(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Which parameters FSDP2 gathers together: of the root, and of each block; and how many rows of
    the table of ids this rank has."""
    config = replace(CONFIG, parallel="fsdp")
    learner = make_learner(folder, [0, 0], config=config, ranks=ranks)
    assert learner._parallel is not None
    names = {id(p): name for name, p in learner.model.named_parameters()}
    groups: list[list[str]] = []
    for module in (learner._parallel.module, *learner.model.transformer.blocks):
        group = fully_shard.state(module)._fsdp_param_group  # pyright: ignore
        groups.append([names[id(one.sharded_param)] for one in group.fsdp_params])
    return {"groups": groups, "rows": len(local(learner.model.embedding.table.weight))}


def bad_loss(ranks: Ranks, folder: Path, config: LearnerConfig) -> dict[str, Any]:
    """An infinite weight, which only the patches of rank 0's rows meet."""
    learner = make_learner(folder, [1, 0], config=config, ranks=ranks)
    with torch.no_grad():
        local(learner.model.embedding.patch.project.bias).fill_(math.inf)
    before = [local(tensor).clone() for tensor in learner.model.parameters()]
    batch = MixedSource([1, 0]).next_batch(0, 1.0)
    assert batch is not None
    part, share = part_of(batch, ranks.rank, ranks.size)
    said = ""
    try:
        staged = Stager(torch.device("cpu")).stage(part)
        learner._update(Staged.of_share(staged, share), 0)
    except LossNotFinite as reason:
        said = str(reason)
    assert learner._parallel is not None
    if isinstance(module := learner._parallel.module, FSDPModule):
        module.reshard()
    after = learner.model.parameters()
    unchanged = all(torch.equal(old, local(new)) for old, new in zip(before, after, strict=True))
    return {"said": said, "unchanged": unchanged}


def no_memory(ranks: Ranks, folder: Path, config: LearnerConfig) -> dict[str, Any]:
    """More than one row at once asks for more memory than there is; then the ranks begin again."""
    batch = MixedSource([0, 0, 0, 0]).next_batch(0, 1.0)
    assert batch is not None
    part, share = part_of(batch, ranks.rank, ranks.size)

    def staged() -> Staged:
        return Staged.of_share(Stager(torch.device("cpu")).stage(part), share)

    def need_memory(module: object, arguments: tuple[TensorBatch]) -> None:
        if len(arguments[0].ids) > 1:
            torch.empty(1 << 50)

    learner = make_learner(folder, [0, 0, 0, 0], config=config, ranks=ranks)
    assert learner._parallel is not None
    learner._parallel.module.register_forward_pre_hook(need_memory)
    rows = 0
    try:
        learner._steps(staged(), 0, in_detail=False)
    except TooManyRows as reason:
        rows = pickle.loads(pickle.dumps(reason)).rows
        if ranks.is_first:
            keep_row_limit(folder, rows, config.micro_batch_rows)
    ranks.agreed(True)  # the file is there
    again = make_learner(folder, [0, 0, 0, 0], config=config, ranks=ranks)
    done = again._steps(staged(), 0, in_detail=False)
    return {
        "rows": rows,
        "then": again._stager.micro_batch_rows,
        "loss": sum(done.loss_by_task.values(), Mean()).value,
        "said": again.notes,
    }


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


Job = tuple[str, Callable[..., dict[str, Any]], tuple[Any, ...]]
"""The name of its folder, the work of each rank, and its arguments."""


def on_ranks(size: int, root: Path, jobs: Sequence[Job]) -> None:
    """Do jobs in `size` new processes, one after another. What each rank returns is in the job's
    folder (`seen_by`)."""
    _store, port = meeting_place("127.0.0.1", 0, size)
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_rank, args=(rank, size, port, root, jobs)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(timeout=200.0)
        assert [process.exitcode for process in processes] == [0] * size
    finally:
        for process in processes:
            process.kill()
            process.join()


def _rank(rank: int, size: int, port: int, root: Path, jobs: Sequence[Job]) -> None:
    torch.set_num_threads(1)
    store, _ = meeting_place("127.0.0.1", port, size)
    device = torch.device("cpu")
    ranks = Ranks.join(store, rank=rank, size=size, device=device, address="127.0.0.1")
    for name, work, arguments in jobs:
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        seen = work(ranks, folder, *arguments)
        (folder / f"rank-{rank}.json").write_text(json.dumps(seen))
    ranks.leave()


def seen_by(folder: Path, rank: int) -> dict[str, Any]:
    return json.loads((folder / f"rank-{rank}.json").read_text())
