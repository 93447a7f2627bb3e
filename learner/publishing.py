"""Publishing weights beside the loop: a copy on the step's path, the rest in a thread."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gato.network.model import Gato
from gato.version import Version
from gato.weights import Weights, as_arrays, copy_weights
from learner.background import Background


@runtime_checkable
class WeightsSink(Protocol):
    """Where published weights go."""

    def publish(self, weights: Weights) -> bool:
        """Store a version. False: a learner of a later epoch has published; this one must end."""
        ...


class Fenced(RuntimeError):
    """A newer learner of this run has started; this one's weights are no longer accepted."""


class Publisher:
    """Publishes versions of one epoch, in the order of their numbers.

    publisher = Publisher(sink, epoch=1)
    publisher.publish(model, number=1, learner_step=0)      # copies, and returns
    publisher.check()                                       # Fenced, once the sink has said so
    publisher.wait()                                        # until the last one is accepted

    At most one publication is under way. If the next one is due before it ends, the loop waits.
    """

    def __init__(self, sink: WeightsSink, *, epoch: int, in_thread: bool = True) -> None:
        self._sink = sink
        self._epoch = epoch
        self._background = Background("publish", in_thread=in_thread)
        self.accepted: Version | None = None
        """The last version that the sink has taken."""

    def publish(self, model: Gato, *, number: int, learner_step: int) -> None:
        """Copy the weights and hand them to the thread.

        Raises:
            Fenced: A newer learner of the run publishes.
            ValueError: A weight of the publication before was not finite. It was not published.
        """
        self._background.wait()
        copies = copy_weights(model)
        copied = None
        if any(tensor.is_pinned() for tensor in copies.values()):
            copied = torch.cuda.Event()
            copied.record()
        version = Version(self._epoch, number)
        self._background.submit(lambda: self._hand_over(version, learner_step, copies, copied))

    def _hand_over(
        self,
        version: Version,
        learner_step: int,
        copies: dict[str, Tensor],
        copied: torch.cuda.Event | None,
    ) -> None:
        if copied is not None:
            copied.synchronize()
        weights = Weights(version=version, learner_step=learner_step, arrays=as_arrays(copies))
        if not self._sink.publish(weights):
            raise Fenced(
                f"epoch {self._epoch} of this run is over: a newer learner publishes; this one ends"
            )
        self.accepted = version

    def check(self) -> None:
        """Raise what a publication raised; see `publish`."""
        self._background.check()

    def wait(self) -> None:
        """Wait until the last publication is accepted. Raises as `publish` does."""
        self._background.wait()

    def join(self) -> None:
        """Wait until no publication is under way, whatever became of it."""
        self._background.join()
