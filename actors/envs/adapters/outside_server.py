"""One environment in its own interpreter: `PYTHON outside_server.py FILE_DESCRIPTOR SECONDS`.

It needs numpy, and gymnasium or gym; nothing of this project, and no newer Python than 3.7.
Messages go both ways over one socket: four bytes, the length of a JSON text (big-endian), the text,
then the bytes of the arrays that its "arrays" lists as [dtype, shape]. In the text a value is
{"a": place} for an array, {"d": {...}} for a dict, {"t": [...]} for a tuple, {"v": ...} for
anything plain.

    asked                                    answered
    ["make", {"env_id": ..., "kwargs": {}}]  {"spaces": [observation, action], "max_steps", "fps"}
    ["reset", seed]                          [observation, info]
    ["step", action]                         [observation, reward, terminated, truncated, info]
    ["render", null]                         an array of bytes, height by width by 3
    ["close", null]                          null, and the process ends

The answer is {"answer": ...}, or {"error": "..."} of what was raised.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import random
import signal
import socket
import struct
import sys
from typing import Any

import numpy as np

KEPT = ("success", "is_success", "teacher")
"""What of `info` is sent."""
SOLVED = "all_boxes_on_target"
"""gym-sokoban's name for success; it says `maxsteps_used` where an episode has run out of steps."""


# Messages


def pack(value: Any, arrays: list[Any]) -> dict[str, Any]:
    """A value as what JSON can hold; its arrays are appended to `arrays`."""
    if isinstance(value, dict):
        return {"d": {str(key): pack(part, arrays) for key, part in value.items()}}
    if isinstance(value, (tuple, list)):
        return {"t": [pack(part, arrays) for part in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"v": value}
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{type(value).__name__} {value!r} is not an array of numbers")
    arrays.append(np.ascontiguousarray(array).reshape(array.shape))
    return {"a": len(arrays) - 1}


def unpack(value: dict[str, Any], arrays: list[Any]) -> Any:
    """The inverse of `pack`."""
    if "d" in value:
        return {key: unpack(part, arrays) for key, part in value["d"].items()}
    if "t" in value:
        return tuple(unpack(part, arrays) for part in value["t"])
    return arrays[value["a"]][()] if "a" in value else value["v"]


def send(stream: Any, value: Any) -> None:
    """Write one message."""
    arrays: list[np.ndarray] = []
    packed = pack(value, arrays)
    listed = [[array.dtype.str, list(array.shape)] for array in arrays]
    text = json.dumps({"value": packed, "arrays": listed}).encode()
    stream.write(struct.pack(">I", len(text)) + text + b"".join(a.tobytes() for a in arrays))
    stream.flush()


def receive(stream: Any) -> Any:
    """Read one message. Raises EOFError if the other side has gone."""
    message = json.loads(_exactly(stream, struct.unpack(">I", _exactly(stream, 4))[0]).decode())
    arrays: list[np.ndarray] = []
    for kind, shape in message["arrays"]:
        dtype = np.dtype(kind)
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(_exactly(stream, size), dtype).reshape(shape).copy())
    return unpack(message["value"], arrays)


def _exactly(stream: Any, size: int) -> bytes:
    data = stream.read(size) if size else b""
    if len(data) < size:
        raise EOFError
    return data


# Environments


def described(space: Any) -> dict[str, Any]:
    """A space as a value: its kind and what it is made of."""
    kind = type(space).__name__
    if kind == "Box":
        return {"kind": kind, "low": space.low, "high": space.high}
    if kind == "Discrete":
        return {"kind": kind, "n": int(space.n), "start": int(getattr(space, "start", 0))}
    if kind == "MultiDiscrete":
        nvec = np.asarray(space.nvec)
        return {"kind": kind, "nvec": nvec, "start": getattr(space, "start", np.zeros_like(nvec))}
    if kind == "MultiBinary":
        return {"kind": kind, "shape": np.zeros(space.shape, np.int8)}
    if kind == "Text":
        letters = "".join(sorted(space.character_set))
        return {"kind": kind, "max_length": int(space.max_length), "letters": letters}
    if kind == "Dict":
        return {"kind": kind, "parts": {str(k): described(p) for k, p in space.spaces.items()}}
    if kind == "Tuple":
        return {"kind": kind, "parts": tuple(described(part) for part in space.spaces)}
    raise ValueError(f"a space of kind {kind} is not known here")


