"""A config file's text as a plain mapping, before any setting is checked: `gato runs` and shells
that complete names need no more, and start without numpy."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gato.files import damaged

SUFFIXES = (".yaml", ".yml", ".toml")


def is_config_file(text: str) -> bool:
    """Whether `text` names a config file rather than a preset."""
    return text.endswith(SUFFIXES)


def read_plain(file: Path) -> dict[str, Any]:
    """The mapping in a YAML or TOML file. Raises ValueError, with the file's name, if there is no
    such file or it is damaged."""
    if not file.is_file():
        raise ValueError(
            f"there is no config file {file}; gato config show demo prints one to change"
        )
    return _load(file)


def _load(file: Path) -> dict[str, Any]:
    fix = "correct the file, or print a whole one with gato config show"
    try:
        text = file.read_text()
        plain = tomllib.loads(text) if file.suffix == ".toml" else yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as problem:
        said = " ".join(str(problem).split())
        raise damaged(file, said, fix=fix) from problem
    if not isinstance(plain, dict):
        raise damaged(file, f"expected a mapping of settings, got {type(plain).__name__}", fix=fix)
    return plain


FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
BOOL = r"true|True|TRUE|false|False|FALSE"


def _yaml_1_2() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's resolvers with YAML 1.2's numbers and booleans: 1e-3 is a number, `on` is text."""
    resolvers = {
        first: [pair for pair in pairs if not pair[0].endswith((":bool", ":float"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for kind, pattern, begins in (("bool", BOOL, "tTfF"), ("float", FLOAT, "-+.0123456789")):
        for first in begins:
            pair = (f"tag:yaml.org,2002:{kind}", re.compile(f"({pattern})$"))
            resolvers.setdefault(first, []).append(pair)
    return resolvers


if TYPE_CHECKING:
    _Base = yaml.SafeLoader
else:  # in C where PyYAML was built with it: ten times as fast
    _Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    yaml_implicit_resolvers = _yaml_1_2()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; a key that appears twice is an error, not the last one of them."""
        keys: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} is set twice", problem_mark=key_node.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep=deep)


class Dumper(yaml.SafeDumper):
    """Writes what `read_plain` reads back."""

    yaml_implicit_resolvers = _yaml_1_2()
