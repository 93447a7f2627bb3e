"""How far a command is and when it will be done, on the standard error: a bar on a terminal, else a
line every few seconds once it takes longer than that."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TypeVar, final

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cluster.monitor.format import duration_text, literal, printable

LINE_EVERY_S = 10.0
T = TypeVar("T")


@final
class Progressing:
    """The progress of one command.

    with Progressing("evaluating demo", total=20, unit="episodes") as progress:
        for episode in progress.track(episodes):
            ...
    """

    def __init__(
        self,
        what: str,
        *,
        total: float | None = None,
        unit: str = "",
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        """Args:
        what: Said before the bar; shown as it is, without markup.
        total: How much there is to do; None: not known.
        unit: Of it, for lines: episodes, steps. Bytes and the like: none, shares are shown.
        clock: Seconds.
        console: Where it is shown. Default: the standard error.
        """
        self._console = console or Console(file=sys.stderr, emoji=False)
        self._what, self._total, self._unit, self._clock = what, total, unit, clock
        self._done = 0.0
        self._begun_s = self._said_s = clock()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(show_speed=total is None),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        is_shown = self._console.is_terminal
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not is_shown)
        self._task = self._bar.add_task(literal(what), total=total)

    def __enter__(self) -> Progressing:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, by: float = 1.0, *, what: str | None = None) -> None:
        """So much more is done; `what`: another text from now on."""
        self.update(self._done + by, what=what)

    def update(self, done: float, *, what: str | None = None) -> None:
        """So much is done in all."""
        self._done = done
        self._what = self._what if what is None else what
        self._bar.update(self._task, completed=done, description=literal(self._what))
        now_s = self._clock()
        if not self._console.is_terminal and now_s - self._said_s >= LINE_EVERY_S:
            self._said_s = now_s
            line = printable(f"{self._what}: {self._amount()}{self._left(now_s)}")
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """The items; each counts as done when the next one is asked for."""
        for item in items:
            yield item
            self.advance()

    def _amount(self) -> str:
        unit = f" {self._unit}" if self._unit else ""
        if self._total is None:
            return f"{self._done:,.0f}{unit}"
        share = f"{100 * self._done / self._total:.0f} %" if self._total else "100 %"
        return f"{self._done:,.0f} of {self._total:,.0f}{unit}, {share}" if unit else share

    def _left(self, now_s: float) -> str:
        if self._total is None or not 0 < self._done < self._total:
            return ""
        left_s = (now_s - self._begun_s) * (self._total - self._done) / self._done
        return f", about {duration_text(left_s)} left"
