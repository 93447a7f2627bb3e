"""Break something every few seconds, and see whether the run keeps its promises.

    make chaos                                # ten minutes: docs/results/chaos.json, and the
                                              # table of docs/reliability.md
    python -m tests.chaos.storm --minutes 1

Needs root, for network namespaces.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.machine import about
from gato.metrics import Evaluation, LearnerReport
from tests.chaos.faults import BACK_S, FAULTS, Fault
from tests.chaos.lab import RUN, Broken, Lab, lab, wait_for_nodes
from tests.chaos.promises import broken_promises
from tests.cluster.hosts import ROOT, missing

RESULT = ROOT / "docs" / "results" / "chaos.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: written by `make chaos` -->", "<!-- chaos: end -->"
EVERY_S = 5.0
CALM_S = 240.0
"""How long the run may take to be whole after the last fault."""


@dataclass(slots=True)
class Outcome:
    """What a storm did, and what the run made of it."""

    faults: dict[str, int] = field(default_factory=dict[str, int])
    updates: int = 0
    epochs: int = 0
    longest_silence_s: float = 0.0
    """Between two reports of the learner."""
    calm_after_s: float = 0.0
    """From the last fault until learner and workers report again."""
    acknowledged: int = 0
    """Episodes that the witness was told were durable."""
    lost: int = 0
    doubled: int = 0
    last_return: float = 0.0
    """Mean of the last evaluation."""
    broken: list[str] = field(default_factory=list[str])
    """Promises that did not hold."""


def storm(it: Lab, faults: Sequence[Fault], *, seconds: float, seed: int) -> Outcome:
    """Break something every 5 s; then let the run recover, stop it, and check its promises.

    Each fault comes once in a round, in a random order. One whose process is not there waits until
    it is: a process is killed as it lives, and not again and again as it is born.
    """
    outcome, struck = Outcome(), Counter[str]()
    rounds = _Rounds(faults, random.Random(seed))
    threads: list[threading.Thread] = []
    it.start_service()
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        begun_s = time.monotonic()
        if (fault := rounds.next(it, outcome.broken)) is not None:
            print(f"{until_s - begun_s:4.0f} s left: {fault.how}", flush=True)
            struck[fault.how] += 1
            thread = threading.Thread(target=_strike, args=(it, fault, outcome.broken), daemon=True)
            rounds.under_way[fault.id] = thread
            threads.append(thread)
            thread.start()
        else:
            print(f"{until_s - begun_s:4.0f} s left: nothing is there to break", flush=True)
        it.look()
        time.sleep(max(0.0, begun_s + EVERY_S - time.monotonic()))
    for thread in threads:
        thread.join()
    calm_s = time.monotonic()
    outcome.calm_after_s = it.wait("it goes on after all", lambda: it.goes_on(calm_s), CALM_S)
    wait_for_nodes(it, 3)
    it.let_go("witness")
    it.let_go("service")
    it.head.gato(f"stop {RUN}", timeout_s=300.0)
    outcome.faults = dict(struck)
    _count(it, outcome)
    outcome.broken += broken_promises(it)
    return outcome


class _Rounds:
    """The order in which faults are made."""

    def __init__(self, faults: Sequence[Fault], rng: random.Random) -> None:
        self._faults = list(faults)
        self._rng = rng
        self._left: list[Fault] = []
        self._away_s: dict[str, float] = {}
        """How long each fault's process has been away while no machine was cut off."""
        self._looked_s = time.monotonic()
        self.under_way: dict[str, threading.Thread] = {}

    def next(self, it: Lab, broken: list[str]) -> Fault | None:
        """The first of this round that can be made now. A part that is away for longer than it may
        be breaks P4; while a machine is cut off nothing can come back on it."""
        self._left = self._left or self._rng.sample(self._faults, len(self._faults))
        now_s, ready = time.monotonic(), list[Fault]()
        since_s, self._looked_s = now_s - self._looked_s, now_s
        under_way = {name for name, thread in self.under_way.items() if thread.is_alive()}
        is_cut = any(fault.is_cut for fault in self._faults if fault.id in under_way)
        for fault in self._left:
            if fault.id in under_way:
                continue
            if fault.can_strike(it):
                self._away_s[fault.id] = 0.0
                ready.append(fault)
                continue
            self._away_s[fault.id] = self._away_s.get(fault.id, 0.0) + (0.0 if is_cut else since_s)
            if self._away_s[fault.id] > BACK_S:
                broken.append(f"P4: no process for `{fault.how}` within {BACK_S:.0f} s")
                self._away_s[fault.id] = 0.0
        if not ready:
            return None
        self._left.remove(ready[0])
        return ready[0]


def _strike(it: Lab, fault: Fault, broken: list[str]) -> None:
    try:
        fault.strike(it)
    except Broken as problem:
        broken.append(f"P4: {problem}")


def _count(it: Lab, outcome: Outcome) -> None:
    it.look()
    reports = [(s, r) for s, r in it.records if isinstance(r, LearnerReport)]
    outcome.updates = max(r.step for _, r in reports)
    outcome.epochs = max(r.version.epoch for _, r in reports)
    outcome.longest_silence_s = max(b - a for (a, _), (b, _) in pairwise(reports))
    outcome.acknowledged = len(it.acknowledged)
    outcome.lost, outcome.doubled = it.lost_and_doubled()
    returns = [r.returns for _, r in it.records if isinstance(r, Evaluation) and not r.failed]
    outcome.last_return = sum(returns[-1]) / len(returns[-1])


def table(outcome: Outcome, *, minutes: float, seed: int) -> str:
    """The table of docs/reliability.md."""
    lines = ["| what was broken | how often |", "|---|--:|"]
    lines += [f"| {how} | {count} |" for how, count in sorted(outcome.faults.items())]
    lines += [
        "",
        f"In {minutes:g} minutes (seed {seed}) the run made {outcome.updates:,} updates in"
        f" {outcome.epochs} epochs (lives of the learner). The longest time without a report of the"
        f" learner was {outcome.longest_silence_s:.0f} s; {outcome.calm_after_s:.0f} s after the"
        " last fault both the learner and a worker had reported again. Of"
        f" {outcome.acknowledged:,} episodes acknowledged to the witness {outcome.lost} were lost"
        f" and {outcome.doubled} stored twice. Promises that did not hold: {len(outcome.broken)}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run a storm, and exit with 1 if a promise did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="into docs/")
    arguments = parser.parse_args()
    if problem := missing():
        raise SystemExit(f"no storm here: {problem}")
    faults = [fault for fault in FAULTS if fault.in_storm]
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder)) as it:
        outcome = storm(it, faults, seconds=60.0 * arguments.minutes, seed=arguments.seed)
    plain = {"seed": arguments.seed, "minutes": arguments.minutes}
    plain |= {name: getattr(outcome, name) for name in Outcome.__slots__}
    text = json.dumps(about() | plain, indent=1) + "\n"
    print(text)
    if arguments.write:
        RESULT.write_text(text)
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        shown = table(outcome, minutes=arguments.minutes, seed=arguments.seed)
        PAGE.write_text(f"{before}{BEGIN}\n{shown}\n{END}{after}")
    if outcome.broken:
        raise SystemExit("\n".join(outcome.broken))


if __name__ == "__main__":
    main()
