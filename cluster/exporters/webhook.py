"""Alerts of a run, posted to a URL."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final
from urllib.parse import urlsplit

from cluster.journal.records import Event

ANSWER_S = 5.0
TRIES = 3
VARIABLE = "GATO_WEBHOOK"


def webhook_url(given: str | None) -> str | None:
    """The URL that is given, in a file (@FILE) or in GATO_WEBHOOK: that of Slack or Discord is a
    secret, which does not belong on a command line.

    Raises:
        ValueError: It is no URL of HTTP, or the file cannot be read.
    """
    text = given or os.environ.get(VARIABLE)
    if not text:
        return None
    if text.startswith("@"):
        try:
            text = Path(text[1:]).expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise ValueError(f"cannot read the webhook in {given} ({problem})") from problem
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a webhook is a URL such as https://example.org/hook, or @FILE with one")
    return text


@final
class Webhook:
    """Posts each alert once while it stands. A URL that does not answer harms nothing."""

    def __init__(self, url: str, run: str, say: Callable[[str], None]) -> None:
        """`say`: takes a line for the user, in which the URL's secret parts are not."""
        self._url, self._run, self._say = url, run, say
        self._host = urlsplit(url).hostname or ""
        self._sent: set[tuple[str, float]] = set()
        self._failed: dict[tuple[str, float], int] = {}

    def look(self, alerts: Sequence[Event]) -> None:
        """Post those that are new; one that fails is posted again at the next looks."""
        keys = {(alert.kind, alert.time_s) for alert in alerts}
        self._sent &= keys
        for alert in alerts:
            key = (alert.kind, alert.time_s)
            if key in self._sent or self._failed.get(key, 0) >= TRIES:
                continue
            problem = self._post(alert)
            if problem is None:
                self._sent.add(key)
            else:
                self._failed[key] = self._failed.get(key, 0) + 1
                self._say(f"the webhook at {self._host} did not take an alert: {problem}")

    def _post(self, alert: Event) -> str | None:
        """What went wrong."""
        body = {
            "text": f"gato run {self._run}: {alert.kind}: {alert.text}",
            "run": self._run,
            "kind": alert.kind,
            "time_s": alert.time_s,
        }
        request = urllib.request.Request(
            self._url,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "gato-ray"},
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S):
                return None
        except urllib.error.HTTPError as problem:
            return f"status {problem.code}"
        except (OSError, http.client.HTTPException) as problem:  # or it speaks no HTTP
            return str(getattr(problem, "reason", problem)) or type(problem).__name__
