"""A run's config as a YAML or TOML file: the only code that reads or writes one."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cluster.runs.config import RunConfig
from cluster.runs.overrides import merge
from gato.files import damaged
from gato.serialization import from_plain, to_plain

SUFFIXES = (".yaml", ".yml", ".toml")
RENAMED: Mapping[tuple[str, ...], str] = {
    ("actors", "teach_share"): "demonstrate_share",
    ("actors", "teach_noise"): "demonstration_noise",
    ("actors", "evaluate", "wished_return"): "target_return",
    ("actors", "generate", "wished_return"): "target_return",
}
"""Settings that had another name when a file may have been written."""
HEADER = """\
# Every setting of run {name}. `gato start FILE` starts a run like it; change a copy, or give
# a file of your own only `preset: {preset}` and the settings that differ.
"""


def is_config_file(text: str) -> bool:
    """Whether `text` names a config file rather than a preset."""
    return text.endswith(SUFFIXES)


def read_config(file: Path) -> RunConfig:
    """The config in a YAML or TOML file, which holds every setting or a `preset` and some.

    Raises:
        ValueError: There is no such file, or it is damaged or holds a wrong setting. The text
            names the file and the setting.
    """
    plain = read_plain(file)
    try:
        return config_from_plain(plain)
    except ValueError as problem:
        raise ValueError(f"{file}: {problem}") from problem


def read_plain(file: Path) -> dict[str, Any]:
    """The mapping in a YAML or TOML file. Raises ValueError, with the file's name, if there is no
    such file or it is damaged."""
    if not file.is_file():
        raise ValueError(
            f"there is no config file {file}; gato config show demo prints one to change"
        )
    return _load(file)


def config_from_plain(plain: Mapping[str, Any]) -> RunConfig:
    """The config that a file's mapping describes. Raises ValueError if a setting is wrong."""
    plain = _with_new_names(dict(plain))
    preset = plain.pop("preset", None)
    if preset is None:
        return from_plain(RunConfig, plain)
    # Here, because a run's own file names no preset, and commands that only look at runs are fast.
    from actors.tasks.resolve import resolve_tasks
    from cluster.runs.presets import FOLLOW_TASKS, find_run_config
    from cluster.runs.task_settings import fit_to_tasks, with_limiter

    base, names = find_run_config(str(preset)), plain.get("tasks")
    if preset not in FOLLOW_TASKS or not isinstance(names, list) or set(names) == set(base.tasks):
        return merge(base, plain)
    tasks, fit = resolve_tasks(*map(str, names)), FOLLOW_TASKS[preset]
    config = merge(fit(base, tasks), plain | {"tasks": list(tasks)})
    if fit is not fit_to_tasks:
        return config
    limiter = plain.get("replay", {}).get("limiter", {})
    return with_limiter(config, told=[f"replay.limiter.{name}" for name in limiter])


def config_to_yaml(config: RunConfig) -> str:
    """Every setting as YAML, which `read_config` reads back as an equal config."""
    header = HEADER.format(name=config.name, preset="demo")
    return header + yaml.dump(
        to_plain(config), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True
    )


def write_config(config: RunConfig, file: Path) -> None:
    """Write the config to a YAML file: whole, or not at all."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    draft.write_text(config_to_yaml(config))
    os.replace(draft, file)


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


def _with_new_names(plain: dict[str, Any]) -> dict[str, Any]:
    for (*parents, old), new in RENAMED.items():
        group: Any = plain
        for name in parents:
            group = group.get(name) if isinstance(group, dict) else None
        if isinstance(group, dict) and old in group:
            group[new] = group.pop(old)
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


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _yaml_1_2()
