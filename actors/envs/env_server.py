"""The process of one environment: makes it, and carries out the commands of its pipe.

`ProcessEnv` starts it as `python -m actors.envs.env_server FILE_DESCRIPTOR STEP_TIMEOUT_S`.
"""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from actors.envs.env import Succeeding
from actors.envs.factory import make_env
from actors.envs.wire import decode, encode
from gato.serialization import from_plain
from gato.task import Task


def _success(env: object) -> bool | None:
    return env.success if isinstance(env, Succeeding) else None


def serve(pipe: Connection, step_timeout_s: float) -> None:
    """Carry out commands (make, reset, step, picture, close) until the pipe closes.

    Each command is `(name, argument)`, each answer `(succeeded, result or problem, extras,
    success)`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    env: Any = None
    while True:
        try:
            command, value = decode(pipe.recv_bytes())
        except EOFError:
            return
        # The process that asks may have died: then SIGALRM ends a step that never ends.
        signal.setitimer(signal.ITIMER_REAL, 0 if command == "make" else step_timeout_s + 5)
        try:
            if command == "close" and env is None:
                answer = (True, None, {}, None)
            elif command == "make":
                env = make_env(from_plain(Task, value))
                answer = (True, env.steps_per_s, {}, None)
            else:
                assert env is not None, "make is the first command"
                does = getattr(env, command)
                result = does(value) if command in ("reset", "step") else does()
                extras = {} if command == "close" else env.extras()
                answer = (True, result, extras, _success(env))
            message = encode(answer)
        except BaseException as problem:  # the author's code may raise anything, SystemExit as well
            text = (
                str(problem)
                if command in ("make", "picture") and isinstance(problem, Exception)
                else repr(problem)
            )
            ends = (
                ""
                if isinstance(problem, Exception)
                else ", which ends Python; raise an Exception, or end the episode"
            )
            message = encode((False, text + ends, {}, None))
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send_bytes(message)
        if command == "close":
            return


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), float(sys.argv[2]))
