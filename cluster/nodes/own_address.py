"""The address of this machine, as the others reach it."""

from __future__ import annotations

import ipaddress
import socket


def require_address(host: str) -> None:
    """Raises ValueError if `host` is a name, or nothing."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f"{host!r} is not an address; give the number by which the other machines reach this"
            " one, such as 192.168.1.10 (ip address shows it)"
        ) from None


def own_address(head: str) -> str:
    """The address from which this machine reaches the head at `head` (host:port)."""
    host, _, port = head.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5.0) as connection:
        return str(connection.getsockname()[0])
