"""`ray start` for a node that does not wait for its agents.

A node waits 15 s for the ports of its agents to be in files of its session, and then crashes;
agents take longer to start on a machine that is busy (ray-project/ray#65983). Three of the ports
can be given as options (`cluster.nodes.ports`). The node is not told the fourth, so its file is
written here, as the agent writes it later.
"""

from __future__ import annotations

import inspect
from typing import Any

from ray import _raylet
from ray._private import services
from ray.scripts.scripts import main

LISTEN_PORT = "dashboard_agent_listen_port"


def announce_port() -> None:
    """Have Ray in this process write the file with the port of a node's agent before the node
    starts."""
    start: Any = services.start_raylet
    persist: Any = getattr(_raylet, "persist_port")  # noqa: B009 (compiled: no types)
    signature = inspect.signature(start)

    def start_raylet(*args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options).arguments
        if port := given.get(LISTEN_PORT):
            persist(given["session_dir"], given["node_id"], LISTEN_PORT, port)
        return start(*args, **options)

    services.start_raylet = start_raylet


if __name__ == "__main__":
    announce_port()
    main()
