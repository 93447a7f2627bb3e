"""What docs/replay.md shows runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_example_runs_without_ray_or_torch() -> None:
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "replay.md").read_text(), re.DOTALL
    )
    check = (
        "\nimport sys\nassert not {'ray', 'torch', 'gymnasium'} & set(sys.modules), 'replay alone"
        " is light'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + check], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", ["docs/replay.md"])
def test_the_tests_that_are_named_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    for path in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
