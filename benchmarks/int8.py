"""What acting in 8 bits costs in return: `python -m benchmarks.int8 RUN_OR_CHECKPOINT --episodes
20`.

Plays a trained checkpoint in float32 and in each kind of 8 bits, on the same seeds, without Ray.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from cluster.control.evaluation.evaluate import evaluate_checkpoint, locate
from cluster.runs.config import RunConfig
from gato.network.quantise import KINDS, Int8Kind
from gato.threads import use_threads


def with_int8(config: RunConfig, kind: Int8Kind | None) -> RunConfig:
    """The run, evaluated in this kind of 8 bits."""
    actors = config.actors
    evaluate_of = {task: replace(acting, int8=kind) for task, acting in actors.evaluate_of.items()}
    actors = replace(actors, evaluate=replace(actors.evaluate, int8=kind), evaluate_of=evaluate_of)
    return replace(config, actors=actors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", help="a run's name, or a checkpoint's folder inside a run")
    parser.add_argument("--episodes", type=int, default=20)
    asked = parser.parse_args()
    use_threads(1)
    found = locate(asked.what)
    checkpoint, config = found.path, found.config
    exact: dict[str, float] = {}
    print(
        "| task | acting | return, mean ± standard error | of float32 | env steps/s"
        " |\n|---|---|--:|--:|--:|"
    )
    for kind in (None, *KINDS):
        for result in evaluate_checkpoint(
            checkpoint, with_int8(config, kind), config.tasks, asked.episodes
        ):
            if result.failed:
                raise SystemExit(f"{result.task} failed: {result.failed}")
            returns = np.array(result.returns)
            mean, error = (
                returns.mean(),
                returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else 0.0,
            )
            share = mean / exact.setdefault(result.task, mean)
            print(
                f"| {result.task} | {f'int8 {kind}' if kind else 'float32'} | {mean:.1f} ±"
                f" {error:.1f} | {share:.3f} | {result.env_steps / result.wall_s:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
