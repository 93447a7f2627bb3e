"""Whether a server could listen at a port."""

from __future__ import annotations

import socket


def is_free(port: int, host: str = "") -> bool:
    """Whether nobody listens at a port here; `host`: one of this machine's addresses, or all."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
