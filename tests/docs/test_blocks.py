"""Every block of code in README.md and docs/ is run, or says why it is not.

A `gato start` of anything but the debug run is checked up to the moment that Ray would start;
blocks marked `slow` are run to their end by the slow test. Pages name the run `debug` or `demo`:
both are one debug run here.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import README, ROOT, SHELL, Block, blocks_of, pages
from tests.docs.shell import (
    RUN,
    check_start,
    gato,
    is_live,
    live_run,
    modules_of,
    name_of,
    on_our_run,
    parse,
    run,
    script,
)

pytestmark = pytest.mark.timeout(900)
NOT_RUN = {
    "GPU": 2,
    "a server": 3,
    "a follower": 3,
    "excerpt": 2,
    "installs": 4,
    "long": 3,
    "needs easy-vqa": 1,
    "needs runs of several seeds": 1,
    "needs wandb": 1,
    "recipe": 9,
    "several machines": 11,
    "your file": 7,
}
"""Blocks of docs/ that are not run, by reason. One more is a decision: change the number with
it."""
LOOKS = (
    "runs",
    "config show",
    "status",
    "watch",
    "replay ls",
    "replay stats",
    "replay verify",
    "replay provenance",
)
"""Commands of the README that only look at the run, and are run."""
LANGUAGES = {*SHELL, "python", "text", "json", "toml", "yaml"}
PAGES = [page for page in pages() if blocks_of(page)]
STARTS_RUN = "gato_ray.start("
"""Python of the README with this is left to the slow test."""
Live = dict[tuple[str, ...], tuple[int, str]]


def live_commands() -> list[tuple[str, ...]]:
    """Of all pages, each once; the one that stops the run is not among them."""
    blocks = [
        b
        for page in [README, *PAGES]
        for b in blocks_of(page)
        if b.language in SHELL and not b.mark
    ]
    words = dict.fromkeys(on_our_run(words) for block in blocks for words in block.commands)
    return [command for command in words if is_live(command) and name_of(command) != "stop"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the runs and data sets of all pages."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATO_RUNS", str(folder / "runs"))
        patch.setenv("COLUMNS", "120")
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def live(here: Path) -> Live:
    """What the commands that need a live run answered. The run is stopped when a test sees them."""
    answers: Live = {}
    with live_run(here):
        for words in live_commands():
            answers[words] = gato(words)
        answers["gato", "stop", RUN] = gato(["gato", "stop", RUN])
    return answers


def needs_run(page: Path) -> bool:
    """Whether a block that is run looks at the run, or changes it."""
    blocks = [block for block in blocks_of(page) if not block.mark]
    python = any(
        RUN in block.body or "demo" in block.body for block in blocks if block.language == "python"
    )
    commands = [
        words for block in blocks if block.language in SHELL for words in block.commands if words
    ]
    return python or any(
        words[0] == "gato"
        and (name_of(words) != "start" or "--from" in words)
        and (is_live(words) or RUN in on_our_run(words))
        for words in commands
    )


def answer_to(words: list[str]) -> tuple[str, ...]:
    """Under which words `live` has the answer: the run is stopped once, whatever it is called."""
    return ("gato", "stop", RUN) if name_of(words) == "stop" else on_our_run(words)


def shell_line(words: list[str], live: Live, folder: Path) -> None:
    """Run one line of a page of docs/."""
    if words[0] == "python":
        script(words[1:], folder)
        return
    assert words[0] == "gato", f"{' '.join(words)} cannot be run here; mark the block as not run"
    parse(words)
    if words == ["gato", "start", RUN] or name_of(words) == "resume":
        return  # the run of these tests; the slow test resumes one
    if name_of(words) == "start":
        check_start(words)
    elif is_live(words):
        status, out = live[answer_to(words)]
        assert status == 0, f"{' '.join(words)}: exit status {status}\n{out}"
    else:
        run(on_our_run(words))


def python_block(block: Block, folder: Path) -> None:
    if block.title:
        (folder / block.title).write_text(block.body)
        script([block.title], folder)
    else:
        script(["-c", re.sub(r"([\"'])demo\1", f'"{RUN}"', block.body)], folder)


def read_only(block: Block) -> None:
    """What can be said of a block that is not run: its Python compiles, its `gato` lines are
    taken."""
    if block.language == "python":
        compile(block.body, str(block), "exec")
    elif block.language in SHELL:
        for words in block.commands:
            if words[0] == "gato":
                parse(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_in_order(
    page: Path,
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    live: Live = request.getfixturevalue("live") if needs_run(page) else {}
    monkeypatch.chdir(tmp_path)
    with modules_of(tmp_path):
        for block in blocks_of(page):
            assert block.language in LANGUAGES, f"{block}: say of what language it is"
            try:
                if block.reason:
                    read_only(block)
                elif block.language == "python":
                    python_block(block, tmp_path)
                elif block.language in SHELL:
                    for words in block.commands:
                        if block.mark == "slow" and name_of(words) != "start":
                            parse(words)
                        else:
                            shell_line(words, live, tmp_path)
            except Exception as problem:
                raise AssertionError(f"{block}: {problem}") from problem


def test_what_the_readme_shows_runs_as_far_as_it_is_cheap(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in blocks_of(README):
        try:
            if block.mark or block.language not in SHELL:
                if block.language == "python" and not (block.mark or STARTS_RUN in block.body):
                    python_block(block, tmp_path)
                read_only(block)
                continue
            for words in block.commands:
                if words[0] == "make":
                    assert set(words[1:]) <= targets | {w for w in words if "=" in w}
                elif words[0] == "gato":
                    readme_line(words, live)
        except Exception as problem:
            raise AssertionError(f"{block}: {problem}") from problem


def readme_line(words: list[str], live: Live) -> None:
    """Take one line, and run it if it needs nothing but the run."""
    parse(words)
    needs_more = {"--task", "--data", "--teacher", "--text", "--normalise", "--source"} & set(words)
    if is_live(words):
        status, out = live[answer_to(words)]
        assert status == 0, f"{' '.join(words)}: exit status {status}\n{out}"
    elif name_of(words) == "start" and not needs_more:
        check_start(words)
    elif name_of(words) in LOOKS and not needs_more:
        run(on_our_run(words))


def test_what_is_not_run_says_why_and_is_counted() -> None:
    reasons = Counter(block.reason for page in PAGES for block in blocks_of(page) if block.reason)
    assert reasons == NOT_RUN


def test_no_block_and_no_mark_is_overlooked() -> None:
    for page in [README, *PAGES]:
        text, blocks = page.read_text(), blocks_of(page)
        assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(blocks), page.name
        marks = re.findall(r"^ *<!-- (?:not run|slow)", text, re.MULTILINE)
        assert len(marks) == sum(bool(block.mark) for block in blocks), page.name


def test_no_code_is_outside_of_a_fence() -> None:
    """An indented block would not be run."""
    for page in PAGES:
        text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for line in re.findall(r"(?<=\n\n)( {4,}\S.*)", text):
            assert not re.match(r" +(gato|python|from|import|def) ", line), f"{page.name}: {line}"


@pytest.mark.slow
def test_python_of_the_readme_that_starts_a_run_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    for block in blocks_of(README):
        if block.language == "python" and STARTS_RUN in block.body and not block.mark:
            python_block(block, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.mark == "slow" for block in blocks_of(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_slow_blocks_run_with_all_before_them(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    for block in blocks_of(page):
        if block.reason:
            continue
        if block.language == "python":
            python_block(block, tmp_path)
        elif block.language in SHELL:
            for words in block.commands:
                if not is_live(words):
                    command = [sys.executable, "-m", "cluster.cli.main", *words[1:]]
                    script(command[1:], tmp_path)
