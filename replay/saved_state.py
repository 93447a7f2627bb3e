"""Saved state: the limiter's counts, priorities and times sampled, kept with the store."""

from __future__ import annotations

import json
import time

from gato.version import Version
from replay.rate_limiter import Limiter, LimiterConfig
from replay.storage.store import EpisodeStore

SAVE_EVERY_S = 1.0
"""How often the count of read tokens is saved, unless a quarter of the slack was read earlier. A
crash forgets what was read since then, and it is read again."""
SAVE_SAMPLING_S = 30.0
"""How often priorities and times sampled are saved, if tables draw by them."""


class SavedState:
    """What a restarted replay needs besides its episodes.

    saved = SavedState(store, saves_sampling=True)
    limiter = saved.restore(config.limiter)
    if (state := saved.due(limiter)) is not None:
        saved.write(state)
    """

    def __init__(self, store: EpisodeStore, *, saves_sampling: bool) -> None:
        """`saves_sampling`: whether draws depend on priorities or times sampled."""
        self._store = store
        self._saves_sampling = saves_sampling
        self._saved_s = self._saved_sampling_s = 0.0
        self._saved_tokens = 0

    def restore(self, config: LimiterConfig) -> Limiter:
        """The limiter as it was last saved, and priorities and times sampled into the index. What
        was inserted since then is known from the store."""
        sampling = self._store.database.noted("sampling")
        if sampling is not None:
            state = json.loads(sampling)
            self._store.index.published(Version(0, int(state["newest_version"])))
            self._store.index.load(
                {key: (float(p), int(n)) for key, (p, n) in state["episodes"].items()}
            )
        saved = self._store.database.noted("limiter")
        if saved is None:
            limiter = Limiter(
                config,
                inserted_tokens=self._store.inserted_tokens,
                read_tokens=self._store.database.counter("read_tokens"),
            )
        else:
            limiter = Limiter.load(config, json.loads(saved))
            limiter.inserted(self._store.inserted_tokens - limiter.inserted_tokens)
        self._saved_tokens = limiter.read_tokens
        return limiter

    def due(self, limiter: Limiter) -> bytes | None:
        """The limiter's state, if it is time to save it. Called by one thread at a time."""
        now_s, config = time.monotonic(), limiter.config
        unsaved_tokens = limiter.read_tokens - self._saved_tokens
        is_coupled = config.reads_per_inserted_token is not None
        if now_s - self._saved_s < SAVE_EVERY_S and not (
            is_coupled and 4 * unsaved_tokens >= config.slack_tokens
        ):
            return None
        self._saved_s, self._saved_tokens = now_s, limiter.read_tokens
        return _state_of(limiter)

    def write(self, limiter_state: bytes) -> None:
        """Save what `due` returned, and sometimes the sampling state. It waits for the disk."""
        self._store.database.note("limiter", limiter_state)
        now_s = time.monotonic()
        if self._saves_sampling and now_s - self._saved_sampling_s >= SAVE_SAMPLING_S:
            self._saved_sampling_s = now_s
            self._write_sampling()

    def write_all(self, limiter: Limiter) -> None:
        """Save everything, as on closing."""
        self._store.database.note("limiter", _state_of(limiter))
        self._write_sampling()

    def _write_sampling(self) -> None:
        index = self._store.index
        state = {"newest_version": index.newest_version, "episodes": index.state()}
        self._store.database.note("sampling", json.dumps(state).encode())


def _state_of(limiter: Limiter) -> bytes:
    return json.dumps(limiter.state()).encode()
