"""`gato doctor`: of each package that a user may ask for, whether it is installed, imports and
steps, and what stands in for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.cli.doctor.checks import CHECKS, Check
from cluster.cli.options import command_group, console
from cluster.monitor.format import literal

PATIENCE_S = 120.0
LAST_ERROR = re.compile(r"^(?=\w[\w.]*(?:Error|Exception)\b)", re.MULTILINE)
"""Where what an exception says begins, behind its traceback."""
SHARED_SAYS = "gato doctor: stepped "
"""What a shared process prints, with the check's name, after its steps."""
SHARED = """
import json, sys
for name, code in json.loads(sys.argv[1]):
    try:
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
    except BaseException:
        continue  # it is tried again in a process of its own, which says what is wrong
    print(sys.argv[2] + name, flush=True)
"""
"""A process that tries several checks one after another."""
app = command_group()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one package stands."""

    name: str
    version: str | None
    imports: bool
    steps: bool
    in_use: str
    core: bool
    note: str = ""


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Try every package that gato needs or can use.

    The exit status is 1 if one that it needs does not work.

    Example: [bold]gato doctor[/bold]
    """
    if not examine(console, as_json=as_json):
        raise typer.Exit(1)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def find(check: Check, *, is_known_to_work: bool = False) -> Finding:
    """Try one package; `is_known_to_work` where it has been tried, in a shared process."""
    version = _version(check.package)
    successor = (
        f"{check.successor} {_version(check.successor) or '(not installed)'}"
        if check.successor
        else ""
    )
    imports, steps, problem = (
        (True, True, "") if version and is_known_to_work else (False, False, "")
    )
    if version and not is_known_to_work:
        imports, steps, problem = _tried(check)
    note = "; ".join(part for part in (problem, check.missing if not steps else "") if part)
    in_use = successor or ("itself" if imports and steps else "-")
    return Finding(
        name=check.name,
        version=version,
        imports=imports,
        steps=steps,
        in_use=in_use,
        core=check.core,
        note=note,
    )


def find_all(checks: Sequence[Check]) -> list[Finding]:
    """Try all packages, in their order; as many processes at once as there are cores, the longest
    first."""
    shared: dict[str, list[Check]] = {}
    for check in checks:
        if _version(check.package):
            shared.setdefault(check.shares or f"alone: {check.name}", []).append(check)
    units = sorted(shared.values(), key=lambda unit: -sum(check.takes_s for check in unit))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = {
            finding.name: finding for unit in pool.map(_find_together, units) for finding in unit
        }
    return [found.get(check.name) or find(check) for check in checks]


def _find_together(checks: Sequence[Check]) -> list[Finding]:
    working = _working_together(checks) if len(checks) > 1 else frozenset[str]()
    return [find(check, is_known_to_work=check.name in working) for check in checks]


def _working_together(checks: Sequence[Check]) -> frozenset[str]:
    """Names of those that import and step, one after another in one process."""
    codes = json.dumps([(check.name, f"{check.imports}\n{check.steps}") for check in checks])
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", SHARED, codes, SHARED_SAYS],
                cwd=folder,
                timeout=PATIENCE_S,
                capture_output=True,
                text=True,
                errors="replace",
            )
        except subprocess.TimeoutExpired:
            return frozenset()
    lines = set(done.stdout.splitlines())
    return frozenset(check.name for check in checks if SHARED_SAYS + check.name in lines)


def _tried(check: Check) -> tuple[bool, bool, str]:
    """Whether it imports, whether it steps, and what it raises where it does not."""
    code = (
        f"{check.imports}\nprint('imported', flush=True)\n{check.steps}\nprint('stepped',"
        " flush=True)\n"
    )
    with tempfile.TemporaryDirectory() as folder:  # MuJoCo leaves a log where it runs
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code],
                cwd=folder,
                env={**os.environ, **(check.environment or {})},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE_S,
            )
        except subprocess.TimeoutExpired:
            return False, False, f"did not end within {PATIENCE_S:.0f} s"
    said = done.stdout.splitlines()
    stepped = "stepped" in said
    raised = " ".join(LAST_ERROR.split(done.stderr)[-1].split())[:160]
    return (
        "imported" in said,
        stepped,
        "" if stepped else raised or f"ended with status {done.returncode}",
    )


def examine(console: Console, *, as_json: bool) -> bool:
    """Show how each package stands. Whether all that gato cannot do without works."""
    with console.status("trying each package ..."):
        findings = find_all(CHECKS)
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings]) + "\n")
    else:
        _show(findings, console)
    return all(finding.steps for finding in findings if finding.core)


def _show(findings: Sequence[Finding], console: Console) -> None:
    table = Table("name", "installed", "imports", "steps", "in use", box=None, header_style="bold")
    for finding in findings:
        row = [
            finding.version or "no",
            *("yes" if works else "no" for works in (finding.imports, finding.steps)),
        ]
        style = "" if finding.steps else "red" if finding.core else "dim"
        table.add_row(finding.name, *row, finding.in_use, style=style)
    console.print(table)
    for finding in findings:
        if finding.note:
            console.print(
                f"{finding.name}: {literal(finding.note)}", highlight=False, soft_wrap=True
            )
    broken = [finding.name for finding in findings if finding.core and not finding.steps]
    console.print(
        f"[red]broken:[/red] {', '.join(broken)}; install gato-ray again"
        if broken
        else "all that gato needs works"
    )
