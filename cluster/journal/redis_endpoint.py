"""How to reach the private Redis server of a run, as its folder keeps it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """How to reach the server of a run; kept in `redis.json`, readable by the owner only."""

    port: int
    password: str
    pid: int | None
    """None once it was stopped."""

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/0"


def read_endpoint(folder: Path) -> Endpoint | None:
    """What `redis.json` says, or None if no server was ever started on `folder`."""
    try:
        entry = json.loads((folder / "redis.json").read_text())
        parts = urlsplit(str(entry["url"]))
        return Endpoint(port=int(parts.port or 0), password=parts.password or "", pid=entry["pid"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # whose text may hold a part of the password
        raise ValueError(
            f"{folder / 'redis.json'} is damaged: it must hold url and pid; delete it and start"
            " again"
        ) from None


def write_endpoint(folder: Path, endpoint: Endpoint) -> None:
    """Keep `endpoint`, for its owner only."""
    text = json.dumps({"url": endpoint.url, "pid": endpoint.pid})
    draft = folder / f"redis.json.{os.getpid()}.tmp"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(draft, folder / "redis.json")
