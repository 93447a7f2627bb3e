"""The runs that a page can show: those of one folder, each followed while somebody looks at it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, final

from cluster.runs.folder import RunFolder, find_run, list_runs
from cluster.web.follower import Follower

UNUSED_S = 120.0
MAX_FOLLOWED = 16


@final
class Runs:
    """Followers by run. The first is followed as long as the page lives."""

    def __init__(self, folder: RunFolder) -> None:
        self.first = folder
        self._root: Path = folder.root
        self._lock = threading.Lock()
        self._followers: dict[str, Follower] = {}
        self.follow(folder.name)

    def follow(self, name: str) -> Follower:
        """The follower of a run of this folder.

        Raises:
            ValueError: There is none of that name, or too many are followed.
        """
        with self._lock:
            follower = self._followers.get(name)
            if follower is None:
                if len(self._followers) >= MAX_FOLLOWED:
                    raise ValueError(
                        f"{MAX_FOLLOWED} runs are shown already, the most of one page; close a tab,"
                        " and try again in two minutes"
                    )
                follower = self._followers[name] = Follower(find_run(name, self._root))
                follower.start()
            follower.used_s = time.monotonic()
            return follower

    def followed(self) -> list[Follower]:
        """The followers that there are now, that of the first run first."""
        with self._lock:
            return list(self._followers.values())

    def end_unused(self) -> None:
        """Let go of runs that nobody has looked at for a while."""
        with self._lock:
            unused = [
                name
                for name, follower in self._followers.items()
                if name != self.first.name and time.monotonic() - follower.used_s > UNUSED_S
            ]
            ended = [self._followers.pop(name) for name in unused]
        for follower in ended:
            follower.close()

    def hurry(self) -> None:
        """Have everybody told at once how the runs stand."""
        with self._lock:
            for follower in self._followers.values():
                follower.hurry()

    def close(self) -> None:
        with self._lock:
            followers, self._followers = list(self._followers.values()), {}
        for follower in followers:
            follower.close()

    def listed(self) -> list[dict[str, Any]]:
        """All runs of the folder, the newest first."""
        return [
            {"name": info.name, "state": info.state, "created_s": info.created_s}
            for info in list_runs(self._root)
        ]
