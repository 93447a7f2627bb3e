"""`gato export-metrics` and `gato follow`: a run's numbers for other programs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.options import RedisUrl, RunName, command_group, console, run_names
from cluster.monitor.format import literal

if TYPE_CHECKING:
    from cluster.exporters.metrics_server import MetricsServer
    from cluster.exporters.sink import Feed, Sink
    from cluster.exporters.tracker import TrackerName
    from cluster.monitor.summary import Summary
    from cluster.runs.folder import RunFolder

app = command_group()


@app.command("export-metrics")
def export_metrics(
    run: Annotated[str, typer.Argument(help="A run's name.", autocompletion=run_names)],
    to: Annotated[Path, typer.Argument(metavar="FILE", help="FILE.csv or FILE.parquet.")],
    redis: RedisUrl = None,
) -> None:
    """Write all series of a run, evaluations and others, as CSV or Parquet.

    Example: [bold]gato export-metrics demo demo.parquet[/bold]
    """
    from cluster.exporters.files import write_samples
    from cluster.exporters.follow import samples_of
    from cluster.monitor.progress import Progressing
    from cluster.runs.folder import find_run

    folder = find_run(run)
    with Progressing(f"exporting {folder.name}", unit="samples") as progress:
        count = write_samples(to.expanduser(), progress.track(samples_of(folder, redis)))
    console.print(f"{literal(to)}: {count:,} samples", highlight=False, soft_wrap=True)


@app.command()
def follow(
    run: RunName = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write event files of TensorBoard there."),
    ] = None,
    prometheus: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Serve metrics to Prometheus, also after the run's end. Default host: loopback.",
        ),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The token that Prometheus sends; needed beyond loopback."
        ),
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Log to Weights & Biases.")
    ] = None,
    trackio: Annotated[str | None, typer.Option(metavar="PROJECT", help="Log to trackio.")] = None,
    swanlab: Annotated[str | None, typer.Option(metavar="PROJECT", help="Log to SwanLab.")] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            metavar="URL|@FILE", help="Post alerts there. Default: what GATO_WEBHOOK says."
        ),
    ] = None,
    redis: RedisUrl = None,
) -> None:
    """Follow a run, active or ended, and hand its numbers and alerts to other programs.

    It reads the run's journal and cannot harm the run. Started again, it goes on where it was.
    Ctrl-C ends it; without --prometheus so does the end of the run.

    Example: [bold]gato follow demo --tensorboard tensorboard/demo[/bold]
    """
    from cluster.exporters.follow import Follower
    from cluster.exporters.webhook import Webhook, webhook_url
    from cluster.monitor.alerts import standing_alerts
    from cluster.monitor.summary import Summary
    from cluster.runs.folder import find_run

    url = webhook_url(webhook)
    projects: dict[TrackerName, str | None]
    projects = {"wandb": wandb, "trackio": trackio, "swanlab": swanlab}
    if tensorboard is None and prometheus is None and url is None and not any(projects.values()):
        raise ValueError(
            "nothing to hand on to; name --tensorboard FOLDER, --prometheus PORT, --webhook URL,"
            " --wandb, --trackio or --swanlab PROJECT"
        )
    folder = find_run(run)
    with ExitStack() as stack:
        feeds = [_tensorboard(folder, tensorboard)] if tensorboard is not None else []
        feeds += [_tracker(folder, name, to) for name, to in projects.items() if to]
        for feed in feeds:
            stack.callback(feed.close)
        hook = Webhook(url, folder.name, _say) if url is not None else None
        shown = [Summary(run=folder.name)]

        def look(summary: Summary, now_s: float) -> None:
            shown[0] = summary
            if hook is not None:
                hook.look(standing_alerts(summary, now_s))

        follower = Follower(folder, feeds=feeds, look=look, redis_url=redis, say=_say)
        if prometheus is not None:
            stack.enter_context(_server(prometheus, token_file, lambda: shown[0]))
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, lambda *_: follower.stop())
            stack.callback(signal.signal, number, before)
        _say(f"following run {folder.name}")
        follower.follow(stays=prometheus is not None)
    _say(f"run {folder.name}: {follower.summary.state}; all records were exported")


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _tensorboard(folder: RunFolder, to: Path) -> Feed:
    from cluster.exporters.sink import Feed
    from cluster.exporters.tensorboard import TensorBoard

    to = to.expanduser()
    return Feed(TensorBoard(to), to / "gato-follow.json", folder.claim_id())


def _tracker(folder: RunFolder, name: TrackerName, project: str) -> Feed:
    from cluster.exporters.sink import Feed
    from cluster.exporters.tracker import Tracker
    from cluster.monitor.compare import flattened
    from gato.serialization import to_plain

    exports = folder.path / "exports"
    sink: Sink = Tracker(
        name,
        project=project,
        run=folder.name,
        run_id=folder.claim_id(),
        settings=flattened(to_plain(folder.config())),
        folder=exports / name,
    )
    return Feed(sink, exports / f"{name}.json", f"{folder.claim_id()} {project}")


def _server(where: str, token_file: str | None, summary: Callable[[], Summary]) -> MetricsServer:
    """The server of metrics, which says where it is."""
    from cluster.exporters.metrics_server import MetricsServer
    from cluster.monitor.prometheus import CONTENT_TYPE, metrics_text
    from cluster.nodes.tokens import read_token

    host, _, port = where.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"--prometheus {where!r} is not [HOST:]PORT, such as 9464")
    server = MetricsServer(
        host or "127.0.0.1",
        int(port),
        text=lambda: metrics_text([summary()], time.time()),
        content_type=CONTENT_TYPE,
        token=read_token(token_file) if token_file else None,
    )
    _say(f"Prometheus is answered at {server.url}")
    return server
