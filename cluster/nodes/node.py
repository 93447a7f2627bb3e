"""This machine as a node of a Ray cluster: start its processes, join a head, and stop."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.nodes.connect import keep_to_loopback, require_version
from cluster.nodes.members import members, wait_until_gone
from cluster.nodes.own_address import own_address, require_address
from cluster.nodes.ports import agent_ports
from cluster.nodes.probe import require_accepted, require_ray
from cluster.nodes.starting import SERVER_ENDED, TIMED_OUT, await_node, reason_in
from cluster.nodes.tokens import folder_of, keep_token, use_token, write_private
from gato.files import read_json
from gato.part_log import NODE_NAME
from gato.processes import born, descendants, is_alive, session_members

STOP_S = 20.0


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
    runs: str = ""
    """Folder of the runs whose home is here."""

    @property
    def log(self) -> Path:
        return folder_of(self.address) / "log.txt"

    @property
    def is_alive(self) -> bool:
        return is_alive(self.pid, self.born)


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
    where = host or own_address(address)
    require_address(where)
    wait_until_gone(address, where)
    keep_to_loopback(ipaddress.ip_address(where).is_loopback)
    arguments = [f"--address={address}", f"--node-ip-address={where}"]
    before = {member.id for member in members(address)}
    return bring_up(
        lambda: launch(address, arguments, name, cpus, gpus, {}),
        lambda process: record(address, where, name, process, is_head=False),
        lambda: any(m.id not in before and m.host == where for m in members(address) if m.is_alive),
    )


def stop_node(node: Node) -> None:
    """End this machine's part of a cluster; with the head the whole cluster ends."""
    if node.is_alive:
        children = descendants(node.pid)
        os.kill(node.pid, signal.SIGTERM)
        until_s = time.monotonic() + STOP_S
        while node.is_alive and time.monotonic() < until_s:
            time.sleep(0.1)
        _kill({node.pid: node.born, **children})
    _kill(session_members(node.pid, node.born))  # what a start that failed has left
    (folder_of(node.address) / "node.json").unlink(missing_ok=True)


def _kill(processes: Mapping[int, str | None]) -> None:
    for pid, of in processes.items():
        if is_alive(pid, of):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def own_nodes() -> list[Node]:
    """The nodes that this machine started and that are alive."""
    files = sorted((folder_of("x").parent).glob("*/node.json"))
    nodes = [Node(**read_json(file, fix="delete it")) for file in files]
    return [node for node in nodes if node.is_alive]


def launch(
    address: str,
    arguments: Sequence[str],
    name: str | None,
    cpus: int | None,
    gpus: int | None,
    environment: Mapping[str, str],
    *,
    program: str = "cluster.nodes.ray_process",
) -> subprocess.Popen[bytes]:
    """Start a node's processes, with what they say in `log.txt` of the folder of `address`.

    Args:
        address: host:port of the head.
        arguments: Of `ray start`.
        name: Of the node. Default: the machine's.
        cpus: What it offers. Default: all cores.
        gpus: What it offers. Default: all GPUs.
        environment: Added to this process's, where that says nothing else.
        program: The module that is `ray`.
    """
    offered = {"--num-cpus": cpus, "--num-gpus": gpus, "--node-name": name or socket.gethostname()}
    folder = folder_of(address)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(
            # -P: a folder `cluster` where the user is must not hide ours
            [
                *(sys.executable, "-P", "-m", program, "start", "--block"),
                "--disable-usage-stats",
                *agent_ports(),
                *arguments,
                *(f"{key}={value}" for key, value in offered.items() if value is not None),
            ],
            env=os.environ
            | {
                # Where runs that have their home here are kept.
                "GATO_RUNS": str(_runs()),
                "RAY_worker_niceness": "0",
                # What its workers' reports call it.
                NODE_NAME: name or socket.gethostname(),
                # Who is to end what it does first is drained; SIGTERM ends a node at once.
                "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
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


def _runs() -> Path:
    return Path(os.environ.get("GATO_RUNS") or "runs").expanduser().absolute()


def record(
    address: str, host: str, name: str | None, process: subprocess.Popen[bytes], *, is_head: bool
) -> Node:
    """Keep what this machine knows of a node that it started."""
    node = Node(
        address=address,
        host=host,
        name=name or socket.gethostname(),
        pid=process.pid,
        born=born(process.pid),
        is_head=is_head,
        runs=str(_runs()),
    )
    write_private(folder_of(address) / "node.json", json.dumps(asdict(node), indent=2) + "\n")
    return node


def bring_up(
    launch: Callable[[], subprocess.Popen[bytes]],
    record: Callable[[subprocess.Popen[bytes]], Node],
    is_there: Callable[[], bool],
) -> Node:
    """Start a node and wait until the cluster knows it. Ray gives a start 30 s, which a busy
    machine may miss, and the server of a head may be killed meanwhile: then it is tried once more.
    Raises ValueError, and leaves nothing, if it fails."""
    for is_last in (False, True):
        process = launch()
        node = record(process)
        try:
            problem = await_node(process, is_there)
        except BaseException:  # the head is gone, or Ctrl-C
            stop_node(node)
            raise
        if problem is None:
            return node
        said = node.log.read_text(errors="replace")
        stop_node(node)
        if is_last or (TIMED_OUT not in said and problem != SERVER_ENDED):
            raise ValueError(
                f"Ray did not {'start' if node.is_head else 'join ' + node.address}: "
                + (problem or reason_in(said))
                + f"; all it said is in {node.log}"
            )
    raise AssertionError("the second try returns or raises")


def require_none(address: str) -> None:
    """Raises ValueError if this machine is in the cluster at `address`."""
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
        require_none(address)
    stop_node(node)
