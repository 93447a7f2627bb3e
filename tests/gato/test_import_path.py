"""A folder that hides a package of ours from Ray's workers is named before Ray is started."""

from pathlib import Path

import pytest

from cluster.nodes.connect import connect_ray
from gato import import_path
from gato.import_path import require_own_packages
from gato_ray import installation


@pytest.mark.parametrize("file", ["replay/__init__.py", "replay.py"])
def test_a_package_or_module_of_the_same_name_is_named(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("raise RuntimeError('imported')\n")
    with pytest.raises(ValueError, match=rf"{tmp_path / file} would hide .* package replay"):
        require_own_packages(tmp_path)


def test_a_folder_without_code_and_our_own_folder_hide_nothing(tmp_path: Path) -> None:
    (tmp_path / "replay").mkdir()
    require_own_packages(tmp_path)
    require_own_packages(import_path.ROOT)


def test_no_ray_is_started_in_such_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="start in another folder"):
        connect_ray(None, namespace="none")


def test_both_checks_are_of_the_same_packages() -> None:
    assert import_path.PACKAGES == installation.PACKAGES
    assert import_path.ROOT == installation.ROOT
