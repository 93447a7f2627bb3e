"""Checks the shapes and types that annotations promise, at every call, in every test."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import tests.type_check

ROOT = Path(__file__).resolve().parents[1]

if sys.dont_write_bytecode:
    # Without compiled files each process that a test starts compiles all its imports again, which
    # takes twice the time. They are kept outside the tree, as PYTHONDONTWRITEBYTECODE asks.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(tempfile.gettempdir()) / f"gato-pycache-{os.getuid()}")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def annotated(*packages: str) -> list[str]:
    """The modules of these packages that annotate shapes."""
    files = (file for package in packages for file in (ROOT / package).rglob("*.py"))
    return [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in files
        if "\nfrom jaxtyping import" in file.read_text()
    ]


# Before any of ours is imported: jaxtyping rewrites the modules so that beartype checks each call.
hook = install_import_hook(
    ["gato", "learner", *annotated("actors", "replay", "cluster")],
    f"{tests.type_check.__name__}.checked",
)

# A busy machine makes no test fail.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

os.environ.setdefault("OMP_NUM_THREADS", "1")

# Most runs of the tests have no page: another process for each takes time. Those of the page do.
os.environ.setdefault("GATO_PAGE", "off")

LONGEST = (
    "tests/cluster/control/test_run.py",
    "tests/docs/test_blocks.py",
    "tests/cluster/nodes/test_connect.py",
    "tests/cluster/supervision/test_worker_pool.py",
    "tests/gato_ray/test_api.py",
    "tests/replay/faults/test_many_episodes.py",
)
"""They start first, so that two processes that share the tests end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.nodeid.split("::")[0] not in LONGEST)


SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module", autouse=True)
def _leaves_no_ray() -> Iterator[None]:
    """A module that stays connected to Ray would break the next one of its process."""
    yield
    ray = sys.modules.get("ray")
    if ray is not None and hasattr(ray, "is_initialized") and ray.is_initialized():
        ray.shutdown()
        pytest.fail("this module leaves a Ray behind; end it with ray.shutdown()")


@pytest.fixture
def shared_data() -> Path:
    """Real demonstration data next to the repository; tests that need it are skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no demonstration data at {SHARED_DATA}")
    return SHARED_DATA
