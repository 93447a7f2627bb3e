"""Odd environments that people report, checked as a user does: `gato check` in a process of its
own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data" / "field_cases"


def check(folder: Path, name: str) -> tuple[int, str]:
    """Exit status and all that `gato check odd_envs:NAME` prints, run in the folder of
    odd_envs.py."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster.cli.main", "check", f"odd_envs:{name}"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "250"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("case", "name", "status", "said"),
    [
        (
            "12-observations-that-all-become-one-token",
            "Prices-v0",
            0,
            ("warning", "state[0..2]", "--normalise"),
        ),
        (
            "12-observations-that-all-become-one-token",
            "WideBox-v0",
            0,
            ("warning", "state[0..2]", "bounds that fit"),
        ),
        (
            "12-observations-that-all-become-one-token",
            "OutOfBox-v0",
            0,
            ("warning", "clipped", "bounds that fit"),
        ),
        ("13-box-with-equal-bounds-refused", "Equal-v0", 0, ("0 errors",)),
        (
            "18-check-ends-without-a-word",
            "SysExit-v0",
            1,
            ("SysExit-v0 broke at step 0: SystemExit(3)",),
        ),
    ],
)
def test_the_reported_environment_gets_its_answer(
    case: str, name: str, status: int, said: tuple[str, ...]
) -> None:
    folder = SHARED / case
    if not folder.is_dir():
        pytest.skip(f"no field cases at {SHARED}")
    got, printed = check(folder, name)
    assert got == status
    assert all(part in printed for part in said), printed
    assert "Traceback" not in printed
