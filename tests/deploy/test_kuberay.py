"""deploy/kuberay: by a schema, by what it promises, and what its pods run, as plain processes on
machines of their own, started as the operator starts them."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cluster.nodes.head import HEALTH
from tests.cluster.hosts import Host, hosts, missing, wait_for
from tests.deploy.recipes import (
    clear,
    command_folder,
    documents,
    gato_commands,
    path_with,
    schema,
)
from tests.docs.shell import parse

CLAIM, CLUSTER = documents("deploy/kuberay/raycluster.yaml")
JOB_CLAIM, JOB = documents("deploy/kuberay/rayjob.yaml")
SPEC: dict[str, Any] = CLUSTER["spec"]
ENTRYPOINT: str = JOB["spec"]["entrypoint"]
HEAD: dict[str, Any] = SPEC["headGroupSpec"]
GROUPS: dict[str, dict[str, Any]] = {
    "head": HEAD,
    **{group["groupName"]: group for group in SPEC["workerGroupSpecs"]},
}
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
PORT = 52365
"""Of Ray's agent on each node, which the operator always names."""


def pods() -> dict[str, Any]:
    """All pods of both files, by a name."""
    submitter = JOB["spec"]["submitterPodTemplate"]["spec"]
    return {name: group["template"]["spec"] for name, group in GROUPS.items()} | {
        "submitter": submitter
    }


def container(group: str) -> dict[str, Any]:
    return GROUPS[group]["template"]["spec"]["containers"][0]


def ray_start(group: str, head: str) -> str:
    """The line that the operator has a pod run: rayStartParams in order, with what it adds."""
    given = dict(GROUPS[group]["rayStartParams"])
    resources = container(group)["resources"]
    limits = resources.get("limits", {})
    added = {
        "metrics-export-port": "8080",
        "block": "true",
        "dashboard-agent-listen-port": str(PORT),
        "num-cpus": limits.get("cpu") or resources["requests"]["cpu"],
        "memory": str(int(limits["memory"][:-2]) * UNITS[limits["memory"][-2:]]),
    }
    added |= {"dashboard-host": "0.0.0.0"} if group == "head" else {"address": f"{head}:6379"}
    if "nvidia.com/gpu" in limits:
        added["num-gpus"] = limits["nvidia.com/gpu"]
    words = [
        f"--{key}" if value == "true" else f"--{key}={value}"
        for key, value in sorted((added | given).items())
    ]
    first = "ray start --head" if group == "head" else "ray start"
    return f"ulimit -n 65536; {first} {' '.join(words)}"


@pytest.mark.parametrize("document", [CLAIM, CLUSTER, JOB_CLAIM, JOB], ids=lambda d: d["kind"])
def test_each_document_has_the_fields_of_its_kind(document: dict[str, Any]) -> None:
    checker = jsonschema.Draft7Validator(schema("kuberay"))
    assert list(checker.iter_errors(document)) == []
    wrong = copy.deepcopy(document)
    wrong["spec"]["no such field"] = 1
    assert list(checker.iter_errors(wrong))


def test_the_cluster_of_the_job_is_that_of_the_other_file() -> None:
    assert JOB["spec"]["rayClusterSpec"] == SPEC
    assert JOB_CLAIM == CLAIM
    assert {pod["containers"][0]["image"] for pod in pods().values()} == {
        container("head")["image"]
    }


