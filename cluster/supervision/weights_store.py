"""The weights store: keeps the newest version for the workers, rejects older ones, and has a copy
on disk."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
from ray.actor import ActorClass, ActorProxy
from ray.exceptions import RayError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from gato.files import read_json
from gato.part_log import name_log
from gato.version import Version
from gato.weights import Arrays, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the store tells of a version: its arrays are behind a reference of the store's own."""

    version: Version
    learner_step: int
    reference: ray.ObjectRef[Arrays]


THREADS = {"write": 1, "read": 4}
"""Threads of each concurrency group: workers are answered while a publication is written to the
disk. A module that imports jaxtyping would lose them in tests, whose import hook wraps methods."""


class WeightsStore:
    """Publications ordered by (epoch, number). The object in Ray's store is this actor's, so it
    outlives the learner."""

    def __init__(self, folder: Path) -> None:
        if ray.is_initialized():
            name_log(ray.get_runtime_context())
        self._file = folder / "latest.safetensors"
        self._held: Held | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._hold_copy(self._file.with_suffix(".json"))

    def _hold_copy(self, about: Path) -> None:
        """Begin with the copy on disk, if it is whole. A damaged one is no loss: the learner
        publishes at its start."""
        if not (self._file.is_file() and about.is_file()):
            return
        try:
            saved = read_json(about, fix="")
            if saved["bytes"] == self._file.stat().st_size:
                epoch, number = saved["version"]
                self._hold(
                    Version(int(epoch), int(number)),
                    int(saved["learner_step"]),
                    load_file(self._file),
                )
        except (ValueError, KeyError, TypeError, SafetensorError) as problem:
            logging.getLogger(__name__).warning("the copy of the weights is not used: %s", problem)

    def _hold(self, version: Version, learner_step: int, arrays: Arrays) -> None:
        # `put` copies: what came belongs to the learner's process and would die with it.
        self._held = Held(
            version=version, learner_step=learner_step, reference=ray.put(dict(arrays))
        )

    @ray.method(concurrency_group="write")
    def publish(self, version: Version, learner_step: int, arrays: Arrays) -> bool:
        """Take a version; workers get it at once, and the call returns when it is on the disk.
        False where its epoch is over: a later learner of this run has published.

        A store that dies before that begins again with the version before, until this call is
        repeated; workers that have the newer one keep it."""
        version = Version(*version)
        if self._held is not None:
            if version.epoch < self._held.version.epoch:
                return False
            if version <= self._held.version:
                return True  # a second delivery
        self._hold(version, learner_step, arrays)
        self._write(version, learner_step, arrays)
        return True

    def _write(self, version: Version, learner_step: int, arrays: Arrays) -> None:
        data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        about = {"version": version, "learner_step": learner_step, "bytes": len(data)}
        draft = self._file.with_suffix(".draft")
        try:
            draft.write_bytes(data)
            os.replace(draft, self._file)
            draft.write_text(json.dumps(about))
            os.replace(draft, self._file.with_suffix(".json"))
        except (
            OSError
        ):  # no space: the copy on disk stays the older one, the one in memory is what is played
            draft.unlink(missing_ok=True)

    @ray.method(concurrency_group="read")
    def newer_than(self, version: Version | None) -> Held | None:
        """The newest version, where it is newer than `version`."""
        held = self._held  # once: a publication may replace it meanwhile
        if held is None or (version is not None and held.version <= Version(*version)):
            return None
        return held


# Ray's types know no concurrency groups in `ray.remote`.
RemoteWeightsStore = cast(
    "ActorClass[WeightsStore]", cast(Any, ray.remote)(concurrency_groups=THREADS)(WeightsStore)
)
PATIENCE_S = 60.0
"""How long a call waits for a store that is being started again before it gives up."""


class StoreSink:
    """The learner's side of the store."""

    def __init__(self, store: ActorProxy[WeightsStore]) -> None:
        self._store = store

    def publish(self, weights: Weights) -> bool:
        return ray.get(
            self._store.publish.remote(weights.version, weights.learner_step, weights.arrays),
            timeout=PATIENCE_S,
        )


class StoreSource:
    """A worker's side of the store: pulls what is newer than what it has."""

    def __init__(self, store: ActorProxy[WeightsStore]) -> None:
        self._store = store

    def newer_than(self, version: Version | None) -> Weights | None:
        """The newest weights, where newer; None also where the store is being started again: the
        next pull gets them."""
        try:
            held = ray.get(self._store.newer_than.remote(version), timeout=PATIENCE_S)
            if held is None:
                return None
            arrays = ray.get(held.reference, timeout=PATIENCE_S)
        except RayError:
            return None
        return Weights(
            version=Version(*held.version), learner_step=held.learner_step, arrays=arrays
        )
