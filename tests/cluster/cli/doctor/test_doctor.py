"""`gato doctor` says of each package whether it is there, imports and steps, and fails where one is
broken that gato needs."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from cluster.cli.doctor import doctor
from cluster.cli.doctor.checks import CHECKS, Check
from cluster.cli.doctor.doctor import find, find_all

WELL = Check(
    name="rich", package="rich", imports="import rich", steps="rich.print('hello')", core=True
)


def test_every_name_of_the_card_and_what_stands_in_for_it_are_tried() -> None:
    in_place_of = {check.name: check.successor for check in CHECKS}
    assert {
        "torch",
        "ray",
        "rllib",
        "tune",
        "redis",
        "minigrid",
        "envpool",
        "imageio-ffmpeg",
    } <= in_place_of.keys()
    assert {name: successor for name, successor in in_place_of.items() if successor} == {
        "gym": "gymnasium", "mujoco-py": "mujoco", "atari-py": "ale-py", "d4rl": "minari",
    }  # fmt: skip
    assert {check.name for check in CHECKS if check.core} >= set(in_place_of.values()) - {""}


def test_a_package_that_works_is_in_use_itself() -> None:
    found = find(WELL)
    assert (found.imports, found.steps, found.in_use, found.note) == (True, True, "itself", "")
    assert found.version


def test_a_package_that_is_missing_says_how_it_is_had_and_what_stands_in() -> None:
    found = find(
        Check(
            name="gym",
            package="no-such-package",
            imports="import x",
            successor="rich",
            missing="of legacy",
        )
    )
    assert (found.version, found.imports, found.steps, found.note) == (
        None,
        False,
        False,
        "of legacy",
    )
    assert found.in_use.startswith("rich ")


def test_a_successor_that_is_missing_is_said_to_be() -> None:
    found = find(
        Check(name="x", package="no-such-package", imports="import x", successor="no-such-package")
    )
    assert found.in_use == "no-such-package (not installed)"


@pytest.mark.parametrize(
    ("imports", "steps", "works", "note"),
    [
        ("import no_such_module", "", (False, False), "No module named 'no_such_module'"),
        ("import os", "raise RuntimeError('no ROM')", (True, False), "RuntimeError: no ROM"),
        ("import os", "os._exit(7)", (True, False), "ended with status 7"),
        ("import os", "os.kill(os.getpid(), 9)", (True, False), "ended with status -9"),
    ],
)
def test_a_package_that_breaks_is_named_with_its_last_words(
    imports: str, steps: str, works: tuple[bool, bool], note: str
) -> None:
    found = find(Check(name="x", package="rich", imports=imports, steps=steps))
    assert (found.imports, found.steps) == works
    assert note in found.note
    assert found.in_use == "-"


@pytest.mark.parametrize(
    "end", ["os._exit(7)", "raise RuntimeError('no ROM')", "raise SystemExit(7)"]
)
def test_one_that_ends_a_shared_process_hides_no_other_and_is_named_itself(
    tmp_path: Path, end: str
) -> None:
    def shared(name: str, steps: str) -> Check:
        tell = f"open({str(tmp_path / name)!r}, 'a').write('tried ')"
        return Check(
            name=name, package="rich", imports=f"import os; {tell}", steps=steps, shares="one"
        )

    found = find_all([shared("before", ""), shared("bad", end), shared("after", "import rich")])
    assert [(finding.name, finding.imports, finding.steps) for finding in found] == [
        ("before", True, True), ("bad", True, False), ("after", True, True),
    ]  # fmt: skip
    assert "no ROM" in found[1].note or "ended with status 7" in found[1].note
    assert (tmp_path / "before").read_text() == "tried "
    assert (tmp_path / "bad").read_text() == "tried tried "


def test_findings_come_in_the_order_of_the_checks_and_what_is_missing_takes_no_process() -> None:
    missing = Check(name="missing", package="no-such-package", imports="import x", shares="one")
    slow = Check(name="slow", package="rich", imports="import rich", takes_s=9.0)
    found = find_all([missing, WELL, slow])
    assert [(finding.name, finding.steps) for finding in found] == [
        ("missing", False),
        ("rich", True),
        ("slow", True),
    ]


def test_only_what_starts_no_process_and_needs_no_environment_shares_one() -> None:
    for check in CHECKS:
        assert not (check.shares and (check.environment or check.successor)), check.name
    alone = {check.name for check in CHECKS if not check.shares}
    assert {"ray", "redis server", "envpool"} <= alone


def test_all_is_well_only_where_what_is_needed_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = Check(name="extra", package="no-such-package", imports="import x", missing="for videos")
    broken = Check(name="core", package="rich", imports="import no_such_module", core=True)
    monkeypatch.setattr(doctor, "CHECKS", (WELL, extra))
    assert doctor.examine(Console(), as_json=True)
    assert [entry["steps"] for entry in json.loads(capsys.readouterr().out)] == [True, False]
    monkeypatch.setattr(doctor, "CHECKS", (WELL, broken))
    assert not doctor.examine(Console(), as_json=False)
    assert "broken: core" in capsys.readouterr().out
