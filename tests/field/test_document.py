"""docs/compatibility.md lists each report that a test rebuilds, with that test, and no other."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "compatibility.md").read_text()
ROW = re.compile(
    r"^\| \[([\w.-]+/[\w.-]+#\d+)\]\((https://github\.com/[^)]+)\) \| .+? \| (.+?) \|$",
    re.MULTILINE,
)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def marked() -> dict[str, set[tuple[str, str]]]:
    """Reports to the tests that are marked with them, found by reading the tests."""
    found: dict[str, set[tuple[str, str]]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.report":
                    for name in call.args:
                        test = (str(path.relative_to(ROOT)), node.name)
                        found.setdefault(ast.literal_eval(name), set()).add(test)
    return found


def listed() -> dict[str, set[tuple[str, str]]]:
    """Reports to the tests that the document names."""
    return {report: set(TEST.findall(tests)) for report, _, tests in ROW.findall(DOCUMENT)}


def test_each_report_stands_beside_the_tests_that_rebuild_it() -> None:
    assert len(listed()) > 30
    assert listed() == marked()


def test_each_link_is_of_its_report() -> None:
    for report, link, _ in ROW.findall(DOCUMENT):
        repository, _, number = report.partition("#")
        assert re.fullmatch(
            rf"https://github\.com/{re.escape(repository)}/(issues|pull)/{number}", link
        )


def test_each_file_that_the_document_names_exists() -> None:
    for name in set(
        re.findall(r"`((?:tests|gato|replay|actors|cluster|docs)/[\w/.-]+\.(?:py|md))`", DOCUMENT)
    ):
        assert (ROOT / name).is_file(), name
