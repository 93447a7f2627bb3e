"""The starts of a run's learner: one that resumes from an older checkpoint loses the weights that
came after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

from cluster.journal.journal import Entry
from gato.metrics import Evaluation, LearnerReport
from gato.version import Version


@final
class Epochs:
    """The first update that is known of each epoch.

    epochs = Epochs.of(entries)
    epochs.has_lost(Version(1, 90), 900)       # whether the learner began again before update 900
    """

    def __init__(self, begins: Iterable[Sequence[float]] = ()) -> None:
        """`begins`: pairs of epoch and update, as `state` returns them."""
        self._begins = {int(epoch): int(step) for epoch, step in begins}

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Epochs:
        """The epochs of a journal."""
        epochs = cls()
        for entry in entries:
            epochs.note(entry.record)
        return epochs

    def note(self, record: object) -> bool:
        """Take a record of the learner or an evaluation; whether more weights than before may be
        lost."""
        match record:
            case LearnerReport():
                epoch, step = record.version.epoch, record.step
            case Evaluation():
                epoch, step = record.version.epoch, record.learner_step
            case _:
                return False
        known = self._begins.get(epoch)
        if known is not None and known <= step:
            return False
        self._begins[epoch] = step
        return epoch > min(self._begins)

    def has_lost(self, version: Version | tuple[int, int], step: float) -> bool:
        """Whether a later epoch began before this update, so that these weights led to nothing."""
        return any(step > begin for epoch, begin in self._begins.items() if epoch > version[0])

    def state(self) -> list[list[int]]:
        """What the constructor takes back, as JSON has it."""
        return [[epoch, step] for epoch, step in sorted(self._begins.items())]
