"""What a measurement was made on: machine, date and commit."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]


def about() -> dict[str, str | int]:
    """Processor, cores, GPU, torch, date and commit (with a + where the tree differs from it)."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    return {
        "cpu": cpu,
        "cores": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": (
            git("rev-parse", "--short", "HEAD")
            + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
        ),
    }
