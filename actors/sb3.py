"""Policies of Stable-Baselines3: its zips as the small networks that we play, with no pickle in them ever trusted.

A zip holds `policy.pth`, tensors alone, which PyTorch reads without running anything; and `data`, JSON in which what is not
JSON is a pickle in base64 with its readable parts beside it: those are read, the pickles are left alone. The statistics of
VecNormalize come as a pickle, which is read as data (`actors.inert_pickle`).
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from jaxtyping import Float

from actors.inert_pickle import numbers_of, read_inert
from actors.specialist_policy import ACTIVATIONS, Specialist
from gato.task import Kind, Task

ACTOR_CRITIC = ("mlp_extractor.shared_net", "mlp_extractor.policy_net", "action_net")
SQUASHED = ("actor.latent_pi", "actor.mu")
Q_NETWORK = ("q_net.q_net",)
"""The layers of PPO's and A2C's policy, of SAC's, TQC's, TD3's and DDPG's actor, and of DQN, in their order."""
NOISE = 0.1
"""Where a policy has no standard deviation of its own: TD3's exploration noise, of half the range of an action."""
CLIP_MEAN = 2.0
"""Stable-Baselines3's default bound of the mean under state-dependent exploration."""
CONVERT = (
    "python -c \"import pickle, numpy as np; v = pickle.load(open('vecnormalize.pkl', 'rb')); np.savez('vecnormalize.npz', "
    'mean=v.obs_rms.mean, var=v.obs_rms.var, epsilon=v.epsilon, clip=v.clip_obs)"'
)
"""Run where the file came from and Stable-Baselines3 is installed."""
DAMAGED = (
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, OSError, EOFError, AttributeError, LookupError, TypeError,
    ValueError, ArithmeticError, MemoryError, RecursionError,
)  # fmt: skip
"""What reading statistics raises where a file is not as it should be: any of these, says the documentation of pickle."""


def _statistics(path: Path) -> tuple[Float[np.ndarray, " obs"], Float[np.ndarray, " obs"], float]:
    """Mean, standard deviation and clip of observations, of VecNormalize's pickle or of an .npz made from it."""
    if not path.is_file():
        raise ValueError(f"no statistics in {path}; give VecNormalize's file, or convert it: {CONVERT}")
    try:
        if path.suffix == ".npz":
            with np.load(path) as held:
                mean, var, epsilon, clip = (numbers_of(held[name]) for name in ("mean", "var", "epsilon", "clip"))
        else:
            with path.open("rb") as file:
                held = read_inert(file)
            rms = held.obs_rms
            mean, var, epsilon, clip = map(numbers_of, (rms.mean, rms.var, held.epsilon, held.clip_obs))
            if not held.norm_obs:
                mean, var, epsilon, clip = np.zeros_like(mean), np.ones_like(var), np.zeros(()), np.array(np.inf)
        if mean.shape != var.shape or not (np.isfinite(mean).all() and (var + epsilon >= 0).all()):
            raise ValueError(f"mean of shape {mean.shape} and variance of shape {var.shape} are no statistics")
        return mean.astype(np.float32), np.sqrt(var + epsilon).astype(np.float32), float(clip)
    except DAMAGED as problem:
        raise ValueError(
            f"{path} is not read: {problem}. It may run programs; where you trust it, convert it in its own environment and "
            f"give the .npz: {CONVERT}"
        ) from problem


