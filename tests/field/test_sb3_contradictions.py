"""A valid zip with one contradiction is rejected, or loaded with a note that names it: never
silently."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.teachers.sb3.policy import load_sb3
from actors.teachers.specialist import Specialist
from tests.field.sb3_files import SAVED, changed, task_of

PATHS = {
    "ppo_relu": ["mlp_extractor.policy_net.0", "action_net"],
    "sac": ["actor.latent_pi.0", "actor.latent_pi.2", "actor.mu"],
    "tqc": ["actor.latent_pi.0", "actor.latent_pi.2", "actor.mu.0"],
    "td3": ["actor.mu.0", "actor.mu.2", "actor.mu.4"],
    "dqn": ["q_net.q_net.0", "q_net.q_net.2", "q_net.q_net.4"],
    "ars": ["action_net.0", "action_net.2"],
}
"""Layers from the observation to the action, by the file."""
CONTINUOUS = ("ppo_relu", "sac", "tqc", "td3", "ars")
EXTRA_TENSORS = (
    "features_extractor.linear.weight", "actor.features_extractor.0.weight",
    "pi_features_extractor.cnn.0.bias",
    "actor.latent_pi.1.weight", "actor.mu.1.running_mean", "mlp_extractor.policy_net.1.weight",
    "q_net.q_net.1.bias",
    "action_net.1.weight", "lstm_actor.weight_ih_l0", "actor.mu.scale", "obs_rms.mean",
    "quantile_net.0.weight",
    "critic.features_extractor.weight", "log_std_head.weight", "x",
)  # fmt: skip
KEYWORDS = {
    "features_extractor_class": "<class '__main__.Scaled'>",
    "features_extractor_kwargs": {"features_dim": 4},
    "activation_fn": "<class '__main__.Tanh'>", "net_arch": [8, 7, 6], "batch_norm": True,
    "clip_mean": "2",
    "squash_output": "yes",
    "post_linear_modules": "[<class 'torch.nn.modules.normalization.LayerNorm'>]",
    "lstm_hidden_size": 8, "scale": 2.0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """One change of a file, and a word of it that a note must have where the file is loaded."""

    name: str
    data: Callable[[dict[str, Any]], None] | None = None
    state: Callable[[dict[str, torch.Tensor]], None] | None = None
    after: Callable[[Path], None] | None = None
    options: str = "vecnormalize=none"
    word: str = "(it must be refused)"


def loaded(case: Contradiction) -> Specialist | None:
    """None: it was refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = changed(case.name, Path(folder) / "policy.zip", data=case.data, state=case.state)
        if case.after is not None:
            case.after(path)
        try:
            return load_sb3(f"{path}?{case.options.format(folder=folder)}", task_of(case.name))
        except ValueError as problem:
            if folder not in str(problem) or "\n" in str(problem):
                raise  # it must name the file, in one line
            return None


@st.composite
def tensors(draw: st.DrawFn) -> Contradiction:
    """A tensor too many, gone, renamed, cut, turned, of another type, or not finite."""
    name = draw(st.sampled_from(sorted(PATHS)))
    layer = draw(st.sampled_from(PATHS[name]))
    part = draw(st.sampled_from(["weight", "bias"]))
    kind = draw(
        st.sampled_from(
            ["extra", "gone", "renamed", "cut", "turned", "type", "nan", "flat", "layer gone"]
        )
    )
    extra = draw(st.sampled_from(EXTRA_TENSORS))
    if kind == "gone" and name == "ars":
        part = "weight"  # it may be made without biases
    place = f"{layer}.{part}"

    def change(state: dict[str, torch.Tensor]) -> None:
        tensor = state[place]
        match kind:
            case "extra":
                state[extra if extra not in state else "x"] = torch.ones(1)
            case "gone":
                del state[place]
            case "layer gone":
                for each in ("weight", "bias"):
                    del state[f"{layer}.{each}"]
            case "renamed":
                state[f"old_{place}"] = state.pop(place)
            case "cut":
                # More than the last row, since a network may take or give fewer numbers.
                state[place] = torch.cat([tensor, tensor])
            case "turned":
                state[place] = tensor[None].repeat(2, *[1] * tensor.ndim)
            case "type":
                state[place] = tensor.to(torch.int32)
            case "flat":
                state[place] = tensor.reshape(-1, 1, 1)
            case _:
                state[place] = torch.full_like(tensor, torch.inf)

    return Contradiction(name=name, state=change)


@st.composite
def keywords(draw: st.DrawFn) -> Contradiction:
    """A keyword of the policy that changes its computation, or is unknown."""
    name, key = draw(st.sampled_from(sorted(PATHS))), draw(st.sampled_from(sorted(KEYWORDS)))

    def change(data: dict[str, Any]) -> None:
        data["policy_kwargs"] = {**(data["policy_kwargs"] or {}), key: KEYWORDS[key]}

    return Contradiction(name=name, data=change)


