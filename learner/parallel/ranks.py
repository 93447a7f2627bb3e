"""The processes of one learner, its ranks: how they meet, and what they tell each other."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

MOST_WAIT = timedelta(minutes=30)
"""How long a rank waits for another that is alive. One that dies closes its connections."""
SIOCGIFADDR = 0x8915
"""Asks Linux for the address of a network interface."""

Value = TypeVar("Value")
Store = dist.Store  # pyright: ignore[reportPrivateImportUsage]


class Ranks:
    """This process among those of a learner. All of them make the same calls in the same order;
    rank 0 reads, publishes and saves for all.

    store, port = meeting_place("10.0.0.5", 0, size=2)      # the others: this port
    ranks = Ranks.join(store, rank=0, size=2, device=torch.device("cpu"), address="10.0.0.5")
    while ranks.agreed(not is_stopped):      # what rank 0 says
        ...
    ranks.leave()

    A call raises RuntimeError if another rank is gone.
    """

    def __init__(
        self, rank: int, size: int, control: dist.ProcessGroup, feed: dist.ProcessGroup
    ) -> None:
        """`control`: for this class, over CPUs; `feed`: the same, for another thread."""
        self.rank = rank
        self.size = size
        self._control = control
        self.feed = feed

    @classmethod
    def join(
        cls,
        store: Store,
        *,
        rank: int,
        size: int,
        device: torch.device,
        address: str | None = None,
    ) -> Ranks:
        """Meet the other ranks, and wait for them.

        Args:
            store: Where all ranks meet.
            rank: Of this process, from 0.
            size: Number of ranks.
            device: Of this rank. Gradients go over NCCL between GPUs, over Gloo between CPUs.
            address: By which the other ranks reach this machine. None: as its name says.
        """
        if address is not None and (interface := interface_of(address)):
            # Gloo would take the address of the host's name, which may be 127.0.1.1.
            os.environ["GLOO_SOCKET_IFNAME"] = interface
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store, rank=rank, world_size=size, timeout=MOST_WAIT,
        )  # fmt: skip
        return cls(rank, size, _over_cpus(), _over_cpus())

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def agreed(self, value: bool) -> bool:
        """What rank 0 says; the others' values do not count."""
        word = torch.tensor([value], dtype=torch.uint8)
        dist.broadcast(word, src=0, group=self._control)
        return bool(word.item())

    def of_first(self, value: Value) -> Value:
        """Rank 0's value, on all ranks."""
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0, group=self._control)
        return values[0]

    def copy_first(self, tensor: Tensor) -> None:
        """Make a tensor on the CPU equal to rank 0's."""
        dist.broadcast(tensor, src=0, group=self._control)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks of a tensor on the CPU, in place."""
        dist.all_reduce(tensor, group=self._control)
        return tensor

    def least(self, value: int) -> int:
        """The smallest of the ranks' values."""
        word = torch.tensor([value])
        dist.all_reduce(word, op=dist.ReduceOp.MIN, group=self._control)
        return int(word.item())

    def leave(self) -> None:
        """Close the connections to the other ranks."""
        dist.destroy_process_group()


def _over_cpus() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=MOST_WAIT)
    assert isinstance(group, dist.ProcessGroup)
    return group


def meeting_place(address: str, port: int, size: int) -> tuple[Store, int]:
    """The store where ranks meet, and its port. Port 0: it is in this process, which is rank 0."""
    store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
        address, port, size, is_master=not port, wait_for_workers=False
    )
    return store, store.port


def own_device() -> torch.device:
    """The GPU that this process was given, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def interface_of(address: str) -> str | None:
    """The network interface that has an IPv4 address; None if none has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
            except OSError:  # it has no address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
