"""Which cluster a command is for, and the token that it asks for."""

from __future__ import annotations

from cluster.nodes.connect import address_of, keep_to_loopback
from cluster.nodes.node import Node, own_nodes
from cluster.nodes.probe import require_accepted, require_ray
from cluster.nodes.tokens import ask_for_token, use_token


def token_for(address: str) -> str | None:
    """What the user types, if the head refuses what this machine knows."""
    require_ray(address)
    has_one = use_token(address)
    try:
        if has_one:
            require_accepted(address)
            return None
    except ValueError:
        typed = ask_for_token(address)
        if typed is None:
            raise
        return typed
    typed = ask_for_token(address)
    if typed is None:
        raise ValueError(
            f"this machine has no token for the cluster at {address}; give the head's"
            " ~/.ray/auth_token with --token-file FILE, or - to read it from the standard input"
        )
    return typed


def cluster_address(given: str | None) -> str:
    """The cluster's address, with Ray made ready to ask it."""
    address = address_of(given) if given is not None else None
    if address is None:
        own: list[Node] = own_nodes()
        if len(own) != 1:
            there = ", ".join(node.address for node in own)
            raise ValueError(
                f"this machine is in several clusters ({there}); name one with --address"
                if own
                else "this machine is not in a cluster; start one with gato cluster start, join one"
                " with gato cluster join, or name one with --address HOST:PORT"
            )
        address = own[0].address
    require_ray(address)
    keep_to_loopback(False)
    use_token(address)
    require_accepted(address)
    return address
