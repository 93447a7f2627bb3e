"""The files at the top of the repository agree with each other."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from benchmarks import coverage_page

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def from_yaml(name: str) -> dict[Any, Any]:
    return yaml.safe_load((ROOT / name).read_text())


def recipe(target: str) -> list[str]:
    """The commands of a target of the Makefile."""
    found = re.search(
        rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert found, f"no target {target}"
    return [line.strip() for line in found[1].splitlines()]


def test_the_hooks_of_pre_commit_are_the_commands_of_make_check() -> None:
    hooks = from_yaml(".pre-commit-config.yaml")["repos"][0]["hooks"]
    assert all(hook["language"] == "system" for hook in hooks)
    ours = [hook["entry"].removesuffix(" --force-exclude") for hook in hooks]
    checks = [re.sub(r" --check\b| \.$", "", line) for line in recipe("check")]
    checks = [re.sub(r" \.$", "", line).replace("$(BIN)", ".venv/bin") for line in checks]
    assert ours == checks


def test_the_workflow_calls_what_continuous_integration_runs_and_targets_that_exist() -> None:
    jobs = from_yaml(".github/workflows/ci.yml")["jobs"]
    words = {step["run"] for job in jobs.values() for step in job["steps"] if "run" in step}
    assert "bash .ci/run" in words
    targets = {word.removeprefix("make ") for word in words if word.startswith("make ")}
    assert targets == {"docs", "test-slow", "test-browser", "coverage"}
    assert all(recipe(target) for target in targets)


def test_the_workflow_has_the_versions_of_python_that_are_declared() -> None:
    matrix = from_yaml(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    declared = [c.rsplit(" ", 1)[1] for c in PROJECT["project"]["classifiers"] if ":: 3." in c]
    assert matrix == declared
    assert PROJECT["project"]["requires-python"] == f">={matrix[0]}"


def test_the_citation_has_the_version_of_the_project() -> None:
    cited = from_yaml("CITATION.cff")
    assert (cited["title"], str(cited["version"])) == (
        PROJECT["project"]["name"],
        PROJECT["project"]["version"],
    )


def test_the_sections_of_the_changelog_are_dated_newest_first() -> None:
    titles = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "Unreleased"
    dates = [re.sub(r"^\[.*\] - ", "", title) for title in titles[1:]]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for date in dates)
    assert dates == sorted(dates, reverse=True)


def test_every_package_that_is_shipped_is_checked_measured_and_marked_as_typed() -> None:
    tool = PROJECT["tool"]
    shipped = set(tool["coverage"]["run"]["source_pkgs"])
    assert shipped == set(tool["importlinter"]["root_packages"]) - {"benchmarks"}
    assert shipped == set(tool["pyright"]["include"]) - {"benchmarks", "docs", "examples"}
    assert all((ROOT / name / "py.typed").is_file() for name in shipped)


def test_coverage_is_summed_by_folder_and_put_in_its_section() -> None:
    def summary(lines: int, covered: int) -> dict[str, Any]:
        keys = ("num_statements", "covered_lines", "num_branches", "covered_branches")
        return {"summary": dict(zip(keys, (lines, covered, 10, 5), strict=True))}

    report = {
        "meta": {"version": "7"},
        "files": {"a/x.py": summary(30, 30), "a/y.py": summary(10, 0), "b/z.py": summary(60, 60)},
    }
    text = coverage_page.section(report, commit="abc", date="2026-11-28")
    assert "| `a` | 40 | 75.0 % | 20 | 50.0 % |" in text
    assert "| **all** | 100 | 90.0 % | 30 | 50.0 % |" in text
    page = f"before\n{coverage_page.BEGIN}\nold\n{coverage_page.END}\nafter\n"
    assert coverage_page.replaced(page, text) == f"before\n{text}\nafter\n"
    coverage_page.replaced(coverage_page.PAGE.read_text(), text)
