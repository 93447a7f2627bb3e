"""Blocks of code in Markdown, with what is said of them in the comment before.

<!-- not run: long -->       tests only read it: every `gato` line must be one that the command line
takes
<!-- slow -->                the fast test reads it, the slow one runs it
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
FENCE = re.compile(
    r"(?:^ *<!-- (?P<mark>not run: [^>]+?|slow) -->\n)?"
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
SHELL = ("", "sh", "bash", "console")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str
    """The name of the file that it is, empty for others."""
    mark: str
    """The comment before it: slow, or the reason why it is not run after `not run: `."""
    body: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def reason(self) -> str:
        """Why it is not run; empty if it is."""
        return self.mark.partition(": ")[2]

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block, without comments; `> FILE` is last."""
        lines = self.body.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        commands = [shlex.split(part) for line in lines for part in _parts(line)]
        return [words for words in commands if words]


def _parts(line: str) -> list[str]:
    """What `&&` joins, without the comment."""
    return shlex.join(shlex.split(line, comments=True)).replace("'>'", ">").split(" '&&' ")


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    found: list[Block] = []
    for match in FENCE.finditer(text):
        language, _, rest = match["info"].strip().partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        indent = len(match["indent"])
        found.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.start("info")) + 1,
                language=language,
                title=title[1] if title else "",
                mark=match["mark"] or "",
                body="".join(line[indent:] for line in match["body"].splitlines(keepends=True)),
            )
        )
    return found


def pages() -> list[Path]:
    """All pages in git's folder `docs`; those that are generated are left out."""
    generated = {DOCS / "reference" / name for name in ("settings.md", "commands.md", "tasks.md")}
    return sorted(set(DOCS.rglob("*.md")) - generated)
