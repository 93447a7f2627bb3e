"""What `make docs` would find, as far as it can be found without its tools; and what only we look
for."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from cluster.cli.main import app
from cluster.runs.config import RunConfig
from cluster.runs.presets import RUNS
from docs.commands import commands_page, inner
from docs.generate import GENERATED, leaves, settings_of, settings_page
from gato.serialization import to_plain
from tests.docs.blocks import DOCS, README, ROOT, pages

LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?^ *```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def in_navigation(nav: Any) -> Iterator[str]:
    match nav:
        case str():
            yield nav
        case list():
            for entry in nav:
                yield from in_navigation(entry)
        case dict():
            for entry in nav.values():
                yield from in_navigation(entry)
        case _:
            raise AssertionError(nav)


def test_every_page_is_in_the_navigation_once() -> None:
    listed = list(in_navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    there = [str(page.relative_to(DOCS)) for page in pages()]
    expected = [*there, *(f"reference/{name}" for name in GENERATED)]
    assert sorted(listed) == sorted(expected), "each page of docs/ stands once in nav of mkdocs.yml"


def anchors(text: str) -> set[str]:
    """What headings can be linked by, as Python-Markdown names them."""
    headings = re.findall(r"^#+ +(.+)$", CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", h).strip().lower()) for h in headings}


@pytest.mark.parametrize("page", [README, *pages()], ids=lambda page: str(page.relative_to(ROOT)))
def test_no_relative_link_is_dead(page: Path) -> None:
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target.parent == DOCS / "reference" and target.name in GENERATED:
            continue
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        assert page == README or target.is_relative_to(DOCS), f"{link} leaves the site"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text()), f"{page.name}: no heading for {link}"


def test_every_name_of_the_python_page_exists_and_has_a_docstring() -> None:
    names = re.findall(r"^::: ([\w.]+)$", (DOCS / "reference" / "api.md").read_text(), re.MULTILINE)
    assert len(names) > 30
    for path in names:
        module, _, name = path.rpartition(".")
        assert getattr(import_module(module), name).__doc__, path


def test_the_settings_page_has_every_setting_of_every_run() -> None:
    page = settings_page()
    shown = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    for config in RUNS.values():
        for path, value in leaves(to_plain(config)):
            generic = re.sub(r"^(replay\.mix\.tables)\.[^.]+", r"\1.NAME", path)
            generic = re.sub(r"\.[a-z0-9-]+/[a-z0-9-]+(\?[a-z_]+=\w+)?", ".TASK", generic)
            known = {generic, f"{generic}.TASK"} if value in ({}, []) else {generic}
            assert known & shown, f"{path} of {config.name} is not on the page"


def test_every_row_of_settings_says_type_and_default() -> None:
    for _, _, plain in settings_of(RunConfig):
        assert plain
        for setting in plain:
            assert setting.type
            assert "object at 0x" not in setting.default
    by_path = {s.path: s for _, _, plain in settings_of(RunConfig) for s in plain}
    assert by_path["learner.max_rate"].default == "0.0001"
    assert by_path["actors.generate.discrete"].default == "sample"  # ActorsConfig's own default
    assert by_path["actors.evaluate.discrete"].default == "argmax"
    assert by_path["learner.bf16"].about.startswith("Autocast to bfloat16")
    assert by_path["model.width"].default == "the run's"


def test_the_commands_page_has_every_command_and_every_option() -> None:
    page = commands_page()

    def check(command: Any, words: str) -> int:
        subcommands = inner(command)
        for name, sub in subcommands:
            check(sub, f"{words} {name}")
        if not subcommands:
            (section,) = re.findall(
                rf"^##+ {re.escape(words)}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL
            )
            for parameter in command.params:
                name = parameter.opts[0]
                assert name in section or name.upper() in section, f"{words} {name}"
                assert not parameter.help or parameter.help.split(".")[0][:30] in section
        return len(subcommands)

    assert check(get_command(app), "gato") > 10
    assert "[bold]" not in page
