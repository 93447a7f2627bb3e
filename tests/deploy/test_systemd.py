"""deploy/systemd: as systemd checks it, and what its units run, as plain processes on machines of
their own."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from tests.cluster.hosts import ROOT, Host, hosts, missing, wait_for
from tests.deploy.recipes import clear, command_folder, path_with
from tests.docs.shell import parse

FOLDER = ROOT / "deploy/systemd"
UNITS = ("gato-head.service", "gato-node.service", "gato-run@.service")
GATO = "/opt/gato/.venv/bin/gato"


def settings(file: str) -> dict[str, list[str]]:
    """The settings of a unit, all values of each."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in (FOLDER / file).read_text().splitlines():
        if "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def environment() -> dict[str, str]:
    """What gato.env says."""
    lines = (FOLDER / "gato.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def words_of(line: str, known: dict[str, str], instance: str = "") -> list[str]:
    """The words of a command as systemd passes them on."""
    words: list[str] = []
    for word in shlex.split(line.removeprefix("-").replace("%i", instance)):
        if re.fullmatch(r"\$\w+", word):
            words += known[word[1:]].split()
        else:
            word = re.sub(r"(?<!\$)\$\{(\w+)\}", lambda m: known[m[1]], word)
            words.append(word.replace("$$", "$"))
    return words


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for name in UNITS:
        text = (FOLDER / name).read_text()
        assert GATO in text
        (tmp_path / name.replace("@", "@demo")).write_text(text.replace(GATO, "/bin/true"))
    files = sorted(map(str, tmp_path.glob("*.service")))
    verify = ["systemd-analyze", "verify", "--man=no"]
    done = subprocess.run([*verify, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "gato-head.service").write_text("[Service]\nExecStart=/bin/true\nRestrat=no\n")
    done = subprocess.run([*verify, files[0]], capture_output=True, text=True, check=False)
    assert "Restrat" in done.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_not_root_holds_no_secret_and_is_started_again(unit: str) -> None:
    found = settings(unit)
    assert found["User"] == found["Group"] == ["gato"]
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["CapabilityBoundingSet"] == [""]
    assert found["ProtectSystem"] == ["strict"]
    assert found["Restart"] == ["on-failure" if "@" in unit else "always"]
    assert "RAY_AUTH_TOKEN_PATH=/etc/gato/token" in found["Environment"]
    assert found["EnvironmentFile"][0] == "/etc/gato/gato.env"
    assert "PrivateTmp" not in found  # the units share /tmp/ray
    assert not [key for key in environment() if "TOKEN" in key or "PASSWORD" in key]


@pytest.mark.parametrize("unit", UNITS)
def test_its_commands_of_gato_are_commands(unit: str) -> None:
    known = environment() | {"GATO_CONFIG": "demo"}
    start = words_of(settings(unit)["ExecStart"][0], known, "demo")
    assert start[0] == GATO
    parse(["gato", *start[1:]])
    assert ("--or-resume" if "@" in unit else "--block") in start
    for line in settings(unit)["ExecStop"]:
        shell = words_of(line, known, "demo")
        stop = shell[2].split(GATO)[1].split(";")[0].split()
        assert stop == ["stop", "demo"]
        parse(["gato", *stop])


def state(machine: Host) -> str:
    """Of the run `debug`, as it is known on a machine."""
    said = machine.gato("watch debug --once --json").stdout
    return json.loads(said.strip().splitlines()[-1])["state"]


class Units:
    """What the units run, each on a machine of its own."""

    def __init__(self, machines: dict[str, Host], folder: Path) -> None:
        self.machines, self.folder = machines, folder
        token = folder / "token"
        token.write_text("5e" * 32)
        bin_folder = command_folder(folder)
        for name, machine in machines.items():
            machine.env |= environment() | {
                "GATO_HOST": machine.address,
                "GATO_HEAD": f"{machines['head'].address}:6379",
                "GATO_NODE_OPTIONS": "--cpus 0" if name == "head" else "--cpus 2",
                "GATO_CONFIG": "debug",
                "GATO_RUN_OPTIONS": "--workers 1 --updates 200000",
                "GATO_RUNS": str(machine.folder / "runs"),
                "RAY_AUTH_TOKEN_PATH": str(token),
                "PATH": path_with(bin_folder, machine.environment()),
            }

    def start(self, unit: str, name: str, key: str = "ExecStart", **more: str) -> Path:
        """Run a command of a unit, and return the file of what it says."""
        machine, log = self.machines[name], self.folder / f"{unit}.log"
        words = words_of(settings(unit)[key][0], machine.env, "debug")
        words = [word.replace(GATO, "gato") for word in words]
        machine.start(words, log, **more)
        return log


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing() or "it can")
@pytest.mark.timeout(1500)
def test_its_units_make_a_cluster_and_a_run_that_survives_a_restart_of_its_node(
    tmp_path: Path,
) -> None:
    with hosts(("head", "node"), tmp_path) as made:
        machines = dict(zip(("head", "node"), made, strict=True))
        head, node = made
        units = Units(machines, tmp_path)
        early = units.start("gato-node.service", "node")  # it fails, and systemd tries again
        wait_for(lambda: "no Ray answers" in early.read_text(), 60.0)
        begun = units.start("gato-head.service", "head")
        wait_for(lambda: "cluster at" in begun.read_text(), 200.0)
        units.start("gato-node.service", "node")
        wait_for(lambda: "has joined" in early.read_text(), 200.0)
        shown = units.start("gato-run@.service", "node")
        wait_for(lambda: "inverted-pendulum" in shown.read_text(), 300.0)

        # The unit of the node fails and is started again: that of the run goes on with the run.
        assert node.kill("cluster.nodes.ray_process start") == 1
        for part in ("raylet", "ray::", "gato cluster", "ray/dashboard", "_private"):
            node.kill(part)
        assert node.pids("--or-resume")
        clear(node)
        units.start("gato-node.service", "node")
        wait_for(lambda: " resumed " in shown.read_text(), 300.0)

        # systemctl stop: the run is stopped, and its unit ends without an error.
        units.start("gato-run@.service", "node", "ExecStop", MAINPID="1")
        wait_for(lambda: not node.pids("--or-resume"), 200.0)
        assert "error" not in shown.read_text()
        assert state(node) == "stopped"

        # systemctl start: it goes on. An end of the process alone does not stop the run.
        units.start("gato-run@.service", "node")
        wait_for(lambda: state(node) == "running", 300.0)
        node.kill("--or-resume")
        units.start("gato-run@.service", "node", "ExecStop", MAINPID="")
        wait_for(lambda: not node.pids("/bin/sh -c if"), 60.0)
        assert state(node) == "running"
        assert head.gato("cluster nodes").returncode == 0
