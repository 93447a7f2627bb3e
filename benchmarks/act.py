"""Speed of acting with a full context of 1,024 tokens, on one thread: `python -m benchmarks.act`.

Against re-encoding the context for each action token (the same model, the same tokens, the same
choice), and in 8 bits against float32. The model has random weights: what it chooses takes as long
whatever they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Shaped

from actors.tasks.catalog import TASKS
from benchmarks.machine import ROOT, about
from benchmarks.timing import median_s
from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.acting.state import ActingState
from gato.config import PRESETS
from gato.network.model import Gato
from gato.network.quantise import KINDS
from gato.scaling import bin_centres
from gato.threads import use_threads
from gato.weights import acting_config

HOPPER = TASKS["mujoco/hopper"]
ROWS_AT_ONCE = 16
"""Contexts that are encoded again together: more at once are no faster, and their scores take
gigabytes."""
AGAINST_ENCODING = (("small", 1), ("small", 16), ("small", 64), ("79m", 1))
AGAINST_FLOAT32 = (("small", 16), ("79m", 1), ("79m", 16))


def acting_model(preset: str) -> Gato:
    torch.manual_seed(0)
    config = replace(acting_config(PRESETS[preset]), context_tokens=1024)
    return Gato(config).eval().requires_grad_(False)


def seen(num_envs: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"state": rng.normal(size=(num_envs, 11)).astype(np.float32)}


@torch.inference_mode()
def encode_again(
    policy: Policy, shown: Float[np.ndarray, "T N 11"], done: Shaped[np.ndarray, "T N 3"]
) -> Float[np.ndarray, " N"]:
    """The last step's first action as the mean over its bins, by encoding the context once for each
    action token."""
    model, steps = policy.model, policy.steps
    layout = model.config.layout
    T, num_envs, num_actions = done.shape
    ids = np.stack(
        [steps.step_ids({"state": shown[:, n]}, done[:, n]).reshape(-1) for n in range(num_envs)]
    )
    place = np.tile(steps.place_S, T)
    first: list[torch.Tensor] = []
    for begin in range(0, num_envs, ROWS_AT_ONCE):
        for unknown in range(num_actions, 0, -1):
            rows = torch.from_numpy(ids[begin : begin + ROWS_AT_ONCE, :-unknown]).long()
            places = torch.from_numpy(place[:-unknown]).long().expand_as(rows)
            none = torch.zeros(0, dtype=torch.int64)
            no_patches = torch.zeros(0, 16, 16, 3, dtype=torch.uint8)
            x = model.embedding(rows, places, no_patches, none, none.view(0, 4), none.view(0, 2))
            hidden = model.transformer(x, torch.ones_like(rows))[:, -1]
            p = model.logits(hidden, *layout.ids_of(HOPPER.action)).softmax(-1)
            if unknown == num_actions:
                first.append(p @ torch.from_numpy(bin_centres(layout.num_bins)))
    return torch.cat(first).numpy()


def against_encoding(preset: str, num_envs: int) -> dict[str, float | str]:
    """A step of N environments of Hopper whose context is full, and the same step without a
    cache."""
    policy = Policy(acting_model(preset), HOPPER, ActingConfig())
    state, rng = policy.start(num_envs), np.random.default_rng(0)
    shown: list[np.ndarray] = []
    done: list[np.ndarray] = []
    for _ in range(policy.window_steps):
        observations = seen(num_envs, rng)
        shown.append(observations["state"])
        done.append(policy.act(state, observations))
    ours_s = median_s(lambda: policy.act(state, seen(num_envs, rng)), repeats=7)
    again: list[np.ndarray] = []
    theirs_s = median_s(
        lambda: again.append(encode_again(policy, np.stack(shown), np.stack(done))), repeats=1
    )
    np.testing.assert_allclose(again[0], done[-1][:, 0], atol=1e-3)
    return {
        "path": f"act, {preset}, {num_envs} environments, 1,024 tokens",
        "against": "encoding the context for each action token",
        "ours_s": ours_s,
        "theirs_s": theirs_s,
        "steps_per_s": num_envs / ours_s,
    }


def against_float32(preset: str, num_envs: int) -> Iterator[dict[str, float | str]]:
    """The same step in each kind of 8 bits."""
    model, rng = acting_model(preset), np.random.default_rng(0)
    policies = [Policy(model, HOPPER, ActingConfig(int8=kind)) for kind in (None, *KINDS)]
    states = [policy.start(num_envs) for policy in policies]

    def once(policy: Policy, state: ActingState) -> float:
        return median_s(lambda: policy.act(state, seen(num_envs, rng)), repeats=1)

    # By turns, so that what else the machine does falls on all of them; the first round is not
    # counted.
    times = [[once(*pair) for pair in zip(policies, states, strict=True)] for _ in range(6)]
    float32_s, *int8_s = np.median(times[1:], axis=0).tolist()
    for kind, ours_s in zip(KINDS, int8_s, strict=True):
        yield {
            "path": f"act, {preset}, {num_envs} environments, int8 {kind}",
            "against": "the same in float32",
            "ours_s": ours_s,
            "theirs_s": float32_s,
            "steps_per_s": num_envs / ours_s,
        }


def measures() -> Iterator[dict[str, float | str]]:
    """All rows, one after another."""
    for preset, num_envs in AGAINST_ENCODING:
        yield against_encoding(preset, num_envs)
    for preset, num_envs in AGAINST_FLOAT32:
        yield from against_float32(preset, num_envs)


def main() -> None:
    """Measure and add the rows to benchmarks/rows.jsonl."""
    use_threads(1)
    machine = about()
    for measure in measures():
        ratio = round(float(measure["theirs_s"]) / float(measure["ours_s"]), 3)
        print(
            f"{measure['path']}: {ratio} x {measure['against']}"
            f" ({float(measure['steps_per_s']):.0f} steps/s)",
            flush=True,
        )
        with (ROOT / "benchmarks" / "rows.jsonl").open("a") as out:
            out.write(json.dumps(measure | machine | {"ratio": ratio}) + "\n")


if __name__ == "__main__":
    main()
