"""What an index holds by task and kind of source: the agent, teachers, files."""

from __future__ import annotations

import numpy as np

from gato.metrics import Amount
from replay.storage.index import Index, Snapshot


def amounts_by_source(index: Index, snapshot: Snapshot) -> dict[str, dict[str, Amount]]:
    """Episodes and steps of each task that has any, by the kind of source: what its name has before
    a colon, as in teacher:hopper."""
    kinds = {code: name.partition(":")[0] for name, code in dict(index.sources).items()}
    out: dict[str, dict[str, Amount]] = {}
    for task, code in sorted(index.tasks.items()):
        of_task = snapshot.task == code
        steps, source = snapshot.steps[of_task], snapshot.source[of_task]
        found: dict[str, Amount] = {}
        for number in np.unique(source).tolist():
            chosen = steps[source == number]
            amount = Amount(episodes=len(chosen), steps=int(chosen.sum()))
            kind = kinds.get(number, "")
            found[kind] = found[kind] + amount if kind in found else amount
        if found:
            out[task] = dict(sorted(found.items()))
    return out
