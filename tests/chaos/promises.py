"""What a run promises (docs/reliability.md), checked on what it left behind."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from cluster.journal.records import Event
from gato.metrics import Evaluation, LearnerReport, ReplayStats, WorkerReport
from gato.version import Version
from tests.chaos.lab import CHECKPOINT_EVERY, READS_PER_TOKEN, REPORT_EVERY, RUN, SLACK_TOKENS, Lab

SILENCE_S = 30.0
"""After so long without a report of the learner the journal must have said something."""
SLOWNESS_S = 15.0
"""What a busy machine is allowed on top."""
NUM_WRITERS = 6
EPISODE_TOKENS = 6_000
"""Of the longest episode: 1,000 steps of 4 observations, a separator and an action."""


def broken_promises(lab: Lab) -> list[str]:
    """One line for each promise that does not hold; the run must have been stopped."""
    lab.look()
    return [
        *_episodes(lab),
        *_versions(lab),
        *_steps(lab),
        *_limits(lab),
        *_waits(lab),
        *_evaluations(lab),
        *_poison(lab),
    ]


def _episodes(lab: Lab) -> list[str]:
    """P1: what was acknowledged is stored, whole and once."""
    lost, doubled = lab.lost_and_doubled()
    found = [f"P1: {lost} acknowledged episodes are lost"] if lost else []
    found += [f"P1: {doubled} episodes are stored twice"] if doubled else []
    reports = [r for _, r in lab.records if isinstance(r, WorkerReport) and r.role != "evaluate"]
    # What a worker keeps may be of earlier assignments: at least the others were acknowledged.
    told = sum(max(0, r.episodes - sum(r.refused.values()) - r.kept) for r in reports)
    by_workers = len(lab.stored()) - len(lab.acknowledged)
    if told > by_workers + 1:  # the witness may not have heard of its last one
        found.append(f"P1: workers report {told} acknowledged episodes, {by_workers} are stored")
    verified = lab.home.gato(f"replay verify {RUN}", check=False)
    if verified.returncode or "episodes are whole" not in verified.stdout:
        found.append(f"P1: gato replay verify: {verified.stdout} {verified.stderr}")
    return found


def _versions(lab: Lab) -> list[str]:
    """P2: versions only grow, for the run and for each worker, and each is of one update."""
    found: list[str] = []
    versions = [r.version for _, r in lab.records if isinstance(r, LearnerReport)]
    found += [f"P2: version {b} after {a}" for a, b in pairwise(versions) if b < a]
    newest: dict[str, Version] = {}
    for _, record in lab.records:
        if isinstance(record, WorkerReport) and record.version is not None:
            if record.version < newest.get(record.worker, record.version):
                found.append(
                    f"P2: {record.worker} played {record.version} after {newest[record.worker]}"
                )
            newest[record.worker] = record.version
    steps: dict[Version, set[int]] = {}
    for _, record in lab.records:
        if isinstance(record, Evaluation) and not record.failed:
            steps.setdefault(record.version, set()).add(record.learner_step)
    found += [f"P2: version {v} is of updates {s}" for v, s in steps.items() if len(s) > 1]
    return found


def _steps(lab: Lab) -> list[str]:
    """P3: a learner that died goes on from its last checkpoint."""
    reports = [r for _, r in lab.records if isinstance(r, LearnerReport)]
    return [
        f"P3: epoch {b.version.epoch} went on at update {b.step}, {a.step - b.step} behind"
        for a, b in pairwise(reports)
        if a.step - b.step > CHECKPOINT_EVERY + REPORT_EVERY
        or (a.version.epoch == b.version.epoch and b.step < a.step)  # equal: it waits
    ]


def _limits(lab: Lab) -> list[str]:
    """P6: reads stay within the limiter's slack, and replay within its bytes."""
    margin = READS_PER_TOKEN * NUM_WRITERS * EPISODE_TOKENS
    found: list[str] = []
    for _, stats in lab.records:
        if not isinstance(stats, ReplayStats):
            continue
        # Tokens read while the disk was full count in `read_tokens` only.
        if abs(stats.owed_tokens) > SLACK_TOKENS + margin:
            found.append(
                f"P6: readers owe {stats.owed_tokens:.0f} tokens, the slack is {SLACK_TOKENS}"
            )
        owed = READS_PER_TOKEN * stats.inserted_tokens - stats.read_tokens
        if owed > SLACK_TOKENS + margin:
            found.append(f"P6: readers are {owed:.0f} tokens behind, the slack is {SLACK_TOKENS}")
        if stats.stored_bytes > stats.capacity_bytes:
            found.append(f"P6: {stats.stored_bytes} bytes of {stats.capacity_bytes}")
    return found[:3]


def _waits(lab: Lab) -> list[str]:
    """P7: a silence of the learner has a name."""
    at_s = [s for s, r in lab.records if isinstance(r, LearnerReport)]
    told_s = [s for s, r in lab.records if isinstance(r, Event)]
    return [
        f"P7: nothing was said in {b - a:.0f} s without a report of the learner"
        for a, b in pairwise(at_s)
        if b - a > SILENCE_S + SLOWNESS_S and not any(a <= s <= b for s in told_s)
    ]


def _evaluations(lab: Lab) -> list[str]:
    """P8: an evaluation is of one version, has all its episodes, and is there once."""
    done = [r for _, r in lab.records if isinstance(r, Evaluation) and not r.failed]
    lengths = Counter(len(r.returns) for r in done)
    found = [f"P8: evaluations have {dict(lengths)} episodes"] if len(lengths) > 1 else []
    often = Counter((r.task, r.version) for r in done)
    return found + [f"P8: {key} was evaluated {n} times" for key, n in often.items() if n > 1]


def _poison(lab: Lab) -> list[str]:
    """P9: a bad episode never gets in."""
    taken = [line for line in lab.acknowledgements.read_text().splitlines() if "poison" in line]
    stored = [key for key in lab.stored() if key.startswith("poison")]
    return [f"P9: {line}" for line in taken + stored]
