"""The page of commands, from the command line itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from cluster.cli.main import app
from docs.markdown import cell, code


def commands(group: Any, words: str = "gato") -> Iterator[tuple[str, Any]]:
    """All commands by the words that are typed; of a group, also its own."""
    yield words, group
    for name, command in inner(group):
        yield from commands(command, f"{words} {name}")


def inner(command: Any) -> list[tuple[str, Any]]:
    """The commands of a group, which are imported for it; none of a plain command."""
    if not hasattr(command, "list_commands"):
        return []
    context = command.make_context(command.name, [], resilient_parsing=True)
    return [(name, command.get_command(context, name)) for name in command.list_commands(context)]


def prose(text: str | None) -> str:
    """Help as Markdown: the example in a block of its own, bold names as code."""
    text = inspect.cleandoc(text or "")
    text = re.sub(
        r"^Example: \[bold\](.*?)\[/bold\]$",
        "Example:\n\n```sh\n" + r"\1" + "\n```",
        text,
        flags=re.MULTILINE,
    )
    return re.sub(r"\[bold\](.*?)\[/bold\]", r"`\1`", text)


FORMS = {
    "str": "TEXT",
    "list[str]": "TEXT",
    "path": "PATH",
    "int": "N",
    "int range": "N",
    "float": "X",
}
"""What stands for a value, by its type."""


def parameter_row(parameter: Any, context: Any) -> str:
    """One row of a command's table."""
    kind = parameter.get_usage_pieces(context)
    is_argument = parameter.param_type_name == "argument"
    if is_argument:
        shown = (parameter.metavar or kind[0]).strip("[]{}").upper()
    elif parameter.is_flag:
        shown = ", ".join(parameter.opts)
    else:
        form = parameter.metavar or parameter.display_type(context).strip("<>")
        shown = f"{', '.join(parameter.opts)} {FORMS.get(form, form)}"
    default = parameter.default
    is_plain = default is None or default is False or default == ""
    about = parameter.help or ""
    return f"| {code(shown)} | {'' if is_plain else code(str(default))} | {cell(about)} |"


def usage_of(words: str, command: Any, context: Any) -> str:
    """What is typed: the words, options, arguments."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    names = [(p.metavar or p.get_usage_pieces(context)[0]).strip("[]{}").upper() for p in arguments]
    shown = [name if p.required else f"[{name}]" for p, name in zip(arguments, names, strict=True)]
    options = ["[OPTIONS]"] if len(arguments) < len(command.params) else []
    return " ".join([words, *options, *shown])


def commands_page() -> str:
    """docs/reference/commands.md."""
    root = get_command(app)
    lines = [
        "# Commands",
        "",
        (
            f"{root.help} Every command says the same with `--help`. A mistake ends with one line"
            " and exit status 2."
        ),
        "",
    ]
    for words, command in commands(root):
        if hasattr(command, "list_commands"):
            if words != "gato":
                lines += [f"## {words}", "", prose(command.help), ""]
            continue
        context = command.make_context(words, [], resilient_parsing=True)
        usage = usage_of(words, command, context)
        lines += [
            f"{'###' if words.count(' ') > 1 else '##'} {words}",
            "",
            prose(command.help),
            "",
            f"`{usage}`",
            "",
        ]
        if command.params:
            lines += ["| argument or option | default | what it does |", "|---|---|---|"]
            lines += [parameter_row(parameter, context) for parameter in command.params]
        lines += ["", prose(command.epilog), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"
