"""Joining a Ray that runs, as a process of its own does: Ray keeps what it was told at import for the process's life."""

import os
import subprocess
import sys
from pathlib import Path

START = """
import ray
context = ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print("at", context.address_info["gcs_address"], flush=True)
input()
"""
JOIN = """
import sys
import ray  # imported before ours, as by a program that calls us
from cluster.launch import connect_ray
connect_ray(sys.argv[1], namespace="test-connect")
print("joined", ray.cluster_resources()["CPU"])
"""


def test_a_ray_that_asks_for_the_token_in_the_home_folder_is_joined(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert running.stdout is not None
        try:
            line = next(line for line in running.stdout if line.startswith("at "))
            assert (tmp_path / ".ray/auth_token").is_file()
            joined = subprocess.run(
                [sys.executable, "-c", JOIN, line.split()[1]],
                capture_output=True,
                text=True,
                env=environment,
                check=False,
            )
        finally:
            running.communicate("\n")
    assert "joined 1.0" in joined.stdout, joined.stderr
