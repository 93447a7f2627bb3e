"""The page of a run, in a process of its own beside the run: started again when it dies, and never
waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

from rich.console import Console

from cluster.runs.config import PageConfig
from cluster.runs.folder import RunFolder

SWITCH = "GATO_PAGE"
"""An environment variable: off for no page at any run, whatever their settings say."""
AGAIN_AFTER_S = (1.0, 5.0, 30.0, 60.0)
END_WITHIN_S = 8.0
"""It tells open tabs how the run ended, and keeps its history; that takes a second."""
ANSWER_S = 1.0
LOG_BYTES = 1 << 20


@contextmanager
def page_of(folder: RunFolder, config: PageConfig, console: Console) -> Generator[None]:
    """Have the run's page served meanwhile, if its settings want one. Its address is printed once
    it is there; whatever happens to it, the run goes on."""
    if not config.is_on or os.environ.get(SWITCH, "").lower() in ("off", "0", "false", "no"):
        yield
        return
    page = PageProcess(
        folder,
        config.port,
        say=lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True),
    )
    page.start()
    try:
        yield
    finally:
        page.close()


@final
class PageProcess:
    """Serves the page of a run until `close`, or until this process ends, however it ends."""

    def __init__(self, folder: RunFolder, port: int, *, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._port = port
        self._say = say
        self._process: subprocess.Popen[str] | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="page", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            process = self._process
        if process is not None:
            _end(process)
        self._thread.join(timeout=END_WITHIN_S)

    def _work(self) -> None:
        told = ""
        for attempt in range(len(AGAIN_AFTER_S) + 1):
            try:
                process = self._begin()
            except OSError as problem:
                self._say(f"the run has no page: {problem}")
                return
            if process is None:
                return
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("http") and line != told:
                    told = line
                    self._say(f"page: {line.strip()}")
            status = process.wait()
            if self._closed.is_set():
                return
            if attempt < len(AGAIN_AFTER_S):
                self._closed.wait(AGAIN_AFTER_S[attempt])
            else:
                log = self._folder.path / "page" / "log.txt"
                self._say(f"the page ended with status {status}, see {log}; gato watch --web")

    def _begin(self) -> subprocess.Popen[str] | None:
        """The process; None if the page is closed already."""
        folder = self._folder.path / "page"
        folder.mkdir(mode=0o700, exist_ok=True)
        log = folder / "log.txt"
        if log.is_file() and log.stat().st_size > LOG_BYTES:
            log.unlink()
        with self._lock, log.open("ab") as errors:
            if self._closed.is_set():
                return None
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "cluster.web.serve"),
                    *(str(self._folder.path), "--port", str(self._port)),
                ],
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for the run
            )
            return self._process


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(timeout=END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        with suppress(ValueError, OSError):  # its reader has it
            process.stdout.close()


def live_page(folder: RunFolder) -> str | None:
    """The address of the run's page, if one is served now."""
    port = _port(folder.path / "page" / "port.json")
    if port is None:
        return None
    url = f"http://127.0.0.1:{port}"
    try:
        with urllib.request.urlopen(f"{url}/api/runs", timeout=ANSWER_S) as answer:
            said: Any = json.loads(answer.read())
            return url if said["first"] == folder.name and said["id"] == folder.info().id else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _port(file: Path) -> int | None:
    try:
        known: Any = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return known if type(known) is int and 0 < known < 65536 else None
