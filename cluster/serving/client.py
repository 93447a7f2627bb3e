"""A client of the policy server: http.client, msgpack and NumPy, nothing else, in one class that
can be copied."""

from __future__ import annotations

from contextlib import suppress
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import msgpack
import numpy as np


class PolicyClient:
    """One environment's policy, on a server. One thread at a time.

    policy = PolicyClient("http://127.0.0.1:6410", token)
    policy.reset("mujoco/hopper")               # at the beginning of each episode
    action = policy.act(observation)            # an array, or arrays by name
    policy.observe(reward)                      # what the action paid
    """

    def __init__(self, url: str, token: str, *, timeout_s: float = 60.0) -> None:
        where = urlsplit(url)
        kind = HTTPSConnection if where.scheme == "https" else HTTPConnection
        self._server = kind(where.hostname or "", where.port, timeout=timeout_s)
        self._headers = {"Authorization": f"Bearer {token.strip()}"}
        self._session, self._reward = "", 0.0

    def reset(self, task: str) -> None:
        """Begin an episode. Raises ValueError if the server has no such task."""
        self._session = self._call("/begin", {"task": task, "session": self._session})["session"]

    def act(self, observation: Any) -> np.ndarray:
        """The action [*shape]. Raises ValueError, with the server's sentence, if it refuses."""
        body = {"session": self._session, "observation": observation, "reward": self._reward}
        self._reward = 0.0
        return self._call("/act", body)["action"]

    def observe(self, reward: float) -> None:
        """Tell what the last action paid; it is sent with the next observation."""
        self._reward += float(reward)

    def close(self) -> None:
        """End the episode and the connection."""
        with suppress(OSError, ValueError):  # the server is gone, and the episode with it
            self._call("/end", {"session": self._session})
        self._session = ""
        self._server.close()

    def _call(self, path: str, body: dict[str, Any]) -> Any:
        self._server.request("POST", path, msgpack.packb(body, default=_packed), self._headers)
        answer = self._server.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise ValueError(content.decode())
        return msgpack.unpackb(content, ext_hook=_unpacked)


def _packed(array: Any) -> msgpack.ExtType:
    array = np.asarray(array)
    return msgpack.ExtType(1, msgpack.packb((array.dtype.str, array.shape, array.tobytes())))


def _unpacked(code: int, data: bytes) -> np.ndarray:
    dtype, shape, content = msgpack.unpackb(data)
    return np.frombuffer(content, dtype).reshape(shape).copy()
