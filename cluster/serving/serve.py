"""A policy server from its start to its end."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from actors.tasks.text_encoder import SentencePieceEncoder
from cluster.nodes.tokens import read_token, state_folder, write_private
from cluster.serving.app import PolicyApp
from cluster.serving.sessions import Sessions
from gato.exported.policy import encoder_of
from gato.exported.policy_file import PolicyFile

REAP_EVERY_S = 0.5
END_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """How a policy is served."""

    host: str = "127.0.0.1"
    port: int = 6410
    """0: a free one."""
    token_file: str | None = None
    """Holds the token that clients send. None: one is made, and kept in a file while the server
    lives."""
    clients: int = 256
    """At once."""
    patience_s: float = 0.25
    idle_s: float = 300.0
    """See `Sessions`."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port {self.port} is not in 0..65535")
        if self.token_file is None and not _is_loopback(self.host):
            raise ValueError(
                f"--host {self.host} is open to other machines: give --token-file FILE with a token"
                " of your own (python -c 'import secrets; print(secrets.token_hex(32))'), or leave"
                " out --host"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(
    policy: PolicyFile, config: ServeConfig, *, when_ready: Callable[[str, Path], None]
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        policy: What is served.
        config: Where, and to how many.
        when_ready: Is told the server's URL and the file with the token.

    Raises:
        ValueError: The token cannot be read, or the port is taken.
    """
    token = read_token(config.token_file) if config.token_file else secrets.token_hex(32)
    sessions = Sessions(
        policy,
        text=encoder_of(policy, SentencePieceEncoder),
        most=config.clients,
        patience_s=config.patience_s,
        idle_s=config.idle_s,
    )
    # Each client may wait in a thread; beginning and ending need a few more.
    with ThreadPoolExecutor(config.clients + 4, thread_name_prefix="client") as threads:
        asyncio.run(_serve(sessions, token, config, threads, when_ready))


async def _serve(
    sessions: Sessions,
    token: str,
    config: ServeConfig,
    threads: ThreadPoolExecutor,
    when_ready: Callable[[str, Path], None],
) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        PolicyApp(sessions, token, threads).application(),
        access_log=None,
        # A client that thinks for long keeps its connection: silence is for `end_silent` to judge.
        keepalive_timeout=config.idle_s + 60.0,
        shutdown_timeout=END_WITHIN_S,
    )
    await runner.setup()
    made: Path | None = None
    try:
        try:
            await web.TCPSite(runner, config.host, config.port).start()
        except OSError as problem:
            raise ValueError(
                f"cannot listen at {config.host}:{config.port} ({problem.strerror}); give another"
                " --port, or 0 for a free one"
            ) from problem
        port = runner.addresses[0][1]
        if config.token_file is None:
            made = state_folder() / "serve" / f"{port}.token"
            write_private(made, token)
        host = f"[{config.host}]" if ":" in config.host else config.host
        when_ready(f"http://{host}:{port}", made or Path(config.token_file or ""))
        while not stop.is_set():
            await loop.run_in_executor(threads, sessions.end_silent)
            try:
                await asyncio.wait_for(stop.wait(), REAP_EVERY_S)
            except TimeoutError:
                continue
    finally:
        sessions.close()
        await runner.cleanup()
        if made is not None:
            made.unlink(missing_ok=True)
