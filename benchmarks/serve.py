"""Speed of the policy server over loopback: `python -m benchmarks.serve`.

Clients of one task act as fast as they get their actions, against one client at a time. The model
has random weights: what it chooses takes as long whatever they are. Server and clients share the
machine's cores.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from actors.tasks.catalog import TASKS
from benchmarks.machine import ROOT, about
from benchmarks.rows import write_table
from benchmarks.timing import milliseconds
from cluster.serving.client import PolicyClient
from gato.acting.config import ActingConfig
from gato.config import PRESETS
from gato.exported.policy_file import PolicyFile, TaskPolicy, write_policy
from gato.network.model import Gato
from gato.version import Version
from gato.weights import Weights, acting_config, snapshot

HOPPER = TASKS["mujoco/hopper"]
NUM_CLIENTS = (8, 30)
SECONDS = 15.0
WARM_STEPS = 5


@contextmanager
def server(folder: Path) -> Generator[tuple[str, str]]:
    """URL and token of a server of the small preset with a context of 1,024 tokens."""
    torch.manual_seed(0)
    model = Gato(replace(acting_config(PRESETS["small"]), context_tokens=1024))
    policy = PolicyFile(
        run="benchmark",
        seed=0,
        model=model.config,
        weights=Weights(version=Version(0, 0), learner_step=0, arrays=snapshot(model)),
        tasks={HOPPER.name: TaskPolicy(task=HOPPER, acting=ActingConfig())},
    )
    file = folder / "policy.safetensors"
    write_policy(file, policy)
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.cli.main", "serve", str(file), "--port", "0"],
        env=os.environ | {"GATO_HOME": str(folder), "COLUMNS": "200", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    found = re.search(r"at (http://\S+); the token is in (\S+)", process.stdout.readline())
    assert found, "the server did not start"
    try:
        yield found[1], Path(found[2]).read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def measure(url: str, token: str, num_clients: int) -> list[float]:
    """Seconds of each request of clients that act for some time."""
    ready = threading.Barrier(num_clients)

    def act(seed: int) -> list[float]:
        client, rng, took_s = PolicyClient(url, token), np.random.default_rng(seed), list[float]()
        client.reset(HOPPER.name)
        ready.wait()
        until_s = time.perf_counter() + SECONDS
        steps = 0
        while time.perf_counter() < until_s:
            state = rng.normal(size=11).astype(np.float32)
            begun_s = time.perf_counter()
            client.act(state)
            steps += 1
            if steps > WARM_STEPS:
                took_s.append(time.perf_counter() - begun_s)
        client.close()
        return took_s

    with ThreadPoolExecutor(num_clients) as pool:
        return [seconds for each in pool.map(act, range(num_clients)) for seconds in each]


def measures() -> Iterator[dict[str, float | str]]:
    """A row for each number of clients: seconds a request, against one client alone."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (url, token):
        alone = measure(url, token, 1)
        alone_s = float(np.mean(alone))
        for num_clients in NUM_CLIENTS:
            took_s = measure(url, token, num_clients)
            # Clients wait at the same time: a request costs the server its share of that.
            ours_s = float(np.mean(took_s)) / num_clients
            yield {
                "path": f"serve, small, mujoco/hopper, {num_clients} clients",
                "against": "one client at a time",
                "ours_s": ours_s,
                "theirs_s": alone_s,
                "requests_per_s": round(1.0 / ours_s, 1),
                "p50_ms": milliseconds(took_s, 50),
                "p95_ms": milliseconds(took_s, 95),
                "alone_p50_ms": milliseconds(alone, 50),
                "alone_p95_ms": milliseconds(alone, 95),
            }


def main() -> None:
    """Measure, print and add the rows to benchmarks/rows.jsonl."""
    machine, file = about(), ROOT / "benchmarks" / "rows.jsonl"
    for row in measures():
        ratio = round(float(row["theirs_s"]) / float(row["ours_s"]), 3)
        print(
            f"{row['path']}: {row['requests_per_s']} requests/s, p50 {row['p50_ms']} ms, p95"
            f" {row['p95_ms']} ms; {ratio} x {row['against']} (p50 {row['alone_p50_ms']} ms, p95"
            f" {row['alone_p95_ms']} ms)",
            flush=True,
        )
        with file.open("a") as out:
            out.write(json.dumps(row | machine | {"ratio": ratio}) + "\n")
    write_table(file)


if __name__ == "__main__":
    main()
