"""Writes the pages of the reference that follow from the code: settings from the dataclasses,
commands from the command line, tasks from the catalogue.

python -m docs.generate            # settings.md, commands.md and tasks.md of docs/reference, which
                                   # git ignores; `make docs` runs it
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from cluster.runs.config import RunConfig
from cluster.runs.overrides import GENERAL_OF
from cluster.runs.presets import RUNS
from docs.commands import commands_page
from docs.markdown import cell, code
from docs.tasks_page import tasks_page
from gato.config import PRESETS
from gato.serialization import to_plain

REFERENCE = Path(__file__).resolve().parent / "reference"
GENERATED = ("settings.md", "commands.md", "tasks.md")
KEYS = {"tables": "NAME", "normalise": "TASK.ARRAY"}
"""What the keys of a mapping are, where they are not the names of tasks."""
NO_PATH = ("model.normalise",)
"""Statistics that `gato start --normalise` computes; nobody types them."""

OF_RUN = "the run's"
"""The default of a setting that each preset gives."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One field of the dataclasses that make a run."""

    path: str
    """As `--set` takes it."""
    type: str
    default: str
    about: str


# Settings


def field_docs(config: type) -> dict[str, str]:
    """The string under each field of a dataclass; empty where there is none."""
    (body,) = ast.parse(inspect.cleandoc(inspect.getsource(config))).body
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    name = ""
    for statement in body.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)):
                docs[name] = ""
            case ast.Expr(value=ast.Constant(value=str(text))) if name:
                docs[name] = " ".join(text.split())
            case _:
                name = ""
    return docs


def own_docs(config: type) -> str:
    """The first paragraph of a dataclass's docstring."""
    return " ".join((inspect.getdoc(config) or "").split("\n\n")[0].split())


def nested(hint: Any) -> tuple[type | None, bool]:
    """The dataclass that a field holds, if it does, and whether it holds a mapping of them."""
    if get_origin(hint) is Mapping:
        value = get_args(hint)[-1]
        return (value if isinstance(value, type) and is_dataclass(value) else None), True
    return (hint if isinstance(hint, type) and is_dataclass(hint) else None), False


def shown_default(value: Any) -> str:
    """A default as `--set` takes it (JSON); empty for an empty mapping."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | Mapping):
        return json.dumps(to_plain(value)) if value else ""
    return (
        f"{value:,}".replace(",", "_")
        if isinstance(value, int) and abs(value) >= 10_000
        else str(value)
    )


def shown_type(annotation: str) -> str:
    """The annotation in a reader's words: the alternatives of a Literal, `or` for unions."""
    annotation = re.sub(
        r"Literal\[(.*?)\]", lambda found: found[1].replace("'", "").replace('"', ""), annotation
    )
    return re.sub(r"\bNone\b", "null", annotation.replace(" | ", " or "))


def settings_of(
    config: type, prefix: str = "", given: Any = None
) -> Iterator[tuple[type, str, list[Setting]]]:
    """Each dataclass of a run with its path and its plain fields, the outermost first. `given`: the
    value that holds its defaults, where the field that it is in has one."""
    hints, docs = get_type_hints(config), field_docs(config)
    defaults = {field.name: default_of(field, given) for field in fields(config)}
    plain: list[Setting] = []
    inner: list[tuple[type, str, Any]] = []
    for field in fields(config):
        path, default = f"{prefix}{field.name}", defaults[field.name]
        held, is_mapping = nested(hints[field.name])
        keyed = f"{path}.{KEYS.get(field.name, 'TASK')}"
        if held is not None and path not in NO_PATH:
            like = defaults.get(GENERAL_OF.get(field.name, ""), MISSING) if is_mapping else default
            path_within = f"{keyed}." if is_mapping else f"{path}."
            inner.append((held, path_within, None if like is MISSING else like))
        if held is None or is_mapping:
            is_table = held is None and is_mapping and path not in NO_PATH
            plain.append(
                Setting(
                    path=keyed if is_table else path,
                    type=shown_type(str(field.type)),
                    default=OF_RUN if default is MISSING else shown_default(default),
                    about=docs.get(field.name, ""),
                )
            )
    yield config, prefix, plain
    for held, path_within, like in inner:
        yield from settings_of(held, path_within, like)


def default_of(field: Field[Any], given: Any) -> Any:
    """A field's value in `given`, else its default; MISSING where it has none."""
    if given is not None:
        return getattr(given, field.name)
    return field.default_factory() if field.default_factory is not MISSING else field.default


def settings_page() -> str:
    """docs/reference/settings.md."""
    lines = [
        "# Settings",
        "",
        (
            "Every setting of a run, from the dataclass `cluster.runs.config.RunConfig` and those"
            " in it. Change one with `--set PATH=VALUE`; the value is JSON, and text needs no"
            " quotes. `gato config show RUN` prints those of a run. A default that is *the run's*"
            " is given by each preset; the last table has them. TASK stands for the name of a task,"
            " NAME for one that you choose."
        ),
        "",
    ]
    for config, prefix, plain in settings_of(RunConfig):
        lines += [
            f"## {prefix.rstrip('.') or 'The run'}",
            "",
            f"`{config.__name__}`: {own_docs(config)}",
            "",
        ]
        lines += ["| setting | type | default | what it does |", "|---|---|---|---|"]
        lines += [
            f"| `{s.path}` | {code(s.type)} | {shown(s.default)} | {cell(s.about)} |" for s in plain
        ]
        lines.append("")
    lines += ["## Presets", "", "What `gato start` can be given, and where they differ.", ""]
    lines += [f"- `{name}`: {cell(config.about)}" for name, config in RUNS.items()]
    lines += ["", f"| setting | {' | '.join(RUNS)} |", "|---|" + "---|" * len(RUNS)]
    flat = {name: dict(leaves(to_plain(config))) for name, config in RUNS.items()}
    paths = dict.fromkeys(path for values in flat.values() for path in values)
    for path in paths:
        row = [shown_default(values[path]) if path in values else "" for values in flat.values()]
        if path not in ("name", "about") and len(set(row)) > 1:
            lines.append(f"| `{path}` | {' | '.join(map(code, row))} |")
    lines += [
        "",
        "## Sizes of the model",
        "",
        "`gato.config.PRESETS`, which the presets of runs are made of.",
        "",
    ]
    shapes = {name: dict(leaves(to_plain(model))) for name, model in PRESETS.items()}
    lines += [f"| setting | {' | '.join(shapes)} |", "|---|" + "---|" * len(shapes)]
    for path in next(iter(shapes.values())):
        row = [shown_default(values.get(path)) for values in shapes.values()]
        if len(set(row)) > 1:
            lines.append(f"| `model.{path}` | {' | '.join(map(code, row))} |")
    return "\n".join(lines) + "\n"


def leaves(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Paths and values of all settings of a run as JSON."""
    for name, value in plain.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def shown(default: str) -> str:
    return "*the run's*" if default == OF_RUN else code(default)


def write(folder: Path = REFERENCE) -> None:
    """Write the pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = (settings_page(), commands_page(), tasks_page())
    for name, page in zip(GENERATED, pages, strict=True):
        (folder / name).write_text(page)


if __name__ == "__main__":
    write()
