"""Break one part of a run at a time, and measure how long it takes to notice and to recover.

    python -m tests.chaos.measure               # all faults: docs/results/faults.json, the table of
                                                # docs/reliability.md
    python -m tests.chaos.measure F04 F08       # these alone, without writing
    python -m tests.chaos.measure --known LOG   # goes on with what an ended measurement has printed

Needs root, for network namespaces, and about half an hour.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.machine import about
from gato.metrics import LearnerReport
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.lab import Broken, Lab, lab
from tests.cluster.hosts import ROOT, missing

RESULT = ROOT / "docs" / "results" / "faults.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- faults: written by `python -m tests.chaos.measure` -->"
END = "<!-- faults: end -->"
PAUSE_S = 5.0
"""Between two faults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a fault did to the run."""

    id: str
    how: str
    noticed_s: float | None
    """From the fault to the event that names it; None: there is none, or none is needed."""
    recovered_s: float
    """From the fault, which itself may last, until the part is there again and the learner and a
    worker have reported since."""
    silence_s: float
    """The longest time without a report of the learner."""
    updates_lost: int
    lost: int
    """Acknowledged episodes that are not stored."""
    doubled: int
    """Episodes stored twice."""


def measure(it: Lab, fault: Fault) -> Measured:
    """Make one fault. Raises Broken if the run does not recover at all."""
    before, begun_s = set(it.pids(fault.part)) if fault.part else set[int](), time.monotonic()
    failures: list[Exception] = []

    def strike() -> None:
        try:
            fault.strike(it)
        except Broken as problem:
            failures.append(problem)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    noticed_s = None
    if fault.says:
        it.wait(f"the event {fault.says!r}", lambda: it.has_said(fault.says, begun_s))
        noticed_s = time.monotonic() - begun_s
    it.wait("the fault is over", lambda: not thread.is_alive(), 400.0)
    if failures:
        raise failures[0]
    if fault.part:
        it.wait(f"{fault.part} is back", lambda: set(it.pids(fault.part)) - before)
    back_s = time.monotonic()
    it.wait("learner and workers report", lambda: it.goes_on(back_s))
    recovered_s = time.monotonic() - begun_s
    lost, doubled = it.lost_and_doubled()
    it.look()
    reports = [(s, r) for s, r in it.records if isinstance(r, LearnerReport)]
    first = max(0, sum(s <= begun_s for s, _ in reports) - 1)
    after = reports[first:]
    return Measured(
        id=fault.id,
        how=fault.how,
        noticed_s=None if noticed_s is None else round(noticed_s, 1),
        recovered_s=round(recovered_s, 1),
        silence_s=round(max(b - a for (a, _), (b, _) in pairwise(after)), 1),
        updates_lost=max([0, *(a.step - b.step for (_, a), (_, b) in pairwise(after))]),
        lost=lost,
        doubled=doubled,
    )


def measure_all(faults: Sequence[Fault], *, head_survives: bool) -> list[Measured]:
    """Make faults one after the other in one run."""
    results: list[Measured] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        lab(Path(folder), journal_is_there=True, head_survives=head_survives) as it,
    ):
        for fault in faults:
            time.sleep(PAUSE_S)
            results.append(measure(it, fault))
            print(json.dumps(asdict(results[-1])), flush=True)
    return results


def problems(fault: Fault, found: Measured) -> list[str]:
    """What is not as it must be."""
    late = f"{fault.how}: recovered after {found.recovered_s} s, not {fault.within_s}"
    lost = f"{fault.how}: {found.lost} episodes lost, {found.doubled} doubled"
    return [late] * (found.recovered_s > fault.within_s) + [lost] * bool(found.lost + found.doubled)


def table(results: Sequence[Measured]) -> str:
    """The table of docs/reliability.md."""
    lines = [
        "| | fault | noticed | recovered | learner silent | updates lost | lost | doubled |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in results:
        noticed = "-" if row.noticed_s is None else f"{row.noticed_s} s"
        lines.append(
            f"| {row.id} | {row.how} | {noticed} | {row.recovered_s} s |"
            f" {row.silence_s} s | {row.updates_lost} | {row.lost} | {row.doubled} |"
        )
    return "\n".join(lines)


def printed(log: Path) -> list[Measured]:
    """What an earlier measurement printed before it ended."""
    return [
        Measured(**json.loads(line)) for line in log.read_text().splitlines() if line[:1] == "{"
    ]


def main() -> None:
    """Measure faults, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ids", nargs="*", choices=[[], *(fault.id for fault in FAULTS)])
    parser.add_argument("--known", type=Path, help="these faults are not made again")
    words = parser.parse_args()
    asked = words.ids
    if problem := missing():
        raise SystemExit(f"no faults here: {problem}")
    faults = [fault for fault in FAULTS if fault.alone and (not asked or fault.id in asked)]
    results = [] if words.known is None else printed(words.known)
    done = {row.id for row in results}
    for head_survives in (True, False):
        of_lab = [f for f in faults if f.head_survives == head_survives and f.id not in done]
        if of_lab:
            results += measure_all(of_lab, head_survives=head_survives)
    by_id = {fault.id: fault for fault in FAULTS}
    results.sort(key=lambda row: list(by_id).index(row.id))
    if wrong := [line for row in results for line in problems(by_id[row.id], row)]:
        raise SystemExit("\n".join(wrong))
    if not asked:
        rows = [asdict(row) for row in results]
        RESULT.write_text(json.dumps(about() | {"faults": rows}, indent=1) + "\n")
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}")


if __name__ == "__main__":
    main()
