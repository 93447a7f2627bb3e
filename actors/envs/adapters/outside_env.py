"""An environment in another Python interpreter, with its own packages: `outside:ID`.

The interpreter is the setting `actors.env_python`, or the variable GATO_ENV_PYTHON. It needs numpy,
and gymnasium or gym; the protocol is described in `actors.envs.adapters.outside_server`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from actors.envs.adapters import outside_server
from actors.envs.packages import find_python

ANSWER_TIMEOUT_S = 120.0
END_TIMEOUT_S = 5.0
SERVER = Path(outside_server.__file__)


def _space(said: Mapping[str, Any]) -> spaces.Space[Any]:
    """The space that was described."""
    match said["kind"]:
        case "Box":
            low = np.asarray(said["low"])
            return spaces.Box(low, np.asarray(said["high"]), low.shape, low.dtype.type)
        case "Discrete":
            return spaces.Discrete(said["n"], start=said["start"])
        case "MultiDiscrete":
            return spaces.MultiDiscrete(said["nvec"], start=said["start"])
        case "MultiBinary":
            return spaces.MultiBinary(said["shape"].shape)
        case "Text":
            return spaces.Text(said["max_length"], charset=said["letters"])
        case "Dict":
            return spaces.Dict({name: _space(part) for name, part in said["parts"].items()})
        case "Tuple":
            return spaces.Tuple([_space(part) for part in said["parts"]])
        case kind:
            raise ValueError(f"a space of kind {kind} is not known")


class Outside(gymnasium.Env[Any, Any]):
    """The environment `env_id` of the interpreter `python`, made there with the other keywords."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self, env_id: str, python: str = "", render_mode: str | None = None, **kwargs: Any
    ) -> None:
        """Raises ValueError if the interpreter cannot be started or the environment made."""
        self._called = f"{env_id} of {find_python(python)}"
        ours, theirs = socket.socketpair()
        ours.settimeout(ANSWER_TIMEOUT_S)
        self._process = subprocess.Popen(
            [
                find_python(python),
                "-W",
                "ignore",
                str(SERVER),
                str(theirs.fileno()),
                str(round(ANSWER_TIMEOUT_S + END_TIMEOUT_S)),
            ],
            # The packages of this interpreter are not those of that one.
            env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")},
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._socket, self._stream = ours, ours.makefile("rwb")
        try:
            made = self._ask("make", {"env_id": env_id, "kwargs": kwargs})
            self.observation_space, self.action_space = map(_space, made["spaces"])
        except (RuntimeError, ValueError) as problem:
            self._end()
            raise ValueError(str(problem)) from problem
        self.max_episode_steps: int | None = made["max_steps"]
        """The limit that it is registered with there."""
        self.metadata = {**self.metadata, "render_fps": made["fps"]}
        self.render_mode = render_mode

    def _ask(self, command: str, value: Any) -> Any:
        """The answer. Raises RuntimeError if there is none, or it is an error."""
        try:
            outside_server.send(self._stream, (command, value))
            answer = outside_server.receive(self._stream)
        except TimeoutError as problem:
            self._end()
            raise RuntimeError(
                f"{self._called} gave no answer in {ANSWER_TIMEOUT_S:g} s; its process was killed"
            ) from problem
        except (EOFError, OSError, ValueError) as problem:
            reason = self._end()
            raise RuntimeError(f"the process of {self._called} died ({reason})") from problem
        if "error" in answer:
            raise RuntimeError(f"{self._called}: {answer['error']}")
        return answer["answer"]

    def _end(self) -> str:
        """End the process, by a kill if it does not end by itself; how it ended."""
        with suppress(OSError):
            self._stream.close()  # it holds the socket open
        self._socket.close()
        try:
            code = self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        observation, info = self._ask("reset", None if seed is None else seed % 2**31)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self._ask("step", action)
        return observation, reward, terminated, truncated, info

    def render(self) -> Any:
        return self._ask("render", None)

    def close(self) -> None:
        if self._process.poll() is None and self._socket.fileno() >= 0:
            self._socket.settimeout(END_TIMEOUT_S)
            try:
                self._ask("close", None)
            finally:
                self._end()
        else:
            self._end()


gymnasium.register("gato/Outside-v0", entry_point="actors.envs.adapters.outside_env:Outside")
