"""An environment in a process of its own, so that one that hangs, crashes or leaks harms no other.

Gymnasium's AsyncVectorEnv does not serve: it steps every environment each time (a row cannot wait),
one that raises closes them all, and one that died or hangs cannot be replaced.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped

from actors.envs.env import Outcome
from actors.envs.wire import decode, encode
from gato.serialization import to_plain
from gato.task import Task

NO_ANSWER = "no answer"
"""The message about an environment that hung begins so."""
START_TIMEOUT_S = 120.0
"""The imports take a second, and longer if many start at once."""
CLOSE_TIMEOUT_S = 5.0


class ProcessEnv:
    """An environment that is asked over a pipe. If it does not answer in `step_timeout_s` seconds,
    its process is killed.

    env = ProcessEnv(task, step_timeout_s=60.0)
    env.wait_until_made()
    env.reset(7)
    finish = env.begin(action)  # it works from here on, in parallel with others
    observation, reward, terminated, truncated = finish()
    """

    def __init__(self, task: Task, *, step_timeout_s: float, log: IO[bytes] | None = None) -> None:
        """Start the process, which makes the environment.

        Args:
            step_timeout_s: Seconds for each answer.
            log: File for what it prints, in place of standard error. With it `close` raises what
                goes wrong at the end, for checks.
        """
        self._task_name = task.name
        self._is_checked = log is not None
        self._step_timeout_s = step_timeout_s
        self._extras: dict[str, np.ndarray] = {}
        self._success: bool | None = None
        self.steps_per_s = 0.0
        """Steps per second of the world that it shows; 0 until it is made."""
        self._pipe, theirs = Pipe()
        # Not by multiprocessing: a fork would copy locks that other threads hold, and spawn would
        # run the main file again.
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "actors.envs.env_server",
                str(theirs.fileno()),
                str(step_timeout_s),
            ],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(folder or os.getcwd() for folder in sys.path)},
            stdin=subprocess.DEVNULL,
            # Never to standard output, which may be a program's: gato evaluate --json.
            stdout=log or 2,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._ask("make", to_plain(task))

    def wait_until_made(self) -> None:
        """Wait until the environment is made. Raises ValueError if it cannot be."""
        try:
            self.steps_per_s = self._answer(time.monotonic(), START_TIMEOUT_S)
        except (RuntimeError, TimeoutError) as problem:
            died = self._pipe.closed  # else the message names the environment itself
            with suppress(RuntimeError):
                self.close()
            raise ValueError(
                f"cannot make {self._task_name}: {problem}" if died else str(problem)
            ) from problem

    @property
    def pid(self) -> int:
        return self._process.pid

    def _ask(self, command: str, value: object) -> None:
        if not self._pipe.closed:
            with suppress(OSError):  # the process is dead, which `_answer` reports
                self._pipe.send_bytes(encode((command, value)))

    def _answer(self, asked_s: float, timeout_s: float) -> Any:
        """The result of the last command.

        Raises:
            RuntimeError: if the environment raised or its process died.
            TimeoutError: if it did not answer within `timeout_s` of `asked_s`.
        """
        try:
            in_time = self._pipe.poll(max(0.0, asked_s + timeout_s - time.monotonic()))
            succeeded, value, extras, success = (
                decode(self._pipe.recv_bytes()) if in_time else (False, None, {}, None)
            )
        except (EOFError, OSError):
            self._end()
            raise RuntimeError(f"its process died ({self._exit_reason()})") from None
        if not in_time:
            self._end()
            raise TimeoutError(f"{NO_ANSWER} in {timeout_s:g} s; its process was killed")
        if not succeeded:
            raise RuntimeError(value)
        self._extras, self._success = extras, success
        return value

    def _exit_reason(self) -> str:
        code = self._process.returncode
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def _end(self) -> None:
        """End the process, by a kill if it does not end by itself."""
        self._pipe.close()
        try:
            self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self._ask("reset", seed)
        return self._answer(time.monotonic(), self._step_timeout_s)

    def begin(self, action: Shaped[np.ndarray, ...]) -> Callable[[], Outcome]:
        """Begin a step. Returns a function that waits for its end and returns the outcome."""
        self._ask("step", action)
        asked_s = time.monotonic()
        return lambda: self._answer(asked_s, self._step_timeout_s)

    def step(self, action: Shaped[np.ndarray, ...]) -> Outcome:
        return self.begin(action)()

    def extras(self) -> dict[str, np.ndarray]:
        return self._extras

    @property
    def success(self) -> bool | None:
        return self._success

    def picture(self) -> Shaped[np.ndarray, ...]:
        """Draw the present state, not checked yet. Raises RuntimeError if it cannot be drawn."""
        self._ask("picture", None)
        return self._answer(time.monotonic(), self._step_timeout_s)

    def close(self) -> None:
        if self._pipe.closed:
            return
        self._ask("close", None)
        until_s, problem = time.monotonic() + CLOSE_TIMEOUT_S, ""
        with suppress(EOFError, OSError):  # the process has ended
            while self._pipe.poll(max(0.0, until_s - time.monotonic())):
                # A step that was begun and not finished answers first; the last answer is close's.
                succeeded, value, *_ = decode(self._pipe.recv_bytes())
                problem = "" if succeeded else value
        with suppress(subprocess.TimeoutExpired):  # `_end` kills it then
            self._process.wait(max(0.0, until_s - time.monotonic()))
        has_ended = self._process.poll() is not None
        self._end()
        if not has_ended:
            problem = f"{NO_ANSWER} in {CLOSE_TIMEOUT_S:g} s; its process was killed"
        elif self._process.returncode and not problem:
            problem = f"its process died ({self._exit_reason()})"
        if problem and self._is_checked:
            raise RuntimeError(problem)
