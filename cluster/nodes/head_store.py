"""The Redis in which a head keeps the cluster's state, so that a head that is started again goes on
with the cluster that it had."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import redis

from cluster.journal.redis_client import Use, explain, without_password, writing_client
from cluster.nodes.tokens import folder_of, write_private
from gato.files import read_json

FILE = "head-store.json"
FORM = "redis://USER:PASSWORD@HOST:PORT/0, or rediss:// for TLS"
OPTIONS = {
    "ssl_ca_certs": "RAY_REDIS_CA_CERT",
    "ssl_ca_path": "RAY_REDIS_CA_PATH",
    "ssl_certfile": "RAY_REDIS_CLIENT_CERT",
    "ssl_keyfile": "RAY_REDIS_CLIENT_KEY",
}
"""What a URL may say after its ?, and where Ray reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadStore:
    """A Redis for the state of the cluster at one address."""

    url: str
    """With the password."""
    address: str
    """host:port of the head."""

    @property
    def namespace(self) -> str:
        """Of the cluster's keys. The head at the same address goes on with the same cluster."""
        return f"gato-{self.address}"

    @property
    def shown(self) -> str:
        """The URL without user and password."""
        return without_password(self.url) or "?"

    @property
    def username(self) -> str:
        return unquote(urlsplit(self.url).username or "")

    @property
    def password(self) -> str:
        return unquote(urlsplit(self.url).password or "")

    @property
    def environment(self) -> dict[str, str]:
        """What Ray is to find in its environment; neither user nor password."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return {
            "RAY_REDIS_ADDRESS": f"{parts.scheme}://{host}:{parts.port or 6379}",
            "RAY_external_storage_namespace": self.namespace,
            **{OPTIONS[name]: str(value) for name, value in parse_qsl(parts.query)},
        }

    @property
    def _pattern(self) -> str:
        return f"RAY{self.namespace}@*"

    def require(self) -> None:
        """Check that the server answers and may be written.

        Raises:
            ValueError: It does not; the text says how to fix that.
        """

        def write(url: str) -> None:
            key = self._pattern.replace("*", "check")
            with writing_client(url) as client:
                client.hset(key, "check", "1")
                client.hgetall(key)
                client.delete(key)

        use = Use(
            what="a cluster's state",
            keys=self._pattern,
            password="give the one that the server has",
            away="is it up, and reachable from here?",
        )
        explain(self.url, write, use)

    def forget(self) -> None:
        """Delete the cluster's state there.

        Raises:
            ValueError: The server does not answer; the state is still there.
        """
        try:
            with writing_client(self.url) as client:
                for key in list(client.scan_iter(match=self._pattern, count=1000)):
                    client.unlink(key)
        except (redis.RedisError, OSError) as problem:
            raise ValueError(
                f"the cluster's state is still in Redis at {self.shown}, which does"
                f" not answer ({problem}); start it and type gato cluster stop again"
            ) from problem


def head_store(address: str, url: str) -> HeadStore:
    """The store at `url` for the cluster at `address` (host:port).

    Raises:
        ValueError: Ray cannot use such a URL.
    """
    shown = without_password(url)
    if shown is None:
        raise ValueError(f"this is not a Redis URL; write {FORM}, each @ # / ? % percent-encoded")
    parts = urlsplit(url)
    if parts.scheme == "unix" or parts.path not in ("", "/", "/0"):
        raise ValueError(f"a head can use database 0 of a server only, not {shown}; write {FORM}")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in OPTIONS:
            raise ValueError(
                f"the URL of Redis at {shown} may say only {', '.join(OPTIONS)} after its ?, not"
                f" {name}"
            )
        if not Path(value).exists():
            raise ValueError(
                f"the file {value!r} of {name} does not exist; name it from / on, on this machine"
            )
    return HeadStore(url=url, address=address)


def keep_store(store: HeadStore) -> None:
    """Use this store for the head at its address until `forget_store`."""
    file = folder_of(store.address) / FILE
    write_private(file, json.dumps(asdict(store)) + "\n")


def kept_store(address: str) -> HeadStore | None:
    """The store of the head at `address` on this machine; None if it has none."""
    return read_store(folder_of(address))


def read_store(folder: Path) -> HeadStore | None:
    """The store that is kept in `folder`."""
    file = folder / FILE
    return HeadStore(**read_json(file, fix="delete it")) if file.is_file() else None


def kept_stores() -> list[HeadStore]:
    """The stores of all heads of this machine, whether they run or not."""
    folders = sorted(file.parent for file in folder_of("x").parent.glob(f"*/{FILE}"))
    return [store for folder in folders if (store := read_store(folder)) is not None]


def forget_store(store: HeadStore) -> None:
    """Delete the cluster's state, and that its head had a store.

    Raises:
        ValueError: The Redis does not answer.
    """
    store.forget()
    (folder_of(store.address) / FILE).unlink(missing_ok=True)
