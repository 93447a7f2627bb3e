"""How far replay's readers and writers may run apart, steered while a run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from ray.exceptions import GetTimeoutError, RayError

from cluster.runs.config import RunConfig
from cluster.supervision.ray_errors import reason_of
from replay.config import ReplayConfig
from replay.remote import Shards

Change = Callable[[RunConfig], RunConfig]


class ReplayPace:
    """The rate limiter of a run's replay, and the control words for it."""

    def __init__(
        self,
        replay: Shards,
        config: ReplayConfig,
        say: Callable[[str, str], None],
        keep: Callable[[Change], object],
    ) -> None:
        """`say`: an event for the journal; `keep`: changes the settings that the run is resumed
        with."""
        self._replay = replay
        self._config = config
        self._say = say
        self._keep = keep

    def obey(self, word: str, value: str) -> None:
        """Hold readers and writers back by other settings, or for a while not at all."""
        try:
            if word == "replay-pause":
                self._replay.pause()
                self._say("replay paused", "the rate limiter is off until gato replay resume")
            elif word == "replay-resume":
                self._replay.resume()
                self._say("replay resumed", "its limiter holds back again")
            elif word == "replay-limit":
                changes = json.loads(value)
                limiter = replace(self._config.limiter, **changes)
                self._config = replace(self._config, limiter=limiter)
                self._replay.reconfigure(self._config)
                self._keep(
                    lambda config: replace(config, replay=replace(config.replay, limiter=limiter))
                )
                self._say("replay limited", ", ".join(f"{k} {v}" for k, v in changes.items()))
        except (RayError, GetTimeoutError, ValueError, TypeError) as problem:
            self._say("problem", f"{word} was not obeyed: {reason_of(problem)}; try it again")

    def again(self) -> None:
        """A part of replay that was started again has the settings that it was launched with, which
        may have changed before the run began or since."""
        try:
            self._replay.reconfigure(self._config)
        except (RayError, GetTimeoutError) as problem:
            self._say(
                "problem",
                f"replay has its first limiter again: {reason_of(problem)}; gato replay limit"
                " sets it again",
            )
