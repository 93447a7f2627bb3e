"""Mutation testing of the arithmetic: changes one operator or number at a time and sees whether a
test fails.

    make mutate                                   # all modules, the table of docs/testing.md
    python -m tests.mutate learner/schedule.py    # one module, and its part of the table

Each mutant is a fork of one process that has imported the libraries, and runs the module's tests
until the first failure. A mutant that runs ten times as long as the tests do counts as killed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "testing.md"
BEGIN = "<!-- mutants: written by `make mutate` -->"
END = "<!-- mutants: end -->"

TESTS: dict[str, list[str]] = {
    "learner/schedule.py": ["tests/learner/test_schedule.py"],
    "cluster/monitor/scores.py": ["tests/cluster/monitor/test_scores.py"],
    "cluster/monitor/iqm.py": ["tests/cluster/monitor/test_iqm.py"],
    "cluster/monitor/bootstrap.py": ["tests/cluster/monitor/test_iqm.py"],
    "gato/tokenizer.py": ["tests/gato/test_tokenizer.py", "tests/paper/test_tokens.py"],
    "gato/scaling.py": ["tests/gato/test_tokenizer.py", "tests/paper/test_tokens.py"],
    "replay/rate_limiter.py": ["tests/replay/test_rate_limiter.py"],
    "replay/sampling/selectors.py": ["tests/replay/sampling/test_selectors.py"],
    "replay/sampling/return_filter.py": ["tests/paper/test_filter.py"],
}
"""The tests of each module; they must pass on the module as it is."""

WRAPS = "codes that wrap around in 16 bits still differ, and only that counts"
EQUIVALENT: dict[str, dict[str, str]] = {
    "cluster/monitor/iqm.py": {
        "1.0 -> 2.0": "the upper clip of a weight: the share of one score is at most 1 anyway",
        "0 -> 1": "the default seed of the resamples: each is as good",
    },
    "cluster/monitor/bootstrap.py": {
        "2000 -> 2001": "one resample more changes the interval by less than its noise",
        "1.0 -> 2.0": "the upper clip of a weight: the share of one score is at most 1 anyway",
        "1 -> 2": "NumPy's reshape takes any negative size for the one that is left",
    },
    "gato/scaling.py": {
        "spec.mean is not None and spec.std is not None -> "
        "spec.mean is not None or spec.std is not None": "a spec has both or neither",
        "0.0 -> 1.0": "the low of an element without bounds: its result is discarded",
        "1.0 -> 2.0": "the high of an element without bounds: its result is discarded",
        "1.0 -> 0.0": "the high of an element without bounds: its result is discarded",
    },
    "replay/rate_limiter.py": {
        "1000000 -> 1000001": "the default slack",
        "1.0 -> 2.0": "unreachable: without a ratio readers are never held back",
        "1.0 -> 0.0": "unreachable: without a ratio readers are never held back",
    },
    "replay/sampling/selectors.py": {
        "int(codes_N.max()) - int(codes_N.min()) < 1 << 15 -> "
        "int(codes_N.max()) - int(codes_N.min()) <= 1 << 15": WRAPS,
        "1 -> 2": WRAPS,
        "15 -> 16": WRAPS,
        "codes_N - codes_N.min() -> codes_N + codes_N.min()": WRAPS,
        "1 -> 0": "the shorter way of sorting is not taken; the result is the same",
        "15 -> 0": "the shorter way of sorting is not taken; the result is the same",
    },
    "replay/sampling/return_filter.py": {
        "0.0 -> 1.0": "only differences of the sums are used, and all of them shift",
    },
}
"""Survivors that were looked at: by module and mutant, why no test can tell it apart."""

COMPARE: dict[type[ast.cmpop], list[type[ast.cmpop]]] = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change of a module."""

    line: int
    code: str
    """`before -> after`, both as source."""
    source: str
    """Of the whole module."""


@dataclass(slots=True, kw_only=True)
class Result:
    """What became of a module's mutants."""

    mutants: int = 0
    survivors: list[Mutant] = field(default_factory=list[Mutant])

    @property
    def killed(self) -> int:
        """Mutants that made a test fail."""
        return self.mutants - len(self.survivors)


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that may stand in a node's place."""
    match node:
        case ast.Compare(ops=[op]):
            for other in COMPARE.get(type(op), []):
                yield _with(node, ops=[other()])
        case ast.BinOp(op=op) if type(op) in ARITHMETIC:
            yield _with(node, op=ARITHMETIC[type(op)]())
        case ast.AugAssign(op=op) if type(op) in ARITHMETIC:
            yield _with(node, op=ARITHMETIC[type(op)]())
        case ast.BoolOp(op=op):
            yield _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield node.operand
        case ast.IfExp():
            yield _with(node, body=node.orelse, orelse=node.body)
        case ast.Return(value=value) if value is not None and not (
            isinstance(value, ast.Constant) and value.value is None
        ):
            yield _with(node, value=ast.Constant(None))
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
            if value:
                yield ast.Constant(type(value)(0))
        case ast.Call(func=ast.Name(id="min" | "max" as name)):
            yield _with(node, func=ast.Name("max" if name == "min" else "min", ast.Load()))
        case _:
            pass


