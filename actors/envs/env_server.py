"""The process of one environment: makes it, and does with it what its pipe asks."""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from actors.envs.factory import make_env
from actors.envs.wire import decode, encode
from gato.serialization import from_plain
from gato.task import Task


def serve(pipe: Connection, step_timeout_s: float) -> None:
    """Make an environment and do with it what comes down the pipe, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    env: Any = None
    while True:
        try:
            word, value = decode(pipe.recv_bytes())
        except EOFError:
            return
        # Who asks may have died; then the system ends a step that never does.
        signal.setitimer(signal.ITIMER_REAL, 0 if word == "make" else step_timeout_s + 5)
        try:
            if word == "close" and env is None:
                answer = (True, None, {})
            elif word == "make":
                env = make_env(from_plain(Task, value))
                answer = (True, env.steps_per_s, {})
            else:
                assert env is not None, "it is asked only once it was made"
                does = getattr(env, word)
                result = does(value) if word in ("reset", "step") else does()
                answer = (True, result, {} if word == "close" else env.extras())
            message = encode(answer)
        except BaseException as problem:  # whatever others' code raises, sys.exit as well
            text = (
                str(problem)
                if word in ("make", "picture") and isinstance(problem, Exception)
                else repr(problem)
            )
            ends = (
                ""
                if isinstance(problem, Exception)
                else ", which ends Python; raise an Exception, or end the episode"
            )
            message = encode((False, text + ends, {}))
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send_bytes(message)
        if word == "close":
            return


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), float(sys.argv[2]))
