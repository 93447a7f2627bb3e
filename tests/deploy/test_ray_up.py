"""deploy/ray-cluster.yaml: as Ray's own checks for `ray up` see it, and carried out over SSH."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.hosts import ROOT, Host, hosts, missing, wait_for
from tests.deploy.recipes import command_folder, documents, gato_commands
from tests.docs.shell import parse

CONFIG: dict[str, Any] = documents("deploy/ray-cluster.yaml")[0]


def test_ray_takes_it_and_starts_all_workers_that_it_names() -> None:
    prepared = prepare_config(copy.deepcopy(CONFIG))
    validate_config(prepared)
    (node_type,) = prepared["available_node_types"].values()
    workers = len(CONFIG["provider"]["worker_ips"])
    assert node_type["min_workers"] == node_type["max_workers"] == workers
    with pytest.raises(jsonschema.ValidationError, match="setup_comands"):
        validate_config(prepared | {"setup_comands": []})


def test_its_commands_of_gato_are_commands_and_start_what_they_say() -> None:
    calls: list[list[str]] = []
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        calls += [words for line in CONFIG[key] for words in gato_commands(line)]
    bootstrap = "~/ray_bootstrap_config.yaml"
    for words in calls:
        parse([str(ROOT / "mkdocs.yml") if word == bootstrap else word for word in words])
    verbs = [words[2] for words in calls]
    assert verbs == ["stop", "start", "stop", "join"]
    assert bootstrap in calls[1]
    assert calls[3][3] == "$RAY_HEAD_IP:6379"


def test_the_token_goes_to_each_machine_as_a_file_and_secrets_do_not() -> None:
    assert CONFIG["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    excluded = set(CONFIG["rsync_exclude"])
    assert {"/secrets", "/.git", "/.venv", "/runs"} <= excluded
    anywhere = {pattern for pattern in excluded if not pattern.startswith("/")}
    packages = {path.parent.name for path in (ROOT / "cluster").rglob("*.py")}
    assert "runs" in packages  # which `**/runs` would leave behind
    assert not packages & {pattern.removeprefix("**/") for pattern in anywhere}
    assert CONFIG["auth"]["ssh_user"] != "root"
    assert "RAY_AUTH_TOKEN=" not in (ROOT / "deploy/ray-cluster.yaml").read_text()


SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
LACKS = missing() or ("" if SSHD and shutil.which("rsync") else "needs sshd and rsync")


class Machines:
    """Machines with SSH servers, and a laptop from which `ray` is called."""

    def __init__(self, machines: dict[str, Host], folder: Path) -> None:
        self.machines, self.folder = machines, folder
        self.laptop = machines.pop("laptop")
        for name in ("key", "host-key"):
            made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(made, check=True)
        self.bin = command_folder(folder)
        path = f"{self.bin}:{self.laptop.environment()['PATH']}"
        for machine in (self.laptop, *machines.values()):
            lines = Path("/etc/passwd").read_text().splitlines()
            others = [line for line in lines if not line.startswith(("root:", "sshd:"))]
            own = f"root:x:0:0:root:{machine.home}:/bin/bash"
            sshd = "sshd:x:65500:65534::/run/sshd:/usr/sbin/nologin"
            (machine.folder / "passwd").write_text("\n".join([own, sshd, *others, ""]))
            (machine.home / ".bash_profile").write_text(f"export PATH={path}\n")
            (machine.home / ".bashrc").touch()
            machine.env["PATH"] = path
        for name, machine in machines.items():
            file = machine.folder / "sshd_config"
            file.write_text(
                f"ListenAddress {machine.address}\nHostKey {folder / 'host-key'}\nUsePAM no\n"
                f"AuthorizedKeysFile {folder / 'key.pub'}\nStrictModes no\nPidFile none\n"
                f"SetEnv PATH={path} PYTHONPATH={machine.home}/gato OMP_NUM_THREADS=1\n"
            )
            line = f"{self._at_home(machine)}; mkdir -p /run/sshd; exec {SSHD} -D -e -f {file}"
            machine.start(["bash", "-c", line], folder / f"sshd-{name}.log")

    def ray(self, words: str, more: str = "") -> str:
        """Call `ray` on the laptop, in the folder of the project."""
        file = self.folder / "ray-cluster.yaml"
        line = f"{self._at_home(self.laptop)}; cd {ROOT}; ray {words} {file} {more}"
        return self.laptop.run(line, timeout_s=400.0).stdout

    def _at_home(self, machine: Host) -> str:
        return f"mount --bind {machine.folder / 'passwd'} /etc/passwd"


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKS), reason=LACKS or "it can")
@pytest.mark.timeout(1200)
def test_ray_up_makes_a_cluster_of_machines_with_ssh_and_a_run_is_watched(tmp_path: Path) -> None:
    with hosts(("head", "first", "second", "laptop"), tmp_path) as made:
        names = ("head", "first", "second", "laptop")
        machines = Machines(dict(zip(names, made, strict=True)), tmp_path)
        head, first, second, laptop = made
        config = copy.deepcopy(CONFIG)
        config["provider"] |= {"head_ip": head.address}
        config["provider"] |= {"worker_ips": [first.address, second.address]}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(tmp_path / "key")}
        # in place of an installation, which needs the network
        gato = machines.bin / "gato"
        config["setup_commands"] = [
            f"mkdir -p ~/gato/.venv/bin && cp {gato} ~/gato/.venv/bin/ && test -e ~/gato/Makefile"
        ]
        (tmp_path / "ray-cluster.yaml").write_text(yaml.safe_dump(config))
        laptop.run("umask 077; ray get-auth-token --generate")
        machines.ray("up --yes")
        run = "GATO_RUNS=~/runs gato/.venv/bin/gato"
        nodes = f"'{run} cluster nodes'"
        wait_for(lambda: machines.ray("exec", nodes).count(" alive ") == 3, 300.0)
        start = "start debug --updates 20 --workers 2 --address auto --detach"
        machines.ray("exec", f"'{run} {start}'")
        shown = machines.ray("exec", f"'{run} watch debug'")
        assert "inverted-pendulum" in shown
        assert "finished" in shown
        for machine in (head, first, second):
            assert (machine.home / ".ray/auth_token").stat().st_mode & 0o077 == 0
            assert not (machine.home / "gato/.git").exists()
        machines.ray("down --yes")
        assert not [pid for machine in (head, first, second) for pid in machine.pids("raylet/")]
