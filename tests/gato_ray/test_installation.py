"""Where another package hides one of this project's, `gato` says so in one line before anything is
imported."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gato_ray.installation import PACKAGES, check_packages

ROOT = Path(__file__).resolve().parents[2]


def run(*paths: Path, code: str) -> "subprocess.CompletedProcess[str]":
    """Python without this environment's site-packages, with these folders in front."""
    return subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def digest(file: Path) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).decode().rstrip("=")


def install(site: Path, name: str, version: str, files: dict[str, str]) -> None:
    """Write a distribution as pip does: what lies there already is overwritten."""
    lines: list[str] = []
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
        lines.append(f"{path},sha256={digest(site / path)},{len(text)}")
    about = site / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "RECORD").write_text("\n".join([*lines, f"{about.name}/RECORD,,", ""]))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages that holds this project as a wheel installs it: only what the check looks
    at."""
    kept = [
        "gato_ray/__init__.py",
        "gato_ray/installation.py",
        *(f"{name}/__init__.py" for name in PACKAGES),
    ]
    site = tmp_path / "site-packages"
    install(site, "gato-ray", "0.1.0", {path: (ROOT / path).read_text() for path in kept})
    (site / "cluster" / "cli").mkdir()
    (site / "cluster" / "cli" / "__init__.py").touch()
    (site / "cluster" / "cli" / "main.py").write_text("def main(): print('started')\n")
    return site


MAIN = "from gato_ray.installation import main; main()"


def test_the_packages_of_this_checkout_are_ours() -> None:
    check_packages()


def test_gato_starts_where_the_packages_are_ours(site: Path) -> None:
    done = run(site, code=MAIN)
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")


def test_a_distribution_that_overwrote_a_package_is_named(site: Path) -> None:
    install(site, "cluster", "1.4.1", {"cluster/__init__.py": "raise SystemExit('imported')\n"})
    done = run(site, code=MAIN)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "error: another package hides one of gato-ray's: `import cluster` finds "
    )
    assert f"{site / 'cluster' / '__init__.py'} (of cluster 1.4.1)" in done.stderr
    assert "environment of its own" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_distribution_that_was_removed_takes_our_file_along(site: Path) -> None:
    (site / "cluster" / "__init__.py").unlink()
    done = run(site, code=MAIN)
    assert done.returncode == 2
    assert f"`import cluster` finds {site / 'cluster'};" in done.stderr
    shutil.rmtree(site / "cluster")
    assert "`import cluster` finds nothing;" in run(site, code=MAIN).stderr


def test_a_folder_of_the_user_that_comes_first_is_named(site: Path, tmp_path: Path) -> None:
    for name in ("replay", "actors"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "__init__.py").write_text("raise SystemExit('imported')\n")
    done = run(tmp_path / "mine", site, code=MAIN)
    assert done.returncode == 2
    assert f"`import replay` finds {tmp_path / 'mine' / 'replay' / '__init__.py'}" in done.stderr
    assert "`import actors` finds " in done.stderr


def test_a_module_of_the_user_that_comes_first_is_named(site: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "learner.py").touch()
    done = run(tmp_path / "mine", site, code=MAIN)
    assert f"`import learner` finds {tmp_path / 'mine' / 'learner.py'}" in done.stderr


def test_importing_gato_ray_imports_nothing_that_is_heavy_or_may_be_hidden() -> None:
    code = (
        f"import sys, gato_ray.installation; print(sorted({{*{PACKAGES}, 'torch', 'ray'}} &"
        " sys.modules.keys()))"
    )
    assert run(ROOT, code=code).stdout == "[]\n"
