"""Reads the keywords of a Stable-Baselines3 policy, and rejects those that are not played here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from actors.teachers.sb3.archive import Archive
from actors.teachers.sb3.kinds import READ, PolicyKind
from actors.teachers.specialist import ACTIVATIONS

CLIP_MEAN = 2.0
"""Stable-Baselines3's default bound of the mean under state-dependent exploration."""


def require_known_keywords(
    archive: Archive, kind: PolicyKind, kwargs: Mapping[str, Any], has_sde: bool
) -> None:
    """Raises ValueError if a keyword of the policy changes its computation in a way that is not
    played here."""
    problem = None
    extractor = str(kwargs.get("features_extractor_class") or "FlattenExtractor'>")
    unknown = sorted(set(kwargs) - kind.keywords)
    if unknown:
        problem = f"{unknown[0]}={_short(kwargs[unknown[0]])}, which is unknown here"
    elif extractor not in (
        "FlattenExtractor'>",
        "<class 'stable_baselines3.common.torch_layers.FlattenExtractor'>",
    ):
        problem = (
            f"features_extractor_class={_short(extractor)}, whose code may do anything with the"
            " observation"
        )
    elif kwargs.get("features_extractor_kwargs") not in (None, {}, "{}"):
        problem = f"features_extractor_kwargs={_short(kwargs['features_extractor_kwargs'])}"
    elif kwargs.get("sde_net_arch") is not None:
        problem = f"sde_net_arch={_short(kwargs['sde_net_arch'])}"
    elif kwargs.get("squash_output") and "log_std_init" in kind.keywords and not has_sde:
        problem = "squash_output without use_sde, which Stable-Baselines3 refuses"
    elif not isinstance(kwargs.get("clip_mean", CLIP_MEAN), (int, float)):
        problem = f"clip_mean={_short(kwargs['clip_mean'])}"
    elif not all(
        isinstance(kwargs.get(name, False), bool)
        for name in ("squash_output", "use_sde", "with_bias")
    ):
        problem = "squash_output, use_sde or with_bias that is neither true nor false"
    if problem:
        raise ValueError(
            f"{archive.path} was made with policy_kwargs {problem}; it is a policy of another kind:"
            f" {READ}"
        )


def check_hidden(
    archive: Archive,
    kind: PolicyKind,
    kwargs: Mapping[str, Any],
    hidden: list[int],
    notes: list[str],
) -> None:
    """Compare the sizes of the hidden layers with `net_arch`: without a layer the others may still
    fit each other. Raises ValueError if they differ; adds a note if `net_arch` is unknown."""
    said = kwargs.get("net_arch")
    if said is None:
        linear = "ARSLinearPolicy" in str(archive.readable("policy_class").get("__init__"))
        default = [] if linear else list(kind.hidden)
        if hidden != default:
            notes.append(
                f"noted: {archive.path} has hidden layers of {hidden}, its kind's default is"
                f" {default}, and it names no net_arch"
            )
        return
    sizes = _sizes(said)
    if sizes is None:
        notes.append(
            f"noted: net_arch={_short(said)} of {archive.path} cannot be read; its layers are"
            f" {hidden}"
        )
    elif sizes != hidden:
        raise ValueError(
            f"{archive.path} is damaged: it has hidden layers of {hidden}, and says"
            f" net_arch={_short(said)}; save the policy again"
        )


def _sizes(said: Any) -> list[int] | None:
    """Sizes of the actor's hidden layers, of `[64, 64]`, `{"pi": [64], "vf": [8]}` and the older
    `[64, {"pi": [64]}]`."""
    if isinstance(said, dict):
        said = said.get("pi", [])
    sizes: list[int] = []
    for each in said if isinstance(said, list) else (None,):
        if type(each) is int:
            sizes.append(each)
        elif isinstance(each, dict) and all(type(size) is int for size in each.get("pi") or []):
            sizes += each.get("pi") or []
        else:
            return None
    return sizes


def activation_of(
    archive: Archive, kwargs: Mapping[str, Any], asked: str | None, default: str, notes: list[str]
) -> str:
    """The activation that the user names, else that of the file, else Stable-Baselines3's
    default."""
    stated = str(kwargs.get("activation_fn", ""))
    said = re.fullmatch(r"<class 'torch\.nn\.modules\.activation\.(\w+)'>", stated)
    own = said[1].lower() if said else stated or default
    name = (asked or own).lower()
    if name not in ACTIVATIONS:
        raise ValueError(
            f"{archive.path} has activation {_short(name)}, known here are {', '.join(ACTIVATIONS)}"
        )
    if name != own:
        notes.append(f"allowed: activation={name} is played, {archive.path} says {_short(own)}")
    return name


def squashes(archive: Archive, name: str, kwargs: Mapping[str, Any]) -> bool:
    if name == "ARS":
        linear = "ARSLinearPolicy" in str(archive.readable("policy_class").get("__init__"))
        return bool(kwargs.get("squash_output", not linear))
    return name in ("SAC", "TD3") or (
        name == "actor-critic" and bool(kwargs.get("squash_output", False))
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
