"""The tool of `make mutate` makes the changes that it says it makes."""

from __future__ import annotations

from tests.mutate import EQUIVALENT, TESTS, mutants

SOURCE = '''
"""A docstring with 1."""
LIMIT: int = 3

def f(x: Literal[5]) -> int:
    """Another with 2."""
    if x < LIMIT and not x == 7:
        raise ValueError(f"{x + 1}")
    return min(x, 2) * x
'''


def test_each_mutant_changes_one_place_and_messages_stay() -> None:
    codes = [mutant.code for mutant in mutants(SOURCE)]
    assert codes == [
        "3 -> 4",
        "3 -> 0",
        "x < LIMIT and (not x == 7) -> x < LIMIT or not x == 7",
        "x < LIMIT -> x <= LIMIT",
        "x < LIMIT -> x >= LIMIT",
        "not x == 7 -> x == 7",
        "x == 7 -> x != 7",
        "7 -> 8",
        "7 -> 0",
        "return min(x, 2) * x -> return None",
        "min(x, 2) * x -> min(x, 2) / x",
        "min(x, 2) -> max(x, 2)",
        "2 -> 3",
        "2 -> 0",
    ]
    assert len({mutant.source for mutant in mutants(SOURCE)}) == len(codes)


def test_reasons_are_of_modules_that_have_tests() -> None:
    assert EQUIVALENT.keys() <= TESTS.keys()
