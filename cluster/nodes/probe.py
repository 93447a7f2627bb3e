"""Whether it is a Ray that listens at an address, and whether it takes our token, found out in
seconds: `ray.init` takes two minutes to give up."""

from __future__ import annotations

import socket

from ray._private import ray_constants

CONNECT_S = 4.0
ANSWER_S = 6.0
"""The head of a cluster answers in milliseconds, in a second or two where its machine is busy."""
FIX = (
    "start one with `gato cluster start`, give host:port of a head that runs (its port is 6379"
    " unless --port said otherwise), or leave out --address for a local one"
)
DENIED = ("UNAUTHENTICATED", "PERMISSION_DENIED")
CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"


def require_ray(address: str) -> None:
    """Ask the head of the cluster at `address` (host:port) whether it is alive.

    One that refuses the token is a Ray too: `require_accepted` says so.

    Raises:
        ValueError: nothing listens there, or what does is not a Ray; within about ten seconds.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError, OverflowError) as problem:
        raise ValueError(f"no Ray answers at {address!r} ({problem}); {FIX}") from problem
    answer = _ask(address)
    if answer and answer not in DENIED:
        said = (
            f"it does not answer within {ANSWER_S:.0f} s"
            if answer == "DEADLINE_EXCEEDED"
            else answer
        )
        raise ValueError(f"what listens at {address!r} is not the head of a Ray ({said}); {FIX}")


def require_accepted(address: str) -> None:
    """Raises ValueError if the head at `address` does not take the token of this process."""
    if _ask(address) in DENIED:
        raise ValueError(
            f"the cluster at {address} refuses the token; give the one of its head, whose file is"
            " ~/.ray/auth_token there: --token-file FILE, or - to read it from the standard input"
        )


def _ask(address: str) -> str:
    """The name of the status with which the head answers; empty: it is alive."""
    import grpc

    # TLS and token, as Ray's own processes use them
    from ray._private.grpc_utils import init_grpc_channel

    channel = init_grpc_channel(address, options=ray_constants.GLOBAL_GRPC_OPTIONS)
    try:
        channel.unary_unary(CHECK_ALIVE)(b"", timeout=ANSWER_S)  # its request has no fields
    except grpc.RpcError as problem:
        return problem.code().name  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        channel.close()
    return ""
