"""The token of a Ray cluster: whoever has it may run code on all its machines.

Ray itself looks at RAY_AUTH_TOKEN, then at the file RAY_AUTH_TOKEN_PATH, then at ~/.ray/auth_token,
and uses what it finds only if RAY_AUTH_MODE=token. A machine that has joined a cluster with another
token than its own keeps that token for the cluster's address.
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

TOKEN = re.compile(r"[\x21-\x7e]{16,512}")
"""Ray puts it into a header: printable, without spaces."""


def state_folder() -> Path:
    """Where a machine keeps what it knows of its clusters: GATO_HOME, else ~/.gato."""
    return Path(os.environ.get("GATO_HOME") or "~/.gato").expanduser()


def folder_of(address: str) -> Path:
    """Where this machine keeps what it knows of the cluster at `address` (host:port)."""
    return state_folder() / "clusters" / re.sub(r"[^\w.-]", "_", address)


def own_token_file() -> Path:
    """Ray's file for the token of this user."""
    return Path("~/.ray/auth_token").expanduser()


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, in a folder that only its owner can enter."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.parent.chmod(0o700)
    draft = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    os.replace(draft, file)


def make_own_token() -> None:
    """Write a token for this user if there is none, and keep others from reading it."""
    file = own_token_file()
    if _named() is not None:
        return
    if not file.is_file():
        write_private(file, secrets.token_hex(32))
    elif file.stat().st_mode & 0o077:
        file.chmod(0o600)


def read_token(source: str) -> str:
    """The token in a file; "-" reads it from the standard input.

    Raises:
        ValueError: There is none.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as problem:
        raise ValueError(
            f"cannot read the token in {source} ({problem}); copy ~/.ray/auth_token of the head"
        ) from problem
    return checked(text.strip(), source)


def checked(token: str, source: str) -> str:
    """`token`. Raises ValueError if it cannot be one."""
    if not TOKEN.fullmatch(token):
        raise ValueError(
            f"what is in {source} is no token: 16 to 512 printable characters without spaces; copy"
            " ~/.ray/auth_token of the head"
        )
    return token


def keep_token(address: str, token: str) -> None:
    """Use `token` for the cluster at `address` from now on."""
    write_private(folder_of(address) / "token", token)


def ask_for_token(address: str) -> str | None:
    """The token, typed by the user; None if nobody can type."""
    if not sys.stdin.isatty():
        return None
    prompt = f"token of the cluster at {address} (on the head: cat ~/.ray/auth_token): "
    return checked(getpass.getpass(prompt).strip(), "the answer")


def use_token(address: str) -> bool:
    """Have Ray in this process, and in those it starts, use the token for the cluster at
    `address`. Returns False if there is none."""
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        return True
    kept = folder_of(address) / "token"
    if _named() is None:
        if kept.is_file():
            os.environ["RAY_AUTH_TOKEN_PATH"] = str(kept)
        elif not own_token_file().is_file():
            return False
    os.environ["RAY_AUTH_MODE"] = "token"
    _reload()
    return True


def _reload() -> None:
    """Have Ray read the environment, and the token, again: it did so when it was imported."""
    raylet: Any = import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _named() -> str | None:
    """The token, or its file, that the environment names."""
    return os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