def make(env_id: str, kwargs: dict[str, Any]) -> Any:
    """The environment, of gymnasium if that has it, else of gym."""
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    problems: list[str] = []
    for package in ("gymnasium", "gym"):
        try:
            library = importlib.import_module(package)
        except ImportError as problem:
            problems.append(str(problem))
            continue
        for options in ({"disable_env_checker": True}, {}):
            try:
                return library.make(name, **options, **kwargs)
            except Exception as problem:
                problems.append(f"{package}: {type(problem).__name__}: {problem}")
                if "disable_env_checker" not in str(problem):
                    break
    raise ValueError("; ".join(problems))


class Served:
    """The environment, whichever of gym's interfaces it has.

    With the keyword `seed_as` it is made again for each episode, with the seed as the keyword of
    that name: for environments that take a seed only when they are made.
    """

    def __init__(self, env_id: str, kwargs: dict[str, Any]) -> None:
        self.env_id, self.kwargs = env_id, dict(kwargs)
        self.seed_as = self.kwargs.pop("seed_as", None)
        self.env = make(self.env_id, self.kwargs)

    def reset(self, seed: int | None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:  # for those that draw from the generators of Python and numpy
            random.seed(seed)
            np.random.seed(seed % 2**32)
        if self.seed_as is not None and seed is not None:
            self.env.close()
            self.env = make(self.env_id, {**self.kwargs, self.seed_as: seed})
            given = self.env.reset()
            return self._begun(given)
        try:
            given = self.env.reset(seed=seed)
        except TypeError as problem:
            if "seed" not in str(problem):
                raise
            if hasattr(self.env, "seed"):
                self.env.seed(seed)
            given = self.env.reset()
        return self._begun(given)

    def _begun(self, given: Any) -> tuple[Any, dict[str, Any]]:
        """What a reset returned: an observation, or in gym 0.26 and later also its info."""
        has_info = isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], dict)
        observation, info = given if has_info else (given, {})
        return observation, kept(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, *ends, info = self.env.step(action)
        if len(ends) == 1:  # gym before 0.26: done, and why in info
            out_of_steps = info.get("maxsteps_used") and not info.get(SOLVED)
            truncated = bool(info.get("TimeLimit.truncated", False) or out_of_steps)
            ends = [bool(ends[0]) and not truncated, bool(ends[0]) and truncated]
        return observation, float(reward), bool(ends[0]), bool(ends[1]), kept(info)

    def render(self, _: None) -> np.ndarray:
        env = self.env.unwrapped
        env.render_mode = "rgb_array"
        # gym before 0.26 asks for the mode, whose default opens a window.
        asks = "mode" in inspect.signature(env.render).parameters
        return np.asarray(env.render(mode="rgb_array") if asks else env.render(), np.uint8)


def kept(info: dict[str, Any]) -> dict[str, Any]:
    """What is sent of `info`; its numbers as Python's own."""
    out = {name: info[name] for name in KEPT if name in info}
    if SOLVED in info:
        out.setdefault("success", info[SOLVED])
    return {name: bool(v) if name != "teacher" else v for name, v in out.items()}


def serve(stream: Any, patience_s: int) -> None:
    """Answer until the other side has gone, or says close.

    The other side may die during a step: a signal ends one that takes longer than `patience_s`.
    """
    served: Any = None
    while True:
        try:
            command, value = receive(stream)
        except EOFError:
            return
        signal.alarm(patience_s)
        try:
            if command == "make":
                served = Served(value["env_id"], value["kwargs"])
                env, spec = served.env, getattr(served.env, "spec", None)
                answer: Any = {
                    "spaces": (described(env.observation_space), described(env.action_space)),
                    "max_steps": getattr(spec, "max_episode_steps", None),
                    "fps": float((getattr(env, "metadata", None) or {}).get("render_fps") or 15.0),
                }
            elif command == "close":
                served.env.close()
                answer = None
            else:
                answer = getattr(served, command)(value)
            send(stream, {"answer": answer})
        except Exception as problem:
            kind = "" if isinstance(problem, ValueError) else type(problem).__name__ + ": "
            send(stream, {"error": f"{kind}{problem}"})
        signal.alarm(0)
        if command == "close":
            return


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    sys.path.insert(0, os.getcwd())
    with socket.socket(fileno=int(sys.argv[1])) as peer, peer.makefile("rwb") as both:
        os.dup2(2, 1)  # what an environment prints must not reach a program's output
        serve(both, int(sys.argv[2]))
