"""`gato sweep show`."""

from __future__ import annotations

import json
import sys

from cluster.cli.options import AsJson, SweepName, command_group, console
from cluster.monitor.format import literal
from cluster.sweep.folder import find_sweep
from cluster.sweep.results import print_sweep, to_json, write_results
from cluster.sweep.state import trials_in

app = command_group()


@app.command()
def show(name: SweepName = None, as_json: AsJson = False) -> None:
    """Print the trials, the best first, and write the best settings and a picture.

    Example: [bold]gato sweep show demo[/bold]
    """
    folder = find_sweep(name)
    plan, trials = folder.plan(), list(trials_in(folder.journal.read()).values())
    write_results(folder, plan, trials)
    if as_json:
        sys.stdout.write(json.dumps(to_json(folder, plan, trials)) + "\n")
        return
    over = sum(trial.is_over for trial in trials)
    word = "goes on" if folder.is_active else "is over" if over == len(trials) else "was ended"
    console.print(
        f"sweep [bold]{literal(folder.name)}[/bold] {word}: {over} of {len(trials)} trials are"
        f" over, {plan.scheduler}, {plan.updates:,} updates",
        highlight=False,
    )
    print_sweep(folder, plan, trials, console)