def _read_zip(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What is readable of its `data`, and the tensors of its policy."""
    import torch

    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no zip, or is not there; give a file that Stable-Baselines3's `save` wrote")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith((".pkl", ".pickle"))]
        if pickles:
            raise ValueError(
                f"{path} holds a pickle, {pickles[0]}, which may run programs; Stable-Baselines3 writes none"
            )
        if not {"data", "policy.pth"} <= set(names):
            raise ValueError(
                f"{path} is not of Stable-Baselines3, version 1 or 2: it has {', '.join(names)}, no policy.pth"
            )
        try:
            data, weights = json.loads(archive.read("data")), archive.read("policy.pth")
        except DAMAGED as problem:
            raise ValueError(f"{path} is damaged: {problem}; copy it again, or save the policy again") from problem
    if not (
        isinstance(data, dict) and all(isinstance(data.get(n) or {}, dict) for n in ("policy_kwargs", "policy_class"))
    ):
        raise ValueError(f"data of {path} are not what Stable-Baselines3 writes; save the policy again with its `save`")
    try:
        state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
        return data, {name: np.asarray(tensor.numpy(), np.float32) for name, tensor in state.items()}
    except (pickle.UnpicklingError, RuntimeError, AttributeError, EOFError, TypeError) as problem:
        raise ValueError(
            f"policy.pth of {path} holds more than tensors, or is damaged: a pickle in it may run programs, and is not read. "
            "Save the policy again with Stable-Baselines3's `save`"
        ) from problem


def _layers(state: dict[str, np.ndarray], path: Path) -> tuple[list[str], bool]:
    """Names of the layers from the observation to the action, and whether a tanh carries their result to the bounds."""
    for kind in (ACTOR_CRITIC, SQUASHED, Q_NETWORK):
        parts = "|".join(re.escape(part) for part in kind)
        found = [m for m in (re.fullmatch(rf"({parts})(?:\.(\d+))?\.weight", name) for name in state) if m]
        if found and not any("extractor.cnn" in name or "lstm" in name for name in state):
            ordered = sorted(found, key=lambda m: (kind.index(m[1]), int(m[2] or 0)))
            return [m[0].removesuffix(".weight") for m in ordered], kind == SQUASHED
    raise ValueError(
        f"{path} is a policy of another kind than is read here: MlpPolicy of PPO, A2C, TRPO, SAC, TQC, TD3, DDPG and DQN is, "
        "CnnPolicy, recurrent and quantile networks are not; play it yourself with python:PACKAGE.MODULE:FUNCTION"
    )


def _require_network(path: Path, state: dict[str, np.ndarray], layers: list[str]) -> None:
    """ValueError where layers are missing, do not fit onto each other or hold what is no number."""
    given: int | None = None
    for layer in layers:
        weight, bias = state[f"{layer}.weight"], state.get(f"{layer}.bias", np.zeros(0))
        fits = weight.ndim == 2 and bias.shape == weight.shape[:1] and given in (None, weight.shape[1])
        if not (fits and np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError(
                f"{path} is damaged: {layer} has weights {weight.shape} and bias {bias.shape} for {given or 'what is shown'}, "
                "or numbers that are not finite; save the policy again"
            )
        given = weight.shape[0]


def _activation(kwargs: dict[str, Any], asked: str | None, kind: str, path: Path) -> str:
    """What was asked for, else what the file says, else Stable-Baselines3's default."""
    said = re.search(r"(\w+)'>$", str(kwargs.get("activation_fn", "")))
    name = (asked or (said[1] if said else kind)).lower()
    if name not in ACTIVATIONS:
        raise ValueError(f"{path} has activation {name}, known here are {', '.join(ACTIVATIONS)}")
    return name


def _require_fit(path: Path, task: Task, shown: int, taken: int) -> None:
    """ValueError where the task shows or takes something else than the policy was trained with."""
    spec, action = next(iter(task.observations.values())), task.action
    if (
        spec.kind is not Kind.CONTINUOUS
        or len(task.observations) != 1
        or (action.kind is Kind.DISCRETE and action.shape)
    ):
        raise ValueError(
            f"task {task.name} shows {', '.join(task.observations)} and takes {action.kind} actions of shape {action.shape}; a "
            "policy of Stable-Baselines3 is read for one array of numbers and for continuous actions or a single choice"
        )
    wanted = int(action.counts[0]) if action.kind is Kind.DISCRETE else action.size
    if (shown, taken) != (spec.size, wanted):
        raise ValueError(
            f"{path} sees {shown} numbers and gives {taken}, task {task.name} shows {spec.size} and takes {wanted}; it was "
            "trained in another environment, or in another version of it"
        )


def load_sb3(where: str, task: Task) -> Specialist:
    """The policy of `FILE.zip[?vecnormalize=FILE&activation=relu]`. ValueError where it is not safe, or not for this task."""
    name, _, query = where.partition("?")
    path, options = Path(name).expanduser(), dict(parse_qsl(query))
    unknown = set(options) - {"vecnormalize", "activation"}
    if unknown:
        raise ValueError(
            f"unknown option {unknown.pop()!r} of sb3:{where}; there are vecnormalize=FILE and activation=NAME"
        )
    data, state = _read_zip(path)
    layers, squash = _layers(state, path)
    _require_network(path, state, layers)
    # Algorithms with a replay buffer keep this in any case: only of the others it tells something.
    if layers[-1] == "action_net" and data.get("_last_original_obs") and "vecnormalize" not in options:
        raise ValueError(
            f"{path} was trained behind VecNormalize; say where its statistics are: sb3:{name}?vecnormalize=FILE"
        )
    arrays = {
        f"layer{i}.{part}": state[f"{layer}.{part}"] for i, layer in enumerate(layers) for part in ("weight", "bias")
    }
    shown, taken = arrays["layer0.weight"].shape[1], len(state[f"{layers[-1]}.bias"])
    _require_fit(path, task, shown, taken)
    mean, std, clip = np.zeros(shown, np.float32), np.ones(shown, np.float32), np.inf
    if "vecnormalize" in options:
        mean, std, clip = _statistics(Path(options["vecnormalize"]).expanduser())
        if mean.shape != (shown,):
            raise ValueError(
                f"{options['vecnormalize']} has statistics of shape {mean.shape}, {path} sees {shown} numbers"
            )
    low, high = task.action.bounds or (np.array(-1.0), np.array(1.0))
    kwargs = data.get("policy_kwargs") or {}
    log_std = state.get("log_std", np.zeros(0))
    about = {
        "task": task.name,
        "env_id": task.env_id,
        "algorithm": f"Stable-Baselines3 {(data.get('policy_class') or {}).get('__module__', '')}".strip(),
        "env_steps": data.get("num_timesteps"),
        "file": str(path),
        "activation": _activation(kwargs, options.get("activation"), "tanh" if layers[-1] == "action_net" else "relu", path),
        "squash": squash or bool(kwargs.get("squash_output")),
        "output_clip": kwargs.get("clip_mean", CLIP_MEAN) if layers[-1] == "actor.mu.0" and len(layers) > 1 else np.inf,
        "observation_clip": clip,
        "action_low": low,
        "action_high": high,
    }  # fmt: skip
    # Under state-dependent exploration `log_std` is a matrix, which gives no standard deviation by itself.
    noise = log_std if log_std.shape == (taken,) else np.broadcast_to(np.log(NOISE * (high - low) / 2), (taken,))
    return Specialist(arrays | {"obs_mean": mean, "obs_std": std, "log_std": np.asarray(noise, np.float32)}, about)
