"""Ports for the servers of a node's agents."""

from __future__ import annotations

import random

from gato.ports import is_free

PORTS = range(20_000, 32_000)
"""Above those that Ray gives its workers, below those that Linux gives outgoing connections."""
OPTIONS = (
    "--dashboard-agent-grpc-port",
    "--dashboard-agent-listen-port",
    "--metrics-export-port",
    "--runtime-env-agent-port",
)


def agent_ports() -> list[str]:
    """Options of `ray start`: a free port for each, so that a node knows them before its agents
    are up; see `cluster.nodes.ray_process`."""
    ports = random.SystemRandom().sample(PORTS, len(PORTS))
    free = (port for port in ports if is_free(port))
    return [f"{option}={port}" for option, port in zip(OPTIONS, free, strict=False)]
