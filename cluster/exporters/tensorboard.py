"""A run's series as event files of TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from cluster.exporters.series import Sample


@final
class TensorBoard:
    """Writes event files into a folder; `tensorboard --logdir FOLDER` shows them."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError if the folder cannot be written."""
        from tensorboardX import SummaryWriter

        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Names have whole seconds: a follower that is started again in the same one would
            # write over the file.
            suffix = f".{time.time_ns()}"
            self._writer: Any = SummaryWriter(str(folder), filename_suffix=suffix)
        except OSError as problem:
            raise ValueError(
                f"cannot write event files to {folder} ({problem.strerror}); name another folder"
            ) from problem

    def write(self, samples: Sequence[Sample]) -> None:
        for name, step, time_s, value in samples:
            self._writer.add_scalar(name, value, step, walltime=time_s)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
