"""The name of a machine, for reports of workers."""

from __future__ import annotations

import socket

import pytest

from gato.part_log import NODE_NAME, node_name


def test_a_node_is_called_as_it_joined_else_as_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NODE_NAME, "node-7")
    assert node_name() == "node-7"
    monkeypatch.delenv(NODE_NAME)
    assert node_name() == socket.gethostname()
