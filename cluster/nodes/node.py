"""This machine as a node of a Ray cluster: start a head, join one, and stop."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.nodes.connect import keep_to_loopback, note_version, require_version
from cluster.nodes.members import members, wait_until_gone
from cluster.nodes.probe import require_accepted, require_ray
from cluster.nodes.tokens import folder_of, keep_token, make_own_token, use_token, write_private
from gato.files import read_json
from gato.processes import born, descendants, is_alive

START_S = 150.0
"""How long a node may take until the cluster knows it; on a busy machine it is a minute or two."""
STOP_S = 20.0
ANSI = re.compile(r"\x1b\[[0-9;]*m")
HEALTH: Mapping[str, str] = {
    # A machine that is gone is noticed after about 15 s, a pause of 5 s costs nothing.
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node that this machine started; kept in the folder of the cluster's address."""

    address: str
    """host:port of the head."""
    host: str
    """This node's own address."""
    name: str
    pid: int
    born: str | None
    is_head: bool

    @property
    def log(self) -> Path:
        return folder_of(self.address) / "log.txt"

    @property
    def is_alive(self) -> bool:
        return is_alive(self.pid, self.born)


def start_head(
    *,
    host: str | None,
    port: int,
    name: str | None,
    cpus: int | None,
    gpus: int | None,
    autoscaling_config: Path | None = None,
) -> Node:
    """Start the head of a cluster in the background, with a token.

    Args:
        host: The address that other machines reach it at. Default: loopback, for this machine only.
        port: Of the head.
        name: Of this node. Default: the machine's.
        cpus: What it offers. Default: all cores.
        gpus: What it offers. Default: all GPUs.
        autoscaling_config: What `ray up` wrote, for Ray to start the other machines by.

    Raises:
        ValueError: A head runs already, the port is taken, or Ray did not start.
    """
    where = host or "127.0.0.1"
    _require_address(where)
    address = f"{where}:{port}"
    _require_none(address)
    try:
        with socket.create_server((where, port)):
            pass
    except OSError as problem:
        raise ValueError(
            f"port {port} of {where} cannot be used ({problem.strerror}); give another with --port"
        ) from problem
    make_own_token()
    use_token(address)
    keep_to_loopback(host is None or ipaddress.ip_address(where).is_loopback)
    environment = dict(HEALTH)
    arguments = ["--head", f"--port={port}", f"--node-ip-address={where}"]
    arguments += ["--include-dashboard=false"]
    if autoscaling_config is not None:
        arguments.append(f"--autoscaling-config={autoscaling_config}")
    process = _launch(address, arguments, name, cpus, gpus, environment)
    node = _record(address, where, name, process, is_head=True)
    _await(node, process, lambda: _answers(address))
    note_version(address)
    return node


def join(
    address: str,
    *,
    token: str | None,
    host: str | None,
    name: str | None,
    cpus: int | None,
    gpus: int | None,
) -> Node:
    """Have this machine join the cluster at `address`, in the background.

    Args:
        address: host:port of its head.
        token: The cluster's. Default: what this machine knows.
        host: This machine's own address. Default: the one from which it reaches the head.
        name: Of this node. Default: the machine's.
        cpus: What it offers. Default: all cores.
        gpus: What it offers. Default: all GPUs.

    Raises:
        ValueError: Nothing answers there, the token is wrong, a version differs, or it has joined.
    """
    require_ray(address)
    head, _, port = address.rpartition(":")
    address = f"{socket.gethostbyname(head)}:{port}"
    if token is not None:
        keep_token(address, token)
        os.environ.pop("RAY_AUTH_TOKEN", None)
        os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
    use_token(address)
    require_accepted(address)
    require_version(address)
    _leave_if_lost(address)
    where = host or _own_address(address)
    _require_address(where)
    wait_until_gone(address, where)
    keep_to_loopback(ipaddress.ip_address(where).is_loopback)
    arguments = [f"--address={address}", f"--node-ip-address={where}"]
    before = {member.id for member in members(address)}
    process = _launch(address, arguments, name, cpus, gpus, {})
    node = _record(address, where, name, process, is_head=False)
    _await(
        node,
        process,
        lambda: any(m.id not in before and m.host == where for m in members(address) if m.is_alive),
    )
    return node


