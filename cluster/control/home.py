"""The supervisor of a run on a cluster: a detached actor on the run's home, which Ray starts again
if it dies, and which then takes over the parts that run on."""

from __future__ import annotations

import os
import threading
import time
import traceback
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

from actors.tasks.text_encoder import BYTES
from cluster.control.order import About, Order
from cluster.control.page import page_of
from cluster.control.run_journal import kept_url, open_journal, redis_of_resume
from cluster.control.session import Session
from cluster.control.storage import copied, require_not_moved, restore_here
from cluster.journal.records import Event
from cluster.journal.redis_server import find_server
from cluster.runs.disk_space import is_full, require_space
from cluster.runs.folder import RunFolder, runs_root
from cluster.runs.home import Home, read_home, write_home
from cluster.runs.resumed import with_changes
from cluster.supervision.launch import end_parts
from gato.part_log import name_log

SEEN_S = 2.0
"""What the journal says last has reached its Redis by then, and who watches it."""
AGAIN_S, TAKE_OVER_S = 2.0, 60.0
"""How often, and how long, one that takes over tries again; while the disk is full, without end."""
UNHEARD_S = 20.0
LINGER_S = 15.0
"""The run's own Redis stays this long after the end, for those who watch from other machines."""


class SupervisorActor:
    """Holds a `Session`, with the run's own Redis beside it."""

    def __init__(self, order: Order) -> None:
        name_log(ray.get_runtime_context())
        self._order = order
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._url = order.redis_url or ""
        self._folder: RunFolder | None = None
        self._is_running = False
        self._gives_up_s = 0.0
        if ray.get_runtime_context().was_current_actor_reconstructed:
            self._go_on()

    def _go_on(self) -> None:
        """After its own death: take over, unless the run has ended."""
        self._folder = self._find()
        if self._folder is not None and self._folder.info().state in ("starting", "dead"):
            self._start(takes_over=True)
        else:
            threading.Thread(target=_end_self, daemon=True).start()

    @ray.method
    def begin(self) -> About:
        """Make or find the run's folder and start. A second call changes nothing.

        Raises:
            RunExists: There is a run of the name that a new one must have.
            ValueError: The folder or a data set is not there, or the config does not fit.
        """
        with self._lock:
            if self._thread is None:
                self._folder = self._prepare()
                self._start(takes_over=False)
        return self._about()

    @ray.method
    def about(self) -> About:
        """How the run stands."""
        return self._about()

    def _about(self) -> About:
        assert self._folder is not None
        info, folder = self._folder.info(), self._folder
        home = read_home(folder.path)
        scales = folder.path / "scales.json"
        assert home is not None
        return About(
            home=home,
            name=folder.name,
            config=folder.config(),
            state=info.state,
            reason=info.reason,
            redis_url=self._url,
            scales=scales.read_text() if scales.is_file() else "{}",
        )

    @ray.method
    def pid(self) -> int:
        """The id of its process, which tests kill."""
        return os.getpid()

    def _prepare(self) -> RunFolder:
        """The folder of the run: a new one, or the one to go on with."""
        order = self._order
        is_there = bool(order.path) and (Path(order.path) / "run.json").is_file()
        if order.storage and not is_there:
            folder = restore_here(order.storage, order.run_id, order.settings, self._where())
            self._home(folder)
            return folder
        if order.config is None:
            path = Path(order.path)
            folder = RunFolder(path.parent, path.name)
            if not (path / "run.json").is_file():
                raise ValueError(f"the folder {path} of the run is no longer on this node")
            require_not_moved(folder, order.settings)
            require_space(path)
            folder.change_config(
                lambda config: replace(
                    with_changes(config, order.settings, folder.path), name=folder.name
                )
            )
            self._home(folder)
            return folder
        found = self._find()
        if found is not None:
            return found
        require_space(runs_root())
        folder = RunFolder.create(order.config, run_id=order.run_id, is_exact=order.is_exact)
        self._home(folder)  # first: what is killed or fails below is found again, and goes on
        if order.text is not None:
            (folder.path / "text.model").write_bytes(order.text)
            folder.change_config(lambda config: replace(config, text="text.model"))
        else:
            folder.change_config(lambda config: replace(config, text=BYTES))
        if order.initial is not None:
            order.initial.keep(folder, order.config)
        return folder

    def _where(self) -> str:
        node = _this_node()
        return f"{node['NodeName']} ({node['NodeManagerAddress']}), {runs_root()}"

    def _home(self, folder: RunFolder) -> None:
        node = _this_node()
        home = Home(
            address=self._order.address,
            run_id=self._order.run_id,
            node=node["NodeName"],
            host=node["NodeManagerAddress"],
            path=str(folder.path),
            is_here=True,
            node_id=node["NodeID"],
        )
        write_home(folder.path, home)

    def _find(self) -> RunFolder | None:
        """The folder of this run here, by its id."""
        for file in runs_root().glob("*/home.json"):
            home = read_home(file.parent)
            if home is not None and home.is_here and home.run_id == self._order.run_id:
                return RunFolder(file.parent.parent, file.parent.name)
        if self._order.path:
            path = Path(self._order.path)
            return RunFolder(path.parent, path.name)
        return None

    def _start(self, *, takes_over: bool) -> None:
        assert self._folder is not None
        with suppress(OSError) if takes_over else nullcontext():  # a full disk: tried again
            self._folder.set_state("starting")
        self._gives_up_s = time.monotonic() + TAKE_OVER_S
        self._thread = threading.Thread(
            target=self._work, args=(self._folder, takes_over), name="session", daemon=True
        )
        self._thread.start()

    def _work(self, folder: RunFolder, takes_over: bool) -> None:
        try:
            self._try(folder, takes_over)
        finally:  # one without its thread would be in the way of the next
            _end_self()

    def _try(self, folder: RunFolder, takes_over: bool) -> None:
        while True:
            try:
                with (folder.path / "log.txt").open("a") as log:
                    if takes_over:
                        folder.set_state("starting")
                    self._supervise(folder, takes_over, Console(file=log, width=120, emoji=False))
                return
            except Exception as problem:
                if self._tries_again(folder, takes_over):
                    threading.Event().wait(AGAIN_S)
                    continue
                # Whatever it is: the run has failed, and everybody is told why.
                with suppress(OSError):
                    self._fail(folder, problem)
                end_parts()
                return

    def _tries_again(self, folder: RunFolder, takes_over: bool) -> bool:
        is_early = time.monotonic() < self._gives_up_s or is_full(folder.path)
        return takes_over and not self._is_running and is_early

    def _fail(self, folder: RunFolder, problem: Exception) -> None:
        reason = str(problem) or type(problem).__name__
        folder.set_state("failed", reason=" ".join(reason.split())[:500])
        with (folder.path / "log.txt").open("a") as log:
            traceback.print_exception(problem, file=log)

    def _supervise(self, folder: RunFolder, takes_over: bool, console: Console) -> None:
        if takes_over:
            url = kept_url(folder)
        else:
            url = redis_of_resume(folder, self._order.redis_url, console)
            end_parts()  # of this run, left by a supervisor that was killed with its node
        host = ray.util.get_node_ip_address()
        with (
            open_journal(folder, url, also_at=host, token=self._order.session) as journal,
            page_of(folder, folder.config().page, console),
        ):
            self._url = url or find_server(folder.path / "redis").replace(
                "@127.0.0.1:", f"@{host}:"
            )
            session = Session(folder, journal, on_cluster=True)
            session.keep_scales()
            tasks = session.config.tasks
            if not takes_over:
                text = f"{len(tasks)} tasks: {', '.join(tasks)}"
                kind = "resumed" if journal.last_number else "started"
                journal.append(Event(kind=kind, text=text))
            try:
                with copied(session, is_known=takes_over):
                    session.prepare(console)
                    folder.set_state("running")
                    self._is_running = True
                    ended, reason = session.run()
            except Exception as problem:
                kind = "problem" if self._tries_again(folder, takes_over) else "failed"
                journal.append(Event(kind=kind, text=" ".join(str(problem).split())[:500]))
                raise
            text = reason or f"gato resume {folder.name} goes on from here"
            journal.append(Event(kind=ended, text=text))
            folder.set_state(ended, reason=reason)
            console.print(f"run {folder.name} {ended} {reason}", highlight=False)
            # Without parts a node that is being drained ends at once, and this process with it.
            threading.Event().wait(SEEN_S)
            end_parts()
            threading.Event().wait(LINGER_S)


def _end_self() -> None:
    """End this actor for good. A head that is away does not hear of it: then this process ends, and
    the next one finds what is left to do, or ends likewise."""
    ray.kill(ray.get_runtime_context().current_actor, no_restart=True)
    threading.Event().wait(UNHEARD_S)
    os._exit(1)


def _this_node() -> dict[str, Any]:
    here = ray.get_runtime_context().get_node_id()
    return next(node for node in ray.nodes() if node["NodeID"] == here)


RemoteSupervisor: Any = ray.remote(SupervisorActor)
