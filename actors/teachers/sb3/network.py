"""The layers of a Stable-Baselines3 policy, from the observation to the action.

Every tensor and keyword must be on a list: one that is not is rejected by name, since it may change
the actions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from actors.teachers.sb3.archive import Archive
from actors.teachers.sb3.kinds import KINDS, READ, PolicyKind
from actors.teachers.sb3.policy_kwargs import (
    CLIP_MEAN,
    activation_of,
    check_hidden,
    require_known_keywords,
    squashes,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The network of a policy's greedy actions."""

    kind: str
    arrays: Mapping[str, Float[np.ndarray, ...]]
    """`layer0.weight`, `layer0.bias`, ... from the observation to the action."""
    log_std: Float[np.ndarray, " act"] | None
    """Of its actions in training; None if it is not one number for each element of an action."""
    activation: str
    squash: bool
    """Whether a tanh scales the last layer to the bounds of actions."""
    output_clip: float
    is_on_policy: bool
    notes: tuple[str, ...]

    @property
    def shown(self) -> int:
        """Size of the observation."""
        return self.arrays["layer0.weight"].shape[1]

    @property
    def taken(self) -> int:
        """Size of the last layer."""
        return len(self.arrays[f"layer{len(self.arrays) // 2 - 1}.bias"])


def network_of(archive: Archive, *, activation: str | None, allowed: frozenset[str]) -> Network:
    """The network in a zip.

    Args:
        activation: The user's name of the activation, in place of the file's own.
        allowed: Differences that the user allows, of which `policy-class` is read here.

    Raises:
        ValueError: if anything in it may act differently here than in Stable-Baselines3.
    """
    notes: list[str] = []
    name = _kind_of(archive, allowed, notes)
    kind, kwargs = (
        KINDS[name],
        {k: v for k, v in archive.readable("policy_kwargs").items() if k != ":type:"},
    )
    if "policy_kwargs" not in archive.data:
        notes.append(f"noted: {archive.path} does not say its policy_kwargs; taken as the defaults")
    has_sde = bool(kwargs.get("use_sde", archive.data.get("use_sde", False)))
    require_known_keywords(archive, kind, kwargs, has_sde)
    path = tuple(
        "actor.mu.0"
        if part == "actor.mu" and has_sde and "actor.mu.0.weight" in archive.state
        else part
        for part in kind.path
    )
    layers = _layers(archive, kind, path)
    arrays = _require_network(archive, kind, layers)
    check_hidden(
        archive,
        kind,
        kwargs,
        [len(arrays[f"layer{i}.bias"]) for i in range(len(layers) - 1)],
        notes,
    )
    return Network(
        kind=name,
        arrays=arrays,
        log_std=_log_std(archive, layers[-1], has_sde=has_sde) if name == "actor-critic" else None,
        activation=activation_of(archive, kwargs, activation, kind.activation, notes),
        squash=squashes(archive, name, kwargs),
        output_clip=float(kwargs.get("clip_mean", CLIP_MEAN))
        if layers[-1] == "actor.mu.0" and name == "SAC"
        else np.inf,
        is_on_policy=name == "actor-critic",
        notes=tuple(notes),
    )


def _kind_of(archive: Archive, allowed: frozenset[str], notes: list[str]) -> str:
    module = str(archive.readable("policy_class").get("__module__", ""))
    for name, kind in KINDS.items():
        if module in kind.modules:
            return name
    if not module or not module.startswith(("stable_baselines3.", "sb3_contrib.")):
        said = (
            f"its policy's class is of {module}"
            if module
            else "it does not say of which class its policy is"
        )
        fits = [
            name
            for name, kind in KINDS.items()
            if all(_is_known(tensor, kind) for tensor in archive.state)
        ]
        if fits and "policy-class" in allowed:
            notes.append(f"allowed: {said}; taken as Stable-Baselines3's own, for {fits[0]}")
            return fits[0]
        if fits:
            raise ValueError(
                f"{archive.path} is not known to play as its tensors say: {said}, whose code may do"
                " anything with them; if you know that it changes nothing of Stable-Baselines3's"
                " own class, add ?allow=policy-class"
            )
    raise ValueError(
        f"{archive.path} is a policy of another kind than is read here ({module or 'unknown'}):"
        f" {READ}"
    )


