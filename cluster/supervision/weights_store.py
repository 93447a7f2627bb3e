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
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

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


LOG = logging.getLogger(__name__)
ABOUT = "gato"
"""Name of the version and the learner's step in the metadata of the copy on disk."""


def copied_version(file: Path) -> tuple[Version, int]:
    """Version and learner's step of a copy on disk. ValueError, KeyError, TypeError or
    SafetensorError if it is damaged."""
    with safe_open(file, "np") as opened:
        saved = json.loads((opened.metadata() or {})[ABOUT])
    epoch, number = saved["version"]
    return Version(int(epoch), int(number)), int(saved["learner_step"])


class WeightsStore:
    """Publications ordered by (epoch, number). The object in Ray's store is this actor's, so it
    outlives the learner."""

    def __init__(self, folder: Path) -> None:
        if ray.is_initialized():
            name_log(ray.get_runtime_context())
        self._file = folder / "latest.safetensors"
        self._held: Held | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._hold_copy()

    def _hold_copy(self) -> None:
        """Begin with the copy on disk, if it is whole. A damaged one is no loss: the learner
        publishes at its start."""
        if not self._file.is_file():
            return
        try:
            version, learner_step = copied_version(self._file)
            self._hold(version, learner_step, load_file(self._file))
        except (ValueError, KeyError, TypeError, SafetensorError) as problem:
            LOG.warning("the copy of the weights is not used: %s", problem)

    def _hold(self, version: Version, learner_step: int, arrays: Arrays) -> None:
        # `put` copies: what came belongs to the learner's process and would die with it.
        self._held = Held(
            version=version, learner_step=learner_step, reference=ray.put(dict(arrays))
        )

    @ray.method(concurrency_group="write")
    def publish(self, version: Version, learner_step: int, arrays: Arrays) -> bool:
        """Take a version; workers get it at once, and the call returns when it is on the disk, or
        the disk is full. False where its epoch is over: a later learner of this run has published.

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
        # In the file itself: a copy never has the version of another.
        about = {ABOUT: json.dumps({"version": version, "learner_step": learner_step})}
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        draft = self._file.with_suffix(".draft")
        try:
            draft.write_bytes(save(contiguous, metadata=about))
            os.replace(draft, self._file)
        except OSError as problem:  # the one in memory is what is played
            LOG.warning("weights %s are not on the disk, the copy is older: %s", version, problem)
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
