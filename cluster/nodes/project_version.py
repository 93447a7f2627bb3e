"""The version of this project, by its installed metadata."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def project_version() -> str:
    """The version of this project; "unknown" where it is not installed."""
    try:
        return version("gato-ray")
    except PackageNotFoundError:
        return "unknown"