def _is_known(tensor: str, kind: PolicyKind) -> bool:
    path = "|".join(re.escape(part).replace("N", r"\d+") for part in kind.path) + r"|actor\.mu\.0"
    return bool(re.fullmatch(rf"(?:{path})\.(?:weight|bias)|{kind.unused}", tensor))


def _layers(archive: Archive, kind: PolicyKind, path: tuple[str, ...]) -> list[str]:
    """Names of the layers from the observation to the action. Raises ValueError if a tensor is on
    no list."""
    ordered: list[str] = []
    for part in path:
        stem, is_many = part.removesuffix(".N"), part.endswith(".N")
        pattern = (
            rf"{re.escape(stem)}\.(\d+)\.weight" if is_many else rf"({re.escape(stem)})\.weight"
        )
        found = [
            match[1] for match in (re.fullmatch(pattern, name) for name in archive.state) if match
        ]
        if is_many:
            places = sorted(map(int, found))
            # Linear layers and activations alternate, so linear layers have even indices. Another
            # module between them may have no tensors, but shifts the indices.
            if places != list(range(0, 2 * len(places), 2)):
                raise ValueError(
                    f"{archive.path} has layers {places} in {stem}, where linear layers stand at 0,"
                    " 2, 4, ...: there is another module between them; it is a policy of another"
                    f" kind: {READ}"
                )
            ordered += [f"{stem}.{place}" for place in places]
        elif found:
            ordered.append(stem)
    used = {f"{layer}.{part}" for layer in ordered for part in ("weight", "bias")}
    unknown = sorted(
        name for name in archive.state if name not in used and not re.fullmatch(kind.unused, name)
    )
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise ValueError(
            f"{archive.path} is a policy of another kind than is read here: it has the tensor"
            f" {unknown[0]}{more}, which may be on the way from the observation to the action;"
            f" {READ}"
        )
    last = path[-1].removesuffix(".N")
    if not ordered or not ordered[-1].startswith(last):
        raise ValueError(
            f"{archive.path} is damaged: it has no layer {last}; save the policy again"
        )
    return ordered


def _require_network(
    archive: Archive, kind: PolicyKind, layers: list[str]
) -> dict[str, Float[np.ndarray, ...]]:
    """The layers' arrays. Raises ValueError if one is missing, does not fit the one before, or has
    values that are not finite."""
    arrays: dict[str, np.ndarray] = {}
    given: int | None = None
    for index, layer in enumerate(layers):
        weight = archive.state[f"{layer}.weight"]
        none = np.zeros(weight.shape[:1] if kind.may_lack_bias else 0, np.float32)
        bias = archive.state.get(f"{layer}.bias", none)
        fits = (
            weight.ndim == 2
            and bias.shape == weight.shape[:1]
            and given in (None, weight.shape[1])
            and weight.size
        )
        is_float = weight.dtype == bias.dtype == np.float32
        if not (fits and is_float and np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError(
                f"{archive.path} is damaged: {layer} has weights {weight.shape} and bias"
                f" {bias.shape} for {given or 'what is shown'}, or numbers that are not finite, or"
                " is not a linear layer; save the policy again"
            )
        arrays |= {f"layer{index}.weight": weight, f"layer{index}.bias": bias}
        given = weight.shape[0]
    return arrays


def _log_std(archive: Archive, last: str, *, has_sde: bool) -> Float[np.ndarray, " act"] | None:
    """The log of the standard deviation [act]; None if there is none, or it is the matrix of
    state-dependent exploration."""
    held, taken = archive.state.get("log_std"), len(archive.state[f"{last}.bias"])
    if held is None or (has_sde and held.ndim == 2):
        return None
    if held.shape != (taken,) or held.dtype != np.float32 or not np.isfinite(held).all():
        raise ValueError(
            f"{archive.path} is damaged: log_std has shape {held.shape} for {taken} actions, or"
            " numbers that are not finite; save the policy again"
        )
    return held
