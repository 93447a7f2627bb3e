"""Reads RL-Zoo's files next to a policy, for what they say of its environment.

config.yml, args.yml and env_kwargs.yml are YAML with tags that make Python objects. They are read
as lines of text, and no tag is followed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gato.compatibility.environment import EnvDescription, Wrapper

MOST_TEXT_BYTES = 2**20
FILES = ("config.yml", "args.yml", "env_kwargs.yml")
NOTHING = frozenset({"", "null", "None", "none", "~", "{}", "[]", "false", "False"})
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooSettings:
    """What the files say. Empty or None: they do not say it."""

    env_id: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    wrappers: tuple[Wrapper, ...] = ()
    normalises: bool | None = None
    """Whether observations were normalised."""
    frame_stack: int = 1
    notes: tuple[str, ...] = ()

    def described(self, where: str) -> EnvDescription:
        return EnvDescription(
            where=where, env_id=self.env_id, kwargs=self.kwargs, wrappers=self.wrappers
        )


def folders_beside(policy: Path, env_id: str) -> list[Path]:
    """The folders where RL-Zoo stores a policy's files: its own, and those named after it or after
    its environment."""
    name = re.sub(r"-v\d+$", "", env_id.replace("/", "-"))
    named = sorted(policy.parent.glob(f"{re.sub(r'[*?[]', '?', name)}-v*"))
    return list(
        dict.fromkeys(
            [policy.parent, policy.parent / policy.stem, *(path for path in named if path.is_dir())]
        )
    )


def read_zoo(folders: Sequence[Path]) -> ZooSettings:
    """The settings of the files in `folders`; a file that cannot be read is noted."""
    values: dict[str, str] = {}
    notes: list[str] = []
    for path in (folder / name for folder in folders for name in FILES):
        if not path.is_file():
            continue
        entries = _entries(path)
        if entries is None:
            notes.append(
                f"noted: {path} cannot be read, so what it says of the environment is not known"
            )
            continue
        if path.name == "env_kwargs.yml":
            entries = {"env_kwargs": "\n".join(f"{key}: {value}" for key, value in entries.items())}
        for key, value in entries.items():
            if value.strip() not in NOTHING or key not in values:
                values[key] = value.strip()
    stack, env_id = values.get("frame_stack", ""), values.get("env", "").strip("'\"")
    wrappers = [
        *_wrappers(values.get("env_wrapper", "")),
        *_wrappers(values.get("vec_env_wrapper", "")),
    ]
    return ZooSettings(
        env_id=env_id if re.fullmatch(r"[\w./:-]+", env_id) and env_id not in NOTHING else "",
        kwargs=_keywords(values.get("env_kwargs", "")),
        wrappers=tuple(wrappers),
        normalises=_normalises(values),
        frame_stack=int(stack) if stack.isdigit() else 1,
        notes=tuple(notes),
    )


def _entries(path: Path) -> dict[str, str] | None:
    """Keys and the text of their values, of plain mappings and of lists of pairs, which is how an
    OrderedDict is dumped. None if the file cannot be read."""
    try:
        if path.stat().st_size > MOST_TEXT_BYTES:
            return None
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    lines = [
        line for line in lines if line.strip() and not line.lstrip().startswith(("!!", "#", "---"))
    ]
    if not lines or lines == ["{}"]:
        return {}
    pair = re.compile(r"(\s*(?:- )*- - )([A-Za-z_]\w*)\s*$")
    first = pair.match(lines[0])
    key_of = pair if first else re.compile(r"()([A-Za-z_]\w*):(?:\s|$)")
    column = len(first[1]) if first else 0
    found: dict[str, list[str]] = {}
    key = ""
    for line in lines:
        match = key_of.match(line)
        if match and len(match[1]) == column:
            key = match[2]
            found[key] = [line[match.end() :]] if not first else []
        elif not key:
            return None
        elif first and not found[key]:
            found[key].append(re.sub(r"^\s*- ?", "", line))
        else:
            found[key].append(line)
    return {key: "\n".join(value) for key, value in found.items()}


def _wrappers(text: str) -> list[Wrapper]:
    """Wrappers of lines such as `- rl_zoo3.wrappers.HistoryWrapper: {horizon: 2}`. Keywords are not
    read: an unknown wrapper is rejected by its name."""
    if text in NOTHING:
        return []
    names = DOTTED.findall(text) or [text.split()[0].strip("-:'\"") or text]
    return [
        Wrapper(name=name.rpartition(".")[2], entry_point=name if "." in name else "")
        for name in names
    ]


def _keywords(text: str) -> dict[str, Any]:
    """Keywords of lines such as `frame_skip: 4`, or of `{'frame_skip': 4}`. Anything else becomes a
    keyword without a value, which is rejected."""
    if text in NOTHING:
        return {}
    kwargs: dict[str, Any] = {}
    for part in re.split(r"\n|,(?![^\[(]*[\])])", text.strip().removeprefix("{").removesuffix("}")):
        name, colon, value = part.partition(":")
        name = name.strip().lstrip("- ").strip("'\"")
        if name:
            kwargs[name] = _scalar(value) if colon else None
    return kwargs


def _scalar(text: str) -> Any:
    plain = text.strip().strip("'\"")
    word = {"True": "true", "False": "false", "None": "null"}.get(plain, plain)
    try:
        return json.loads(word)
    except ValueError:
        return plain


def _normalises(values: Mapping[str, str]) -> bool | None:
    if "normalize" not in values:
        return None
    both = f"{values['normalize']} {values.get('normalize_kwargs', '')}"
    leaves_out = re.search(r"norm_obs['\"]?\s*[:=]\s*false", both, re.IGNORECASE)
    return values["normalize"] not in NOTHING and not leaves_out