@st.composite
def classes(draw: st.DrawFn) -> Contradiction:
    """A policy's class of another module, or of none."""
    name = draw(st.sampled_from(sorted(PATHS)))
    module = draw(
        st.sampled_from(["__main__", "my.policies", "sb3_contrib.common.maskable.policies", None])
    )
    own = module in ("__main__", "my.policies", None) and draw(st.booleans())

    def change(data: dict[str, Any]) -> None:
        data["policy_class"] = {**data["policy_class"], "__module__": module}
        if module is None:
            del data["policy_class"]["__module__"]

    options = "vecnormalize=none" + ("&allow=policy-class" if own else "")
    return Contradiction(name=name, data=change, options=options, word="class")


@st.composite
def spaces(draw: st.DrawFn) -> Contradiction:
    """A space of another size, type, shape, kind or range, or one that cannot be read."""
    entry = draw(st.sampled_from(["observation_space", "action_space"]))
    name = draw(st.sampled_from(CONTINUOUS if entry == "action_space" else sorted(PATHS)))
    size = 4 if entry == "observation_space" else 1
    low, width = (
        draw(st.floats(-90, 90)),
        draw(st.floats(0.01, 50).filter(lambda w: abs(w - 6.0) > 0.01)),
    )  # 6: the task's
    kind = draw(
        st.sampled_from(
            ["bounds", "size", "dtype", "image", "kind", "unreadable", "gone", "rows", "above"]
        )
    )
    other = draw(st.sampled_from(["Dict", "MultiDiscrete", "Discrete", "MultiBinary", "Tuple"]))

    def change(data: dict[str, Any]) -> None:
        space = data[entry]
        match kind:
            case "bounds" | "above":
                ends = (low, low + width) if kind == "bounds" else (low + width, low)
                for end, value in zip(("low", "high"), ends, strict=True):
                    space |= {end: str(np.full(size, value)), f"{end}_repr": str(np.float64(value))}
            case "size":
                space |= {
                    "_shape": [size + 1],
                    "low": str(np.zeros(size + 1)),
                    "high": str(np.ones(size + 1)),
                }
            case "dtype":
                space["dtype"] = "int64"
            case "image":
                space |= {
                    "_shape": [size, 1, 1],
                    "dtype": "uint8",
                    "low_repr": "0",
                    "high_repr": "255",
                }
            case "kind":
                space[":type:"] = f"<class 'gymnasium.spaces.other.{other}'>"
            case "unreadable":
                space |= {"low": "[a b]", "low_repr": "[a b]"}
            case "gone":
                del data[entry]
            case _:
                space["_shape"] = "(4,)"

    return Contradiction(name=name, data=change, word=entry.removesuffix("_space"))


@st.composite
def choices(draw: st.DrawFn) -> Contradiction:
    """Another number of choices, or another first one."""
    name = draw(st.sampled_from(["dqn", "ars_discrete"]))
    key, value = draw(
        st.sampled_from([("n", "3"), ("n", 1), ("start", "1"), ("start", -1), ("n", "two")])
    )

    def change(data: dict[str, Any]) -> None:
        data["action_space"] |= {key: value}

    return Contradiction(name=name, data=change, word="number of actions")


@st.composite
def files(draw: st.DrawFn) -> Contradiction:
    """A zip that is cut, or statistics that are not this policy's."""
    name = draw(st.sampled_from(sorted(PATHS)))
    kind = draw(st.sampled_from(["cut", "size", "clip", "nan", "narrow"]))
    share, size = draw(st.floats(0.0, 0.99)), draw(st.integers(1, 9).filter(lambda n: n != 4))

    def change(path: Path) -> None:
        if kind == "cut":
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * share)])
            return
        mean = np.full(size if kind == "size" else 4, np.nan if kind == "nan" else 0.0)
        var = np.ones_like(mean) * (0.0 if kind == "narrow" else 1.0)
        np.savez(
            path.with_name("v.npz"),
            mean=mean,
            var=var,
            epsilon=0.0,
            clip=-1.0 if kind == "clip" else 10.0,
        )

    options = "vecnormalize=none" if kind == "cut" else "vecnormalize={folder}/v.npz"
    return Contradiction(name=name, after=change, options=options)


@settings(max_examples=150, deadline=None)
@given(st.one_of(tensors(), keywords(), classes(), spaces(), choices(), files()))
def test_one_contradiction_is_refused_or_named(case: Contradiction) -> None:
    played = loaded(case)
    assert played is None or any(case.word in note for note in played.notes), (
        case,
        played and played.notes,
    )


def test_without_a_contradiction_each_is_loaded() -> None:
    for name in (*PATHS, "ars_discrete"):
        held = load_sb3(f"{SAVED / name}.zip?vecnormalize=none", task_of(name))
        assert all(
            "does not say in which environment" in note or "vecnormalize=none" in note
            for note in held.notes
        )
