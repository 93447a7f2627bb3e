"""A page served in this process, and requests to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from cluster.runs.folder import RunFolder
from cluster.web.serve import serve


class Served:
    """A page at `port` of this machine."""

    def __init__(self, port: int, stop: threading.Event, thread: threading.Thread) -> None:
        self.port = port
        self._stop = stop
        self._thread = thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, *, method: str = "GET", body: Any = None, **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        """Status, text and headers of the answer; `Last_Event_ID` is the header with dashes."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None if body is None else json.dumps(body)
        try:
            line.request(method, path, content, named)
            answer = line.getresponse()
            return answer.status, answer.read().decode(errors="replace"), dict(answer.headers)
        finally:
            line.close()

    def json(self, path: str) -> Any:
        status, text, _ = self.ask(path)
        assert status == 200, text
        return json.loads(text)

    def stream(self, places: str, **headers: str) -> EventLines:
        return EventLines(self.port, places, headers)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


class EventLines:
    """An open event stream."""

    def __init__(self, port: int, places: str, headers: dict[str, str]) -> None:
        self._line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._line.request("GET", f"/api/stream?runs={places}", headers=named)
        self.answer = self._line.getresponse()

    def next(self, kind: str) -> tuple[str, Any]:
        """Id and data of the next event of this kind."""
        event: dict[str, str] = {}
        while True:
            line = self.answer.readline().decode().rstrip("\n")
            assert line or event or not self.answer.isclosed(), "the stream has ended"
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif event.get("event") == kind:
                return event.get("id", ""), json.loads(event["data"])
            else:
                event = {}

    def close(self) -> None:
        self.answer.close()
        self._line.close()


def begin(folder: RunFolder, port: int = 0) -> Served:
    """Serve a run's page until `end`."""
    stop, ready, urls = threading.Event(), threading.Event(), list[str]()

    def tell(url: str) -> None:
        urls.append(url)
        ready.set()

    thread = threading.Thread(
        target=serve,
        args=(folder,),
        kwargs={"port": port, "when_ready": tell, "stop": stop, "last_words_s": 0.0},
    )
    thread.start()
    assert ready.wait(20)
    return Served(int(urls[0].rpartition(":")[2]), stop, thread)


@contextmanager
def served(folder: RunFolder, port: int = 0) -> Generator[Served]:
    page = begin(folder, port)
    try:
        yield page
    finally:
        page.end()