def test_no_pod_is_root_and_each_of_a_node_is_probed_and_says_what_it_needs() -> None:
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] >= 1000
        assert not pod["automountServiceAccountToken"]
        (one,) = pod["containers"]
        assert not one["securityContext"]["allowPrivilegeEscalation"]
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert one["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in one["resources"]["limits"]
        if name != "submitter":
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert one[probe]["httpGet"] == {"path": "/api/healthz", "port": PORT}


def test_nodes_know_the_environment_that_gato_gives_them_and_no_token_is_written_down() -> None:
    for name in GROUPS:
        known = {entry["name"]: entry["value"] for entry in container(name)["env"]}
        assert known.items() >= dict(HEALTH).items()
        assert known["RAY_worker_niceness"] == "0"
        assert known["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "0"
        assert known["GATO_RUNS"] == "/runs"
        assert not [key for key in known if "TOKEN" in key]
    assert SPEC["authOptions"] == {"mode": "token"}


def test_the_home_is_one_pod_whose_files_outlive_the_cluster() -> None:
    learner = GROUPS["learner"]
    assert (learner["minReplicas"], learner["replicas"], learner["maxReplicas"]) == (1, 1, 1)
    claims = learner["template"]["spec"]["volumes"]
    assert claims == [{"name": "runs", "persistentVolumeClaim": {"claimName": "gato-runs"}}]
    assert container("learner")["volumeMounts"] == [{"name": "runs", "mountPath": "/runs"}]
    assert CLAIM["metadata"]["name"] == "gato-runs"
    assert f"--home {learner['rayStartParams']['node-name']}" in ENTRYPOINT


def test_the_entrypoint_goes_on_with_the_run_of_its_name_and_needs_no_shell() -> None:
    (words,) = gato_commands(ENTRYPOINT)
    parse(words)
    assert {"--or-resume", "auto"} <= set(words)
    assert "--detach" not in words
    assert not re.search(r"""['"$`\\;&|<>(){}*?!#~]""", ENTRYPOINT)
    assert JOB["spec"]["backoffLimit"] >= 1


class Pods:
    """The pods of the file, each on a machine of its own; a retry has new ones, and the volume."""

    def __init__(self, machines: dict[str, Host], folder: Path) -> None:
        self.machines, self.folder = machines, folder
        (folder / "volume").mkdir()
        bin_folder = command_folder(folder)
        for name, machine in machines.items():
            environment = container(name)["env"] if name in GROUPS else []
            machine.env |= {entry["name"]: entry["value"] for entry in environment}
            # what the operator adds
            machine.env |= {
                "PATH": path_with(bin_folder, machine.environment()),
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": "5e" * 32,
                "RAY_ADDRESS": "127.0.0.1:6379" if name == "head" else "head:6379",
                "RAY_gcs_server_request_timeout_seconds": "5",
                "GATO_RUNS": str(folder / "volume" if name == "learner" else machine.folder),
            }

    def up(self, name: str) -> None:
        clear(self.machines[name])
        line = ray_start(name, "head")
        self.machines[name].start(["bash", "-c", line], self.folder / f"{name}.log")

    def is_healthy(self, name: str) -> bool:
        """What the probes of a pod see."""
        path = container(name)["readinessProbe"]["httpGet"]["path"]
        url = f"http://{self.machines[name].address}:{PORT}{path}"
        code = f"import urllib.request as u; u.urlopen({url!r}, timeout=5).read()"
        return self.machines["submitter"].run(f'python -c "{code}"', check=False).returncode == 0

    def all_up(self) -> None:
        for name in GROUPS:
            self.up(name)
            wait_for(lambda n=name: self.is_healthy(n), 300.0)

    def submit(self, number: int, entrypoint: str) -> Path:
        """Submit a job as the operator does, and return the file of what it says."""
        log = self.folder / f"job{number}.log"
        log.touch()
        line = (
            f"ray job submit --address http://head:8265 --submission-id job-{number} --"
            f" {entrypoint}; echo status $?"
        )
        self.machines["submitter"].start(["bash", "-c", line], log)
        return log


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing() or "it can")
@pytest.mark.timeout(1800)
def test_a_run_goes_on_after_the_loss_of_its_pod_and_in_the_cluster_of_a_retry(
    tmp_path: Path,
) -> None:
    entrypoint = ENTRYPOINT.replace("gato start demo", "gato start debug --updates 200000")
    entrypoint = entrypoint.replace("--workers 16", "--workers 2")
    with hosts((*GROUPS, "submitter"), tmp_path) as made:
        machines = dict(zip((*GROUPS, "submitter"), made, strict=True))
        pods = Pods(machines, tmp_path)
        pods.all_up()
        url = f"http://{machines['head'].address}:8265/api/jobs/"
        code = f"import urllib.request as u; u.urlopen({url!r}, timeout=5)"
        refused = machines["submitter"].run(f'python -c "{code}"', check=False)
        assert "401" in refused.stderr  # the dashboard wants the token

        first = pods.submit(1, entrypoint)
        wait_for(lambda: "inverted-pendulum" in first.read_text(), 300.0)
        assert "goes on at learner" in first.read_text()
        assert "learner" in machines["head"].gato("cluster nodes --address auto").stdout

        # The pod of the home is lost: the job waits for the new one, and goes on there.
        machines["learner"].kill()
        wait_for(lambda: "looking for it" in first.read_text(), 120.0)
        pods.up("learner")
        wait_for(lambda: first.read_text().count("goes on at learner") == 2, 300.0)
        wait_for(lambda: " resumed " in first.read_text(), 120.0)

        # A retry has a new cluster, and the volume.
        for machine in made:
            machine.kill()
        for name in ("head", "actors"):
            shutil.rmtree(machines[name].folder / "debug", ignore_errors=True)
        pods.all_up()
        second = pods.submit(2, entrypoint)
        wait_for(lambda: second.read_text().count(" resumed ") >= 2, 300.0)
        assert [file.parent.name for file in (tmp_path / "volume").glob("*/run.json")] == ["debug"]
        machines["head"].gato("stop debug")
        wait_for(lambda: "status 0" in second.read_text(), 120.0)

        # Status 0 when it has finished, and at once when it had.
        entrypoint = entrypoint.replace("--updates 200000", "--updates 20 --name small")
        third = pods.submit(3, entrypoint)
        wait_for(lambda: "status 0" in third.read_text(), 300.0)
        fourth = pods.submit(4, entrypoint)
        wait_for(lambda: "status 0" in fourth.read_text(), 120.0)
        assert "goes on at" not in fourth.read_text()
        info = json.loads((tmp_path / "volume/small/run.json").read_text())
        assert info["state"] == "finished"