def stop_node(node: Node) -> None:
    """End this machine's part of a cluster; with the head the whole cluster ends."""
    if node.is_alive:
        children = descendants(node.pid)
        os.kill(node.pid, signal.SIGTERM)
        until_s = time.monotonic() + STOP_S
        while node.is_alive and time.monotonic() < until_s:
            time.sleep(0.1)
        for pid, of in {node.pid: node.born, **children}.items():
            if is_alive(pid, of):
                os.kill(pid, signal.SIGKILL)
    (folder_of(node.address) / "node.json").unlink(missing_ok=True)


def own_nodes() -> list[Node]:
    """The nodes that this machine started and that are alive."""
    files = sorted((folder_of("x").parent).glob("*/node.json"))
    nodes = [Node(**read_json(file, fix="delete it")) for file in files]
    return [node for node in nodes if node.is_alive]


def _launch(
    address: str,
    arguments: Sequence[str],
    name: str | None,
    cpus: int | None,
    gpus: int | None,
    environment: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    offered = {"--num-cpus": cpus, "--num-gpus": gpus, "--node-name": name or socket.gethostname()}
    folder = folder_of(address)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    runs = Path(os.environ.get("GATO_RUNS") or "runs").expanduser().absolute()
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(
            # -P: a folder `cluster` where the user is must not hide ours
            [
                *(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block"),
                "--disable-usage-stats",
                *arguments,
                *(f"{key}={value}" for key, value in offered.items() if value is not None),
            ],
            env=os.environ
            | {
                # Where runs that have their home here are kept.
                "GATO_RUNS": str(runs),
                "RAY_worker_niceness": "0",
                "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
                "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
                # What is said here first wins, so that labs can tune it.
                **{key: os.environ.get(key, value) for key, value in environment.items()},
            },
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _record(
    address: str, host: str, name: str | None, process: subprocess.Popen[bytes], *, is_head: bool
) -> Node:
    node = Node(
        address=address,
        host=host,
        name=name or socket.gethostname(),
        pid=process.pid,
        born=born(process.pid),
        is_head=is_head,
    )
    write_private(folder_of(address) / "node.json", json.dumps(asdict(node), indent=2) + "\n")
    return node


def _await(node: Node, process: subprocess.Popen[bytes], is_there: Callable[[], bool]) -> None:
    """Wait until the cluster knows the node. Raises ValueError, and leaves nothing, if it fails."""
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        if process.poll() is not None:
            break
        if is_there():
            return
        time.sleep(0.2)
    ended = process.poll() is not None
    stop_node(node)
    raise ValueError(
        f"Ray did not {'start' if node.is_head else 'join ' + node.address}: "
        + (_reason(node.log) if ended else f"nothing heard of it for {START_S:.0f} s")
        + f"; all it said is in {node.log}"
    )


def _reason(log: Path) -> str:
    lines = [ANSI.sub("", line).strip() for line in log.read_text(errors="replace").splitlines()]
    said = [line for line in lines if re.search(r"error|exception|mismatch|failed", line, re.I)]
    return (said or [line for line in lines if line] or ["it said nothing"])[-1][:300]


def _answers(address: str) -> bool:
    try:
        require_ray(address)
    except ValueError:
        return False
    return any(member.is_alive for member in members(address))


def _require_none(address: str) -> None:
    file = folder_of(address) / "node.json"
    if file.is_file() and Node(**read_json(file, fix="delete it")).is_alive:
        raise ValueError(
            f"this machine is a node of the cluster at {address} already; gato cluster stop ends it"
        )


def _leave_if_lost(address: str) -> None:
    """End what is left of a node that the cluster has given up, or that was drained. Raises
    ValueError if this machine is still in the cluster."""
    file = folder_of(address) / "node.json"
    if not file.is_file():
        return
    node = Node(**read_json(file, fix="delete it"))
    if any(member.host == node.host and member.is_alive for member in members(address)):
        _require_none(address)
    stop_node(node)


def _require_address(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f"{host!r} is not an address; give the number by which the other machines reach this"
            " one, such as 192.168.1.10 (ip address shows it)"
        ) from None


def _own_address(head: str) -> str:
    """The address from which this machine reaches the head."""
    host, _, port = head.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5.0) as connection:
        return str(connection.getsockname()[0])
