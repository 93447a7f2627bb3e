"""A group of commands whose modules are imported when one of them is called, not for `--help`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer.main
from typer.core import TyperCommand, TyperGroup


class LazyGroup(TyperGroup):
    """Commands by name, each with its module and the first line of its help.

    A module has a Typer application called `app`, which holds the command.
    """

    MODULES: ClassVar[Mapping[str, str]] = {}
    HELP: ClassVar[Mapping[str, str]] = {}
    GROUPS: ClassVar[frozenset[str]] = frozenset()
    """Names whose module's `app` is a group itself, such as `replay`."""

    _lists_only: bool = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the table, for help and for suggestions."""
        return list(self.MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command itself, or, while names are listed, one that only has its line of help."""
        if cmd_name not in self.MODULES:
            return None
        if self._lists_only:
            return TyperCommand(cmd_name, help=self.HELP[cmd_name])
        group = typer.main.get_group(import_module(self.MODULES[cmd_name]).app)
        return group if cmd_name in self.GROUPS else group.get_command(ctx, cmd_name)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Names of commands for a shell, from the table alone."""
        self._lists_only = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._lists_only = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Help from the table alone."""
        self._lists_only = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._lists_only = False
