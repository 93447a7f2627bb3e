"""deploy/ray-cluster.yaml: as Ray's own checks for `ray up` see it."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.hosts import ROOT
from tests.deploy.recipes import documents, gato_commands
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
    assert {"**/secrets", "**/.git"} <= set(CONFIG["rsync_exclude"])
    assert CONFIG["auth"]["ssh_user"] != "root"
    assert "RAY_AUTH_TOKEN=" not in (ROOT / "deploy/ray-cluster.yaml").read_text()
