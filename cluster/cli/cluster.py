"""`gato cluster`: start a Ray cluster, join one, look at its nodes, and stop."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from cluster.cli.options import command_group, console
from cluster.monitor.format import literal, printable

if TYPE_CHECKING:  # Ray takes a second to import
    from cluster.nodes.members import Member
    from cluster.nodes.node import Node

app = command_group()
REDIS = "GATO_CLUSTER_REDIS"

Host = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="This machine's own address, such as 192.168.1.10."),
]
NodeName = Annotated[str | None, typer.Option("--name", help="Of this node. Default: hostname.")]
Cpus = Annotated[
    int | None,
    typer.Option(min=0, help="CPU cores to offer. Default: all. 0: no worker runs here."),
]
Gpus = Annotated[int | None, typer.Option(min=0, help="GPUs to offer. Default: all.")]
Block = Annotated[
    bool,
    typer.Option(
        "--block", help="Stay until the node ends, as services and containers need; Ctrl-C ends it."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="The cluster. Default: the one joined by gato here; auto: also by another tool.",
    ),
]


@app.callback()
def cluster() -> None:
    """Start a Ray cluster, join one, and look at its machines."""


@app.command()
def start(
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address by which other machines reach this one. Default: loopback, for none.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the head.")] = 6379,
    name: NodeName = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL|-",
            envvar=REDIS,
            help=(
                "Redis server for the cluster's state, so that the cluster survives a restart of"
                " its head. Remembered until gato cluster stop. -: read the URL from standard"
                " input."
            ),
        ),
    ] = None,
    block: Block = False,
    autoscaling_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            resolve_path=True,
            help="Config of `ray up`, from which Ray starts the other machines.",
        ),
    ] = None,
) -> None:
    """Start a Ray cluster with this machine as its head, protected by a token.

    Example: [bold]gato cluster start --host 192.168.1.10[/bold]
    """
    from cluster.nodes.head import start_head
    from cluster.nodes.head_store import kept_store

    if redis == "-":
        redis = sys.stdin.read().strip()
    elif block and redis is not None and any(redis in word for word in sys.argv) and "@" in redis:
        raise ValueError(
            "--block would show the password of --redis to all users of this machine; give the URL"
            f" in {REDIS}, or on the standard input: --redis -"
        )
    node = start_head(
        host=host,
        port=port,
        name=name,
        cpus=cpus,
        gpus=gpus,
        redis_url=redis,
        autoscaling_config=autoscaling_config,
    )
    console.print(
        f"cluster at [bold]{node.address}[/bold]; its token is in ~/.ray/auth_token, for those who"
        " may run code here"
    )
    if host is None:
        console.print("only this machine reaches it; for others, start it with --host ADDRESS")
    else:
        console.print(
            f"on another machine:  gato cluster join {node.address}      (asks for the token)\n"
            f"or from here:        ssh OTHER gato cluster join {node.address} --token-file - <"
            " ~/.ray/auth_token",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"then:                gato start demo --address {node.address}", highlight=False)
    store = kept_store(node.address)
    if store is not None:
        console.print(
            f"its state is in Redis at {literal(store.shown)}: if the head dies, start it again",
            highlight=False,
        )
    if block:
        _stay(node)


@app.command(name="join")
def join_(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Of the cluster's head.")],
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The head's token; - reads the standard input."),
    ] = None,
    host: Host = None,
    name: NodeName = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    block: Block = False,
) -> None:
    """Have this machine join a cluster, so that workers, or the learner, may run on it.

    The token is that of --token-file, else of RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, else the one
    that this machine has for the cluster; if there is none or it is wrong, you are asked for it.

    Example: [bold]gato cluster join 192.168.1.10:6379 --cpus 8[/bold]
    """
    from cluster.cli.cluster_address import token_for
    from cluster.nodes.node import join
    from cluster.nodes.tokens import read_token

    token = read_token(token_file) if token_file else None
    if token is None:
        token = token_for(address)
    node = join(address, token=token, host=host, name=name, cpus=cpus, gpus=gpus)
    console.print(
        f"{literal(node.name)} ({node.host}) has joined [bold]{node.address}[/bold]; gato cluster"
        " stop leaves it",
        highlight=False,
    )
    if block:
        _stay(node)


def _stay(node: Node) -> None:
    """Wait for the node's end; end it on Ctrl-C or SIGTERM. Raises ValueError if it ends itself."""
    from cluster.control.leave import save_runs
    from cluster.nodes.node import stop_node

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        while node.is_alive:
            time.sleep(0.5)
    except KeyboardInterrupt:
        with suppress(KeyboardInterrupt):  # again: at once
            save_runs(node, _say)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stop_node(node)
        return
    raise ValueError(f"the node ended by itself; what it said is in {node.log}")


@app.command()
def nodes(address: Address = None) -> None:
    """List the nodes of a cluster.

    Example: [bold]gato cluster nodes[/bold]
    """
    from cluster.cli.cluster_address import cluster_address
    from cluster.nodes.members import members

    table = Table("node", "address", "state", "cores", "GPUs", box=None, header_style="bold")
    for member in members(cluster_address(address)):
        name = member.name + (" (head)" if member.is_head else "")
        cells = (name, member.host, member.state, _used(member, "CPU"), _used(member, "GPU"))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)


@app.command(name="drain")
def drain_(
    node: Annotated[str, typer.Argument(help="Its name or address; see gato cluster nodes.")],
    within: Annotated[
        float, typer.Option(min=1.0, help="Seconds until what still runs there is ended.")
    ] = 60.0,
    address: Address = None,
) -> None:
    """Drain a node: it gets no new work and leaves the cluster; its workers restart elsewhere.

    Its workers finish their assignments first. If it is the home of a run, the run saves and stops.

    Example: [bold]gato cluster drain 192.168.1.12[/bold]
    """
    from cluster.cli.cluster_address import cluster_address
    from cluster.nodes.members import drain, find_member, members

    where = cluster_address(address)
    found = find_member(members(where), node)
    if found.is_head:
        raise ValueError(
            f"{found.name} is the head: without it the cluster ends (gato cluster stop)"
        )
    drain(where, found, within_s=within)
    console.print(f"{literal(found.name)} gets nothing new, and ends within {within:g} s")


@app.command()
def stop(address: Address = None) -> None:
    """Take this machine out of its cluster; on the head, end the cluster.

    A run whose home it is saves first, within 20 s; `gato resume` goes on from there.

    Example: [bold]gato cluster stop[/bold]
    """
    from cluster.control.leave import save_runs
    from cluster.nodes.head import end_cluster
    from cluster.nodes.head_store import kept_stores
    from cluster.nodes.node import own_nodes, stop_node

    address = None if address == "auto" else address
    own = [node for node in own_nodes() if address in (None, node.address)]
    stores = {s.address: s for s in kept_stores() if address in (None, s.address)}
    if not own and not stores:
        raise ValueError("no node was started on this machine with gato cluster start or join")
    for node in own:
        save_runs(node, _say)
        if node.is_head:
            end_cluster(node, stores.pop(node.address, None))
        else:
            stop_node(node)
        what = "the cluster ended" if node.is_head else "this machine left the cluster"
        console.print(f"{what} at [bold]{node.address}[/bold]", highlight=False)
    for store in stores.values():  # of heads that died
        end_cluster(None, store)
        console.print(f"the cluster ended at [bold]{store.address}[/bold]", highlight=False)


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _used(member: Member, resource: str) -> str:
    total = member.offers(resource)
    if not total or not member.is_alive:
        return "-" if not total else f"{total:g}"
    return f"{total - member.free.get(resource, total):g} of {total:g}"
