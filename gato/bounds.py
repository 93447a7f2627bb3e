"""Bounds of settings that are numbers."""

from __future__ import annotations


def require_at_least(least: int, settings: object, *names: str) -> None:
    """ValueError if one of these settings is smaller; those that are None are left out."""
    for name in names:
        value = getattr(settings, name)
        # Written so that nan, for which every comparison is false, is rejected too.
        if value is not None and not value >= least:
            raise ValueError(f"{name} {value} must be at least {least}")
