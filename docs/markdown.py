"""Text for the cells of Markdown tables."""

from __future__ import annotations


def code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def cell(text: str) -> str:
    """Text for the cell of a table."""
    return text.replace("|", "\\|")
