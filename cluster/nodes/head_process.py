"""`ray start` for a head whose state is in a Redis, without the password on any command line.

Ray hands the password to its server as an argument, which all users of the machine can read. The
server can read its flags from its environment as well, which only their owner can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ray._private import node, ray_constants, services
from ray.scripts.scripts import main

from cluster.nodes.head_store import HeadStore, read_store
from cluster.nodes.ray_process import announce_port


def hide_password(store: HeadStore) -> None:
    """Have Ray in this process use the user and password of `store`, and show them to nobody."""
    of_node: Any = node
    start: Any = services.start_ray_process
    ask: Any = of_node.get_session_key_from_storage
    flags = {"FLAGS_redis_username": store.username, "FLAGS_redis_password": store.password}

    def start_process(
        command: Sequence[str],
        kind: str,
        *args: Any,
        env_updates: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Any:
        if kind == ray_constants.PROCESS_TYPE_GCS_SERVER:
            command = [*command, "--fromenv=redis_username,redis_password"]
            env_updates = {**(env_updates or {}), **flags}
        return start(command, kind, *args, env_updates=env_updates, **options)

    def session_key(host: str, port: int, _user: str, _password: str, *rest: Any) -> Any:
        return ask(host, port, store.username, store.password, *rest)

    # Ray takes a node that waits for this head for the head itself, if it sees its process; that
    # none runs is known, because its port was free.
    services.find_gcs_addresses = cache(set[str])
    services.start_ray_process = start_process
    of_node.get_session_key_from_storage = session_key


if __name__ == "__main__":
    kept = read_store(Path.cwd())  # the folder of the cluster's address
    assert kept is not None, "cluster.nodes.head starts this process after it has kept the store"
    hide_password(kept)
    announce_port()
    main()
