"""The wheel has all that a user needs, and runs from it in an environment of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from gato_ray.installation import PACKAGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]


def run(
    *words: str | Path, cwd: Path, status: int = 0, env: Mapping[str, str] | None = None
) -> str:
    done = subprocess.run(
        [*map(str, words)],
        cwd=cwd,
        env=os.environ | (env or {}),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, f"{words}: {done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tree, with the setuptools that is installed: no network."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT,
        folder / "tree",
        ignore=shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "scratch"),
    )
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        folder,
        folder / "tree",
        cwd=folder,
    )
    return next(folder.glob("gato_ray-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with the wheel, and with the packages of this one behind it."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    run(
        folder / "bin" / "pip",
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=folder,
    )
    scheme = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", vars=scheme))
    (site / "zz_packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder


def test_the_wheel_has_types_and_weights_and_neither_tests_nor_benchmarks(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert folders == {"gato_ray", *PACKAGES}
    assert {f"{name}/py.typed" for name in folders} <= set(names)
    kept = {
        path.relative_to(ROOT).as_posix()
        for name in folders
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert kept <= set(names)


def test_gato_runs_from_the_wheel_in_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    gato, env = (
        environment / "bin" / "gato",
        {
            "GATO_RUNS": str(tmp_path / "runs"),
            "COLUMNS": "120",
        },
    )
    (tmp_path / "empty").mkdir()
    where = run(
        environment / "bin" / "python",
        "-c",
        "import actors; print(actors.__file__)",
        cwd=tmp_path / "empty",
    )
    assert Path(where.strip()).is_relative_to(environment)
    assert "Usage: gato" in run(gato, "--help", cwd=tmp_path / "empty", env=env)
    assert "no runs" in run(gato, "runs", cwd=tmp_path / "empty", env=env)
    assert "run debug finished" in run(gato, "start", "debug", cwd=tmp_path / "empty", env=env)
    assert not list((tmp_path / "empty").iterdir())


def test_a_distribution_that_is_installed_over_it_is_named(
    environment: Path, tmp_path: Path
) -> None:
    """Last, for it breaks the environment."""
    project = tmp_path / "project"
    (project / "learner").mkdir(parents=True)
    (project / "learner" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (project / "pyproject.toml").write_text('[project]\nname = "learner"\nversion = "0.1.3"\n')
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        tmp_path / "out",
        project,
        cwd=tmp_path,
    )
    (tmp_path / "elsewhere").mkdir()
    made = next((tmp_path / "out").glob("learner-*.whl"))
    run(
        environment / "bin" / "pip",
        "install",
        "--no-deps",
        "--no-index",
        made,
        cwd=tmp_path,
    )
    said = run(environment / "bin" / "gato", "runs", cwd=tmp_path / "elsewhere", status=2)
    assert "`import learner` finds " in said
    assert "(of learner 0.1.3)" in said
    said = run(
        environment / "bin" / "python",
        "-m",
        "gato_ray",
        "runs",
        cwd=tmp_path / "elsewhere",
        status=2,
    )
    assert "(of learner 0.1.3)" in said