def _with(node: ast.AST, **values: object) -> ast.AST:
    other = copy.copy(node)
    for name, value in values.items():
        setattr(other, name, value)
    return other


def mutants(source: str) -> Iterator[Mutant]:
    """All mutants of a module: not of annotations, messages, docstrings or raised errors."""
    tree = ast.parse(source)
    for parent, name, index, node in list(_places(tree)):
        for other in changes(node):
            _put(parent, name, index, ast.copy_location(other, node))
            ast.fix_missing_locations(tree)
            code = f"{ast.unparse(node)} -> {ast.unparse(other)}"
            yield Mutant(line=getattr(node, "lineno", 0), code=code, source=ast.unparse(tree))
            _put(parent, name, index, node)


def _places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Every node with where it hangs: its parent, the field and the index in it."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "decorator_list"):
            continue
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if not isinstance(child, ast.AST) or isinstance(child, (ast.Raise, ast.JoinedStr)):
                continue
            yield node, name, index, child
            yield from _places(child)


def _put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def run_tests(module: Path, source: str, tests: list[str]) -> NoReturn:
    """Exit with pytest's status on these tests, with `source` in the module's place."""
    os.setpgrp()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    _replace(module, source.encode())
    # Without shrinking: that a test fails is enough.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile(
        "mutants", derandomize=True, deadline=None, database=None, phases=phases
    )
    options = ["-q", "-x", "-m", "not slow", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    os._exit(int(pytest.main([*options, "--hypothesis-profile", "mutants", *tests])))


def _replace(module: Path, source: bytes) -> None:
    """Let imports of the module's file read `source`."""
    get_data, path_stats = SourceFileLoader.get_data, SourceFileLoader.path_stats

    def data(self: SourceFileLoader, path: str) -> bytes:
        return source if Path(path) == module else get_data(self, path)

    def stats(self: SourceFileLoader, path: str) -> object:
        if Path(path) == module:
            raise OSError("the compiled file is of the original")
        return path_stats(self, path)

    SourceFileLoader.get_data = data
    SourceFileLoader.path_stats = stats


def fails(module: Path, source: str, tests: list[str], timeout_s: float) -> bool:
    """Whether one of the tests fails, or they need longer than `timeout_s`."""
    child = os.fork()
    if not child:
        run_tests(module, source, tests)
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def measure(name: str) -> Result:
    """Run all mutants of a module. Raises SystemExit if its tests fail without a mutant."""
    module, tests = ROOT / name, TESTS[name]
    begun_s = time.monotonic()
    if fails(module, ast.unparse(ast.parse(module.read_text())), tests, 600.0):
        raise SystemExit(f"the tests of {name} fail without a mutant: {' '.join(tests)}")
    timeout_s = 10.0 * (time.monotonic() - begun_s)
    result = Result()
    for mutant in mutants(module.read_text()):
        result.mutants += 1
        if not fails(module, mutant.source, tests, timeout_s):
            result.survivors.append(mutant)
            known = EQUIVALENT.get(name, {}).get(mutant.code, "NOT LOOKED AT")
            print(f"{name}:{mutant.line}: {mutant.code}: {known}", flush=True)
    print(f"{name}: {result.killed} of {result.mutants} mutants killed", flush=True)
    return result


def table(results: dict[str, Result], before: str) -> str:
    """The table of docs/testing.md, and below it each survivor with its reason. Modules that were
    not run keep what `before`, the table so far, says of them."""
    rows, survivors = list[str](), list[str]()
    old = before.splitlines()
    for name in TESTS:
        if name not in results:
            rows += [line for line in old if line.startswith(f"| `{name}` |")]
            survivors += [line for line in old if line.startswith(f"- `{name}`:")]
            continue
        result = results[name]
        left = len(result.survivors)
        rows.append(f"| `{name}` | {result.mutants} | {result.killed} | {left} |")
        for mutant in result.survivors:
            reason = EQUIVALENT.get(name, {}).get(mutant.code, "not looked at yet")
            survivors.append(f"- `{name}`: `{mutant.code}`: {reason}")
    head = ["| module | mutants | killed | survive |", "|---|--:|--:|--:|"]
    return "\n".join([*head, *rows, "", "Survivors:", "", *survivors])


def main() -> None:
    """Run the mutants of the modules that are named, or of all, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", choices=[[], *TESTS])
    asked = parser.parse_args().modules
    for library in ("numpy", "scipy.stats", "torch", "jaxtyping", "beartype", "rich.text"):
        importlib.import_module(library)
    for name in asked or TESTS:
        result = {name: measure(name)}
        before, _, rest = PAGE.read_text().partition(BEGIN)
        known, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{table(result, known)}\n{END}{after}")


if __name__ == "__main__":
    main()
