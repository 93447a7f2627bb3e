"""One job at a time beside the learner's loop: writing a checkpoint, publishing weights."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Runs jobs in their order, each in a thread; what a job raises is raised in the loop.

    background = Background("publish")
    background.submit(job)      # waits for the job before, if that still runs
    background.check()          # raises what a job raised
    background.wait()           # until nothing runs; raises likewise
    """

    def __init__(self, name: str, *, in_thread: bool = True) -> None:
        """`in_thread`: if not, `submit` runs the job itself."""
        self._name = name
        self._in_thread = in_thread
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job. At most one is under way: the one before is waited for."""
        self.wait()
        if not self._in_thread:
            job()
            return
        self._thread = threading.Thread(target=self._run, args=(job,), name=self._name, daemon=True)
        self._thread.start()

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as failure:  # raised by the next call, in the learner's thread
            self._failure = failure

    def check(self) -> None:
        """Raise what a job raised, once."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def wait(self) -> None:
        """Wait until no job is under way, and raise what one raised."""
        self.join()
        self.check()

    def join(self) -> None:
        """Wait until no job is under way."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
