"""Ports for the servers of a node's agents."""

from __future__ import annotations

import socket

import pytest

from cluster.nodes import ports


def test_each_option_has_a_free_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PORTS", range(20_000, 20_012))
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 20_003))
        taken.listen()
        given = dict(option.split("=") for option in ports.agent_ports())
    assert tuple(given) == ports.OPTIONS
    assert len(set(given.values())) == 4
    assert all(int(port) in ports.PORTS for port in given.values())
    assert "20003" not in given.values()
