"""Batches on their way from the host to the model's device."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import final

import torch

from gato.network.model import TensorBatch
from gato.network.share import Share
from gato.sequence import Batch


class Staged:
    """A batch on the device, in parts that are computed one after the other."""

    def __init__(
        self, batch: Batch, parts: list[TensorBatch], copied: torch.cuda.Event | None = None
    ) -> None:
        """`copied`: when its tensors are whole, on a GPU."""
        self.batch = batch
        self.num_tokens = batch.num_tokens
        self.num_targets = sum(len(part.target_at) for part in parts)
        self.max_rows = max(len(part.ids) for part in parts)
        """Of a part."""
        self.share: Share | None = None
        """Of a batch that several ranks have."""
        self._parts = parts
        self._copied = copied

    @classmethod
    def of_share(cls, staged: Staged, share: Share) -> Staged:
        """A rank's part of a batch, of which `staged` has the rows."""
        parts: list[TensorBatch] = []
        begin = 0
        for part in staged.parts:
            end = begin + len(part.ids)
            parts.append(replace(part, share=replace(share, begin=begin, end=end)))
            begin = end
        out = cls(staged.batch, parts)
        out.num_tokens = share.num_tokens
        out.share = share
        return out

    @property
    def parts(self) -> list[TensorBatch]:
        """For the present stream, which waits for the copies; the host does not."""
        if self._copied is not None:
            stream = torch.cuda.current_stream()
            stream.wait_event(self._copied)
            self._copied = None
            for part in self._parts:
                for field in fields(TensorBatch):
                    value = getattr(part, field.name)
                    if isinstance(value, torch.Tensor):
                        value.record_stream(stream)  # its memory is not reused too early
        return self._parts


@final
class Stager:
    """Puts batches on a device: to a GPU from pinned memory and on a stream of its own, so that no
    update waits for a copy.

    stager = Stager(torch.device("cuda"), num_ids=33_000)
    stager.micro_batch_rows = 8
    staged = stager.stage(batch)
    """

    def __init__(
        self, device: torch.device, *, num_ids: int | None = None, is_of_ranks: bool = False
    ) -> None:
        """`num_ids`: rows of the model's table; a batch with an id beyond them is rejected.
        `is_of_ranks`: whether batches are shares, whose leaders count the patches of all ranks."""
        self._device = device
        self._num_ids = num_ids
        self._own_leaders = not is_of_ranks
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.micro_batch_rows: int | None = None
        """Rows of a part; None: all."""

    def stage(self, batch: Batch) -> Staged:
        """The batch on the device. Raises ValueError if an id is out of range."""
        rows = self.micro_batch_rows
        split = [batch] if rows is None else batch.split(rows, own_leaders=self._own_leaders)
        if self._stream is None:
            return Staged(batch, [self._tensors(part) for part in split])
        with torch.cuda.stream(self._stream):
            parts = [self._tensors(part) for part in split]
            copied = torch.cuda.Event()
            copied.record(self._stream)
        return Staged(batch, parts, copied)

    def _tensors(self, part: Batch) -> TensorBatch:
        return TensorBatch.of(part, self._device, num_ids=self._num_ids)
