"""SIGTERM to the learner's process: it saves, and then ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

STATUS = 128 + signal.SIGTERM
"""Exit status of a process that ended so."""


class Termination:
    """Handles SIGTERM from now on. To be made in the main thread.

    termination = Termination(stop)
    for report in learner.run():        # ends after the present update, saved
        ...
    termination.end_if_asked()
    """

    def __init__(self, stop: Callable[[], bool]) -> None:
        """`stop`: asks the learner to stop. False if none runs: the process then ends at once."""
        self._stop = stop
        self._asked = False
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, *_: object) -> None:
        self._asked = True
        if not self._stop():
            os._exit(STATUS)

    def end_if_asked(self) -> None:
        """End the process if SIGTERM has come: for Ray a death, after which it is started again."""
        if self._asked:
            os._exit(STATUS)
