"""docs/paper.md names tests and files that exist, and every test of this folder."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "paper.md").read_text()
NAMED = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENT))


def names_in(path: Path) -> set[str]:
    """Names of a file's tests, found by reading it."""
    functions = [
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    return {function.name for function in functions if function.name.startswith("test_")}


def test_every_test_that_the_document_names_exists() -> None:
    """Each statement's test can be run by the name that is given there."""
    assert len(NAMED) > 80
    missing = [
        f"{file}::{name}" for file, name in sorted(NAMED) if name not in names_in(ROOT / file)
    ]
    assert missing == []


def test_every_test_of_the_suite_is_in_the_document() -> None:
    """Every test of the suite is named in the document."""
    folder = Path(__file__).parent
    all_tests = {
        (f"tests/paper/{path.name}", name)
        for path in folder.glob("test_*.py")
        for name in names_in(path)
    }
    assert sorted(all_tests - NAMED) == []


def test_every_file_that_the_document_names_exists() -> None:
    """Code and decisions are where the document says."""
    files = set(re.findall(r"`((?:gato|learner|actors|replay)/\w+\.py)`", DOCUMENT))
    files |= {f"docs/{link}" for link in re.findall(r"\]\((adr/[\w-]+\.md)\)", DOCUMENT)}
    assert len(files) > 12
    assert [file for file in sorted(files) if not (ROOT / file).is_file()] == []
