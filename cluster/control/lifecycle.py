"""Start and resume runs, in this process or in the background."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from actors.tasks.text_encoder import BYTES
from cluster.control import run_control
from cluster.control.page import live_page
from cluster.control.run_journal import keep_url, redis_of_resume, redis_of_start
from cluster.control.storage import require_not_moved
from cluster.control.supervise import Connections, supervise_or_fail
from cluster.monitor.format import literal
from cluster.monitor.scores import read_scales
from cluster.monitor.terminal.watch import ENDED, watch_live
from cluster.runs.config import RunConfig
from cluster.runs.disk_space import require_space
from cluster.runs.folder import RunFolder, find_run, runs_root
from cluster.runs.resolve import check_installed
from cluster.runs.resumed import with_changes


def start(
    config: RunConfig,
    *,
    address: str | None,
    redis_url: str | None,
    redis_port: int | None,
    detach: bool,
    console: Console,
    home: str | None = None,
    attach: bool = False,
    is_exact: bool = False,
) -> RunFolder:
    """Start a new run, and return its folder. In the foreground it is watched until it ends.

    With an `address` it runs on that cluster, and this process only watches it, unless `attach`:
    then Ctrl-C stops the run, as it does for one on this machine. `is_exact`: RunExists is raised
    if its name is taken, in place of another name.
    """
    require_space(runs_root())
    redis_url = redis_of_start(redis_url)
    if address is not None:
        from cluster.control.on_cluster import start_on_cluster

        folder = start_on_cluster(
            config, address=address, home=home, redis_url=redis_url, is_exact=is_exact
        )
        _view(folder, detach=detach, attach=attach, console=console)
        return folder
    if home is not None:
        raise ValueError("--home names a node of a cluster; give the cluster, too: --address")
    if config.initial_weights:
        from cluster.control.initial_weights import initial_of

        initial_of(config)  # raises ValueError; the run's session keeps them
    check_installed(config)
    folder = RunFolder.create(config, is_exact=is_exact)
    text = kept_text(config.text, folder)
    config = folder.change_config(lambda config: replace(config, text=text))
    _carry_out(
        config,
        folder,
        Connections(address=address, redis_url=redis_url, redis_port=redis_port),
        detach,
        console,
    )
    return folder


def kept_text(text: str, folder: RunFolder) -> str:
    """The run keeps its encoder of text, so that it is found again wherever the run's folder is."""
    if text == BYTES:
        return text
    shutil.copyfile(text, folder.path / "text.model")
    return "text.model"


def resume(
    run: str | None,
    *,
    settings: Sequence[str],
    address: str | None,
    redis_url: str | None,
    detach: bool,
    console: Console,
    attach: bool = False,
    to: str | None = None,
) -> None:
    """Go on with a run that is not active; `settings` are kept for the next time, too. `to`: the
    node that is to be its home, because the one that it had is lost."""
    folder = find_run(run)
    home = folder.home
    if home is not None:
        from cluster.control.on_cluster import resume_on_cluster

        if home.is_here:
            require_not_moved(folder, settings)
        if to is None and run_control.state_of(folder) in ("starting", "running"):
            raise ValueError(
                f"run {folder.name} goes on at {home.node}; stop it first (gato stop"
                f" {folder.name}), or watch it"
            )
        resume_on_cluster(
            folder, home, settings=settings, address=address, redis_url=redis_url, to=to
        )
        _view(folder, detach=detach, attach=attach, console=console)
        return
    if to is not None:
        raise ValueError(f"run {folder.name} is on this machine's own Ray: leave out --home")
    info = folder.info()
    if info.is_active:
        raise ValueError(
            f"run {folder.name} is {info.state}; stop it first (gato stop {folder.name}), or"
            " watch it"
        )
    require_not_moved(folder, settings)
    require_space(folder.path)
    redis_url = redis_of_resume(folder, redis_url, console)
    config = folder.change_config(
        lambda config: replace(with_changes(config, settings, folder.path), name=folder.name)
    )
    _carry_out(
        config,
        folder,
        Connections(address=address, redis_url=redis_url, redis_port=None),
        detach,
        console,
    )


def _view(folder: RunFolder, *, detach: bool, attach: bool, console: Console) -> None:
    """Watch a run on a cluster until it ends or, unless it is attached, until Ctrl-C."""
    name, home = literal(folder.name), folder.home
    assert home is not None
    console.print(
        f"run [bold]{name}[/bold] goes on at {literal(home.node)} ({home.host}): gato watch {name}"
        f" · gato stop {name}",
        highlight=False,
    )
    if detach:
        return
    with run_control.journal_of(folder) as journal:
        summary = watch_live(
            journal, run=folder.name, scales=read_scales(folder.path), console=console,
            until_ended=True,
        )  # fmt: skip
    if attach and summary.state not in ENDED:
        run_control.ask_to_stop(folder)
        run_control.wait_until_stopped(folder)
    run_control.state_of(folder)


def _carry_out(
    config: RunConfig, folder: RunFolder, options: Connections, detach: bool, console: Console
) -> None:
    if detach:
        _carry_out_detached(folder, options, console)
        return
    supervise_or_fail(config, folder, options, console)


def _carry_out_detached(folder: RunFolder, options: Connections, console: Console) -> None:
    """A process of its own, in a session of its own, whose output goes to the run's log."""
    arguments = [str(folder.path), *_pairs(options)]
    folder.set_state("starting")  # whatever it was, such as failed, is over
    # not on the command line, which every user of the machine can read
    if options.redis_url is not None:
        keep_url(folder, options.redis_url)
        arguments.append("--redis-kept")
    with (folder.path / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            # -P: a folder `cluster` where the user is must not hide ours
            [sys.executable, "-P", "-m", "cluster.control.detached", *arguments],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while process.poll() is None and folder.info().state not in ("running", "failed"):
        time.sleep(0.1)
    info = folder.info()
    if info.state == "failed" or process.poll() not in (None, 0):
        raise ValueError(
            f"run {folder.name} did not start: {info.reason or f'see {folder.path}/log.txt'}"
        )
    name, page = literal(folder.name), live_page(folder)
    console.print(
        f"run [bold]{name}[/bold] goes on in the background: gato watch {name} · gato stop {name}"
        + (f" · {page}" if page else ""),
        soft_wrap=True,
    )


def _pairs(options: Connections) -> list[str]:
    named = {"--address": options.address, "--redis-port": options.redis_port}
    return [
        text for name, value in named.items() if value is not None for text in (name, str(value))
    ]


def supervise_detached(
    folder: RunFolder, *, address: str | None, redis_kept: bool, redis_port: int | None
) -> None:
    """What the process in the background does; `redis_kept`: with the Redis whose URL lies in the
    run's folder."""
    redis_url = (folder.path / "redis-url.txt").read_text() if redis_kept else None
    config = folder.config()
    options = Connections(address=address, redis_url=redis_url, redis_port=redis_port)
    supervise_or_fail(config, folder, options, Console(width=120, emoji=False))
