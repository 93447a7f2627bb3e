"""A config file's text as a plain mapping, before any setting is checked: `gato runs` and shells
that complete names need no more, and start without numpy."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gato.files import damaged

MERGE = "tag:yaml.org,2002:merge"
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
INT = r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+"
BOOL = r"true|True|TRUE|false|False|FALSE"


def _yaml_1_2() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's resolvers with YAML 1.2's numbers and booleans: 1e-3 is a number, 0100 is a hundred,
    `on`, 1:40 and 2026-11-28 are text. Besides, 1_000 is a number."""
    replaced = (":bool", ":float", ":int", ":timestamp")
    resolvers = {
        first: [pair for pair in pairs if not pair[0].endswith(replaced)]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    digits = "0123456789"
    for kind, pattern, begins in (
        ("bool", BOOL, "tTfF"),
        ("int", INT, f"-+{digits}"),
        ("float", FLOAT, f"-+.{digits}"),
    ):
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
        """A mapping; a key that appears twice is an error, not the last one of them. Those of `<<`
        give way to others."""
        keys: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="the name of a setting must be text", problem_mark=key_node.start_mark
                )
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} is set twice", problem_mark=key_node.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number of YAML 1.2, where a leading 0 means nothing."""
        text = str(self.construct_scalar(node))
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class Dumper(yaml.SafeDumper):
    """Writes what `read_plain` reads back."""

    yaml_implicit_resolvers = _yaml_1_2()
