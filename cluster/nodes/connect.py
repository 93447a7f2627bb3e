"""Connecting to Ray: a cluster that runs already, or a local one."""

from __future__ import annotations

import logging
import os
import warnings

import ray
from ray._private import ray_constants
from ray._private.utils import read_ray_address
from ray.exceptions import RayError

from cluster.nodes.members import asked
from cluster.nodes.probe import require_ray
from cluster.nodes.project_version import project_version
from cluster.nodes.tokens import make_own_token, use_token
from gato.import_path import require_own_packages

AUTO = "auto"
"""Said instead of host:port: the cluster that this machine is in."""
VERSION_KEY, VERSION_SPACE = b"gato-ray-version", b"gato"


def connect_ray(address: str | None, *, namespace: str, num_cpus: int | None = None) -> None:
    """Connect to the Ray at `address` (host:port), or start a local one, of `num_cpus` (None: the
    machine's), which listens on loopback only.

    Raises:
        ValueError: If nothing answers there, if none starts, if the versions differ, or if the
            working folder has a package with the name of one of ours.
    """
    require_own_packages()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray would run its workers at niceness 15, behind anything else on the machine; they are what
    # the machine is for.
    os.environ.setdefault("RAY_worker_niceness", "0")
    keep_to_loopback(address is None or _is_loopback(address))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if address is None:
            make_own_token()  # Ray would make one that all users of the machine can read
            _start_local(namespace, num_cpus)
            return
        use_token(address)
        try:
            require_ray(address)
            ray.init(
                address=address,
                namespace=namespace,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, RayError) as problem:
            raise ValueError(refusal(address, str(problem))) from problem


def address_of(given: str) -> str:
    """The address (host:port) of a head; of the Ray that was started last on this machine, by
    whatever tool, if "auto" is given.

    Raises:
        ValueError: None was started here.
    """
    if given != AUTO:
        return given
    found = read_ray_address()
    if not found:
        raise ValueError(
            "no Ray was started on this machine; let it join a cluster (gato cluster join), or"
            " give the head's --address HOST:PORT"
        )
    return found


def refusal(address: str, said: str) -> str:
    """Why the Ray at `address` does not let this process in, and how to fix it."""
    line = said.strip().splitlines()[0] if said.strip() else "no reason given"
    if "raylet" in said or "Can't find a node" in said or "could not be found" in said:
        return (
            f"this machine is not part of the cluster at {address!r}; let it join first: gato"
            f" cluster join {address} (with --cpus 0 if no worker is to run here)"
        )
    return (
        f"the Ray at {address!r} refused: {line}; both sides need the same token (gato cluster join"
        " asks for it; RAY_AUTH_TOKEN_PATH names its file) and the same version of Ray"
    )


def keep_to_loopback(alone: bool) -> None:
    """Have the Ray that this process starts or joins next use the loopback address only.

    On Linux Ray offers this to nobody, though it is what it does on macOS and Windows unless this
    variable is set: each of its servers listens on the address that it takes for the node's.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0" if alone else "1"
    ray_constants.ENABLE_RAY_CLUSTER = not alone


def _start_local(namespace: str, num_cpus: int | None) -> None:
    """Start a local Ray. It gives its node 30 s, which a busy machine may miss: then once more."""
    for is_last in (False, True):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                namespace=namespace,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            return
        except Exception as problem:
            # Ray has no exception of its own for a start that took too long.
            if is_last or "timed out during startup" not in str(problem):
                raise ValueError(
                    f"a local Ray did not start: {problem}; is the machine busy, or out of memory?"
                ) from problem
            ray.shutdown()


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0]
    return host == "localhost" or host.startswith("127.") or host in ("::1", "[::1]")


def note_version(address: str) -> None:
    """Say to the cluster at `address` with which version of this project it was started."""
    with asked(address) as client:
        text = project_version().encode()
        client.internal_kv_put(VERSION_KEY, text, True, VERSION_SPACE, timeout=10)


def require_version(address: str) -> None:
    """Raises ValueError if the cluster was started with another version of this project."""
    with asked(address) as client:
        found = client.internal_kv_get(VERSION_KEY, VERSION_SPACE, timeout=10)
    theirs, ours = (found or b"").decode(), project_version()
    if theirs and theirs != ours:
        raise ValueError(
            f"the cluster at {address} was started with gato-ray {theirs}, this machine has {ours};"
            " install the same version on both"
        )
