"""Ports for the servers of a node's agents."""

from __future__ import annotations

import random
import socket

PORTS = range(20_000, 32_000)
"""Above those that Ray gives its workers, below those that Linux gives outgoing connections."""
OPTIONS = (
    "--dashboard-agent-grpc-port",
    "--dashboard-agent-listen-port",
    "--metrics-export-port",
    "--runtime-env-agent-port",
)


def agent_ports() -> list[str]:
    """Options of `ray start`: a free port for each.

    A node that is given none waits for its agents to write theirs into files, for 15 s, and then
    crashes. On a busy machine agents take longer to start (ray-project/ray#65983).
    """
    ports = random.SystemRandom().sample(PORTS, len(PORTS))
    free = (port for port in ports if _is_free(port))
    return [f"{option}={port}" for option, port in zip(OPTIONS, free, strict=False)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
