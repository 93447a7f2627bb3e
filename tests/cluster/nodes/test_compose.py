"""docker-compose.yml: what its containers run, as plain processes on machines of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.hosts import ROOT, Host, hosts, missing, wait_for

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_every_service_has_a_command_a_restart_policy_and_the_token_as_a_file() -> None:
    for name, service in SERVICES.items():
        assert service["command"], name
        assert service["restart"] == "unless-stopped"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/token"
        assert service["secrets"] == ["token"]
    assert "USER gato" in (ROOT / "Dockerfile").read_text()


def test_an_edit_of_the_code_does_not_install_the_dependencies_again() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    installs = next(i for i, line in enumerate(lines) if "install" in line and "-r" in line)
    copies = next(i for i, line in enumerate(lines) if line.startswith("COPY --chown"))
    assert installs < copies
    assert "--no-deps" in lines[copies + 1]


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing() or "it can")
@pytest.mark.timeout(900)
def test_its_commands_make_a_cluster_and_a_run_whose_returns_are_shown(tmp_path: Path) -> None:
    order = ("head", "learner", "actor", "run")
    token = tmp_path / "token"
    token.write_text("f" * 64)
    gato = tmp_path / "bin" / "gato"
    gato.parent.mkdir()
    gato.write_text('#!/bin/sh\nexec python -P -m cluster.cli.main "$@"\n')
    gato.chmod(0o755)
    with hosts(order, tmp_path) as machines:
        for name, machine in zip(order, machines, strict=True):
            _start(machine, SERVICES[name], token, gato.parent)
            if name == "head":
                check = " ".join(SERVICES["head"]["healthcheck"]["test"][1:])
                wait_for(lambda m=machine, c=check: m.run(c, check=False).returncode == 0)
        shown = tmp_path / "run.log"
        wait_for(lambda: "finished" in shown.read_text(), 400.0)
        assert "inverted-pendulum" in shown.read_text()


def _start(machine: Host, service: dict[str, Any], token: Path, bin_folder: Path) -> None:
    words = service["command"]
    # Compose writes $$ for $; the run is the shortest one here.
    words = [word.replace("$$", "$").replace("demo", "debug") for word in words]
    env = {key: str(value) for key, value in service["environment"].items()}
    env |= {"RAY_AUTH_TOKEN_PATH": str(token)}
    views = machine.folder / "views"
    views.mkdir()
    words = [word.replace("/views", str(views)) for word in words]
    env["GATO_RUNS"] = str(views if "GATO_RUNS" in service["environment"] else machine.folder)
    env["PATH"] = f"{bin_folder}{os.pathsep}{machine.environment()['PATH']}"
    machine.env.update(env)
    machine.start(words, machine.folder.parent / f"{machine.hostname}.log")
