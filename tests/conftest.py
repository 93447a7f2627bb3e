"""Checks the shapes and types that annotations promise, at every call, in every test."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before any of ours is imported: jaxtyping rewrites the modules so that beartype checks each call.
hook = install_import_hook(
    [
        "gato",
        "learner.loop",
        "learner.prefetch",
        "learner.schedule",
        "actors.rollout",
        "actors.players",
        "replay.mix",
    ],
    "beartype.beartype",
)

os.environ.setdefault("OMP_NUM_THREADS", "1")
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Real demonstration data beside the repository, where it is; tests that need it are skipped
    elsewhere."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no demonstration data at {SHARED_DATA}")
    return SHARED_DATA
