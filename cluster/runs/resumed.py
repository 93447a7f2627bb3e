"""What a run goes on with: its settings, with changes, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from actors.tasks.resolve import use_env_python
from actors.tasks.text_encoder import BYTES
from cluster.runs.config import RunConfig
from cluster.runs.overrides import override, told_paths
from cluster.runs.task_settings import has_derived, with_derived, without_derived

SLACK = "replay.limiter.slack_tokens"


def with_changes(config: RunConfig, settings: Sequence[str], folder: Path) -> RunConfig:
    """The run with `path=value` settings. More updates let the learner read more: what follows from
    the updates follows again, and the slack of any other limiter grows by the tokens that they
    read, which nobody may be there to insert.

    Args:
        config: Of the run.
        settings: What is changed.
        folder: Of the run, where its text encoder is.

    Raises:
        ValueError: A setting is unknown or wrong.
    """
    changed = override(config, settings)
    more = changed.learner.num_updates - config.learner.num_updates
    told = told_paths(settings)
    if more <= 0 or SLACK in told:
        return changed
    use_env_python(changed.actors.env_python)
    text = config.text if config.text == BYTES else str(folder / config.text)
    here = replace(config, text=text)
    if has_derived(here):
        derived = with_derived(override(without_derived(here), settings), told=told)
        return replace(derived, text=changed.text)
    mix, limiter = changed.replay.mix, changed.replay.limiter
    if limiter.reads_per_inserted_token is None:
        return changed
    slack_tokens = limiter.slack_tokens + more * mix.rows * mix.row_tokens
    limiter = replace(limiter, slack_tokens=slack_tokens)
    return replace(changed, replay=replace(changed.replay, limiter=limiter))
