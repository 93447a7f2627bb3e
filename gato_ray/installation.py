"""Checks that the packages `gato`, `learner`, `actors`, `replay` and `cluster` that Python finds
are this project's.

Their names are common: a distribution on PyPI or a folder of the user's may have the same. pip
overwrites the files of one distribution with another's and says nothing, and a folder that is
earlier on `sys.path` hides a package. docs/adr/0028-packaging.md.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION = "gato-ray"
PACKAGES = ("gato", "learner", "actors", "replay", "cluster")
ROOT = Path(__file__).resolve().parent.parent
"""The folder of all packages: the repository, or the site-packages of the environment."""


def check_packages() -> None:
    """Call this before the first import of one of the packages. Imports none of them.

    Raises:
        ImportError: If Python finds another package of the same name. The message names its file
        and what to do.
    """
    foreign = {name: file for name in PACKAGES if (file := _foreign(name)) is not None}
    if not foreign:
        return
    found = "; ".join(
        f"`import {name}` finds {file}{_owners(name)}" for name, file in foreign.items()
    )
    raise ImportError(
        f"another package hides one of gato-ray's: {found}; expected in {ROOT}. Install gato-ray in"
        " an environment of its own (`make setup` in its repository, or `uv tool install` with its"
        " folder or wheel); if the folder is yours, rename it or start elsewhere"
    )


def _foreign(name: str) -> str | None:
    """The file that `import name` runs if it is not ours."""
    ours = ROOT / name / "__init__.py"
    spec = find_spec(name)
    if spec is None or spec.origin is None:  # not there, or a folder without __init__.py
        where = list(spec.submodule_search_locations or ()) if spec is not None else []
        return where[0] if where else "nothing"
    if Path(spec.origin).resolve() != ours.resolve() or _overwritten(ours):
        return spec.origin
    return None


def _overwritten(ours: Path) -> bool:
    """Whether the file differs from the one that was installed. Always false if the project was not
    installed as a wheel."""
    record = next(ROOT.glob(f"{_normal(DISTRIBUTION)}-*.dist-info/RECORD"), None)
    if record is None:
        return False
    prefix = f"{ours.relative_to(ROOT).as_posix()},sha256="
    for line in record.read_text(encoding="utf-8").splitlines():
        if line.startswith(prefix):
            digest = hashlib.sha256(ours.read_bytes()).digest()
            return line.removeprefix(prefix).split(",")[0] != base64.urlsafe_b64encode(
                digest
            ).decode().rstrip("=")
    return False


def _owners(name: str) -> str:
    """Which other distributions have a package of this name, for the message. Reads the metadata of
    all: slow."""
    from importlib import metadata  # only here: it takes longer to import than the check itself

    others = {
        f"{owner} {metadata.version(owner)}"
        for owner in metadata.packages_distributions().get(name, ())
        if _normal(owner) != _normal(DISTRIBUTION)
    }
    return f" (of {', '.join(sorted(others))})" if others else ""


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "_", distribution).lower()


def main() -> None:
    """The command `gato`."""
    try:
        check_packages()
    except ImportError as problem:
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
    from cluster.cli.main import main as command  # only now: it imports all of the packages

    command()
