"""Whether it is a Ray that listens at an address, found out in seconds: `ray.init` takes two
minutes to give up."""

from __future__ import annotations

import socket

from ray._private import ray_constants

CONNECT_S = 4.0
ANSWER_S = 6.0
"""The head of a cluster answers in milliseconds, in a second or two where its machine is busy."""
FIX = (
    "start one with `ray start --head`, give host:port of a head that runs (its port is 6379 unless"
    " --port said otherwise), or leave out --address for a local one"
)
CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"


def require_ray(address: str) -> None:
    """Ask the head of the cluster at `address` (host:port) whether it is alive.

    One that refuses the token is a Ray too: `ray.init` says what it refuses.

    Raises:
        ValueError: nothing listens there, or what does is not a Ray; within about ten seconds.
    """
    import grpc

    # TLS and token, as Ray's own processes use them
    from ray._private.grpc_utils import init_grpc_channel

    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, ValueError, OverflowError) as problem:
        raise ValueError(f"no Ray answers at {address!r} ({problem}); {FIX}") from problem
    channel = init_grpc_channel(address, options=ray_constants.GLOBAL_GRPC_OPTIONS)
    try:
        channel.unary_unary(CHECK_ALIVE)(b"", timeout=ANSWER_S)  # its request has no fields
    except grpc.RpcError as problem:
        code = problem.code()  # pyright: ignore[reportAttributeAccessIssue]
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return
        said = (
            f"it does not answer within {ANSWER_S:.0f} s"
            if code == grpc.StatusCode.DEADLINE_EXCEEDED
            else code.name
        )
        raise ValueError(
            f"what listens at {address!r} is not the head of a Ray ({said}); {FIX}"
        ) from problem
    finally:
        channel.close()
