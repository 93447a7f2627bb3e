"""The learner of a run as its supervisor sees it: begun or found, lost, back again, ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import ray
from ray.actor import ActorProxy
from ray.exceptions import RayError, RayTaskError

from cluster.journal.epoch_file import EpochNotKept
from cluster.supervision.ray_errors import reason_of
from learner.remote import MORE_LEARNERS, LearnerActor

Ended = Literal["finished", "stopped", "failed"]
COMES_BACK_S = 300.0
"""How long a learner that died may take to be there again, on a machine that may start again."""
MAX_DEATHS = 5
"""Deaths of the learner in a row, without a report in between, after which the run has failed."""
MAX_PAUSE_S = 5.0
ANSWER_S = 5.0


def keep_checkpoint(learner: ActorProxy[LearnerActor], step: int, note: dict[str, object]) -> bool:
    """Have the learner keep the checkpoint of a step as the best. False if it cannot."""
    try:
        return ray.get(learner.keep.remote(step, note), timeout=ANSWER_S)
    except RayError:
        return False


class Training:
    """One learner's training, over any number of deaths of its process.

    training = Training(learner, next_epoch, say)
    while (ended := training.poll(timeout_s=0.1)) is None:
        ...
    """

    def __init__(
        self,
        learner: ActorProxy[LearnerActor],
        next_epoch: Callable[[], int],
        say: Callable[[str, str], None],
    ) -> None:
        """`next_epoch`: a number that no learner of the run has had; `say`: an event."""
        self._learner = learner
        self._next_epoch = next_epoch
        self._say = say
        self._call: ray.ObjectRef[str] | None = None
        """Returns how the training ended; None while it is not known whether the learner is up."""
        self._question = learner.is_training.remote()
        self._ask_again_s = 0.0
        self._pause_s = 0.5
        self._away_since_s = time.monotonic()
        self._why_lost = ""
        self._no_epoch = ""
        """Why the next epoch could not be kept."""
        self._deaths = 0
        self._is_stopping = False

    def reported(self) -> None:
        """The learner has made progress: its next death is again the first."""
        self._deaths = 0

    def stop(self) -> None:
        """Ask the learner to save, publish and end. Again, if it is lost before it has."""
        self._is_stopping = True
        self._learner.stop.remote()

    def poll(self, timeout_s: float) -> tuple[Ended, str] | None:
        """How the training ended, and why if it failed; None: not yet, after `timeout_s`."""
        if self._call is None:
            return self._await_learner(timeout_s)
        if not ray.wait([self._call], timeout=timeout_s)[0]:
            return None
        try:
            outcome = ray.get(self._call)
        except RayTaskError as failure:  # in the learner's code: again would be the same
            return "failed", f"the learner failed: {failure.cause!r}"
        except RayError as failure:
            # Its process died, and Ray starts it again; or it cannot be reached for a while.
            self._why_lost = reason_of(failure)
            self._call, self._question = None, self._learner.is_training.remote()
            self._pause_s, self._away_since_s = 0.5, time.monotonic()
            return None
        if outcome == MORE_LEARNERS and not self._is_stopping:
            self._say("learner grows", "more learners have a place: all go on from the checkpoint")
            self._call, self._away_since_s = None, time.monotonic()
            self._begin(self._away_since_s)
            return None
        if outcome == MORE_LEARNERS:
            return "stopped", ""
        if outcome == "finished" or outcome == "stopped":
            return outcome, ""
        return "failed", outcome

    def _await_learner(self, timeout_s: float) -> tuple[Ended, str] | None:
        now_s = time.monotonic()
        if now_s - self._away_since_s > COMES_BACK_S:
            why = self._no_epoch or self._why_lost or "it does not answer"
            return "failed", f"the learner did not come back within {COMES_BACK_S:.0f} s: {why}"
        if now_s < self._ask_again_s:
            time.sleep(min(timeout_s, self._ask_again_s - now_s))
            return None
        if not ray.wait([self._question], timeout=timeout_s)[0]:
            return None
        try:
            goes_on = ray.get(self._question)
        except RayError as failure:
            # Each answer while the process starts again is one more error, not one more death.
            self._why_lost = self._why_lost or reason_of(failure)
            self._ask_again_s = now_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)
            self._question = self._learner.is_training.remote()
            return None
        if goes_on:
            what = "learner back" if self._why_lost else "supervisor back"
            self._say(what, "the learner goes on")
            self._call = self._learner.outcome.remote()
        else:
            if self._is_stopping:
                return "stopped", ""
            if (ended := self._count_death()) is not None:
                return ended
            self._why_lost = ""
            self._begin(now_s)
        self._why_lost = ""
        return None

    def _begin(self, now_s: float) -> None:
        """Let the learner train in a new epoch; without room for that on the disk, later."""
        try:
            epoch = self._next_epoch()
        except EpochNotKept as problem:
            if not self._no_epoch:
                self._say("problem", f"the learner waits: {problem}")
            self._no_epoch = str(problem)
            self._ask_again_s = now_s + MAX_PAUSE_S
            self._question = self._learner.is_training.remote()
            return
        self._no_epoch = ""
        self._call = self._learner.train.remote(epoch)

    def _count_death(self) -> tuple[Ended, str] | None:
        if not self._why_lost:
            return None  # it has not begun yet
        self._deaths += 1
        if self._deaths >= MAX_DEATHS:
            return "failed", f"the learner died {self._deaths} times in a row: {self._why_lost}"
        self._say("learner died", f"it starts again from its last checkpoint ({self._why_lost})")
        return None
