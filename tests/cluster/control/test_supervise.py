"""What a run that cannot begin leaves behind."""

from pathlib import Path

import pytest
from rich.console import Console

from cluster.control import supervise
from cluster.control.page import SWITCH
from cluster.control.run_journal import own_summary
from cluster.control.session import Session
from cluster.control.supervise import Connections, supervise_or_fail
from cluster.monitor.alerts import standing_alerts
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS


def test_a_run_that_cannot_be_prepared_has_failed_in_its_journal_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status and page read the journal: without this event they show the run as running."""
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    monkeypatch.setenv(SWITCH, "off")
    for name in ("connect_ray", "keep_session"):
        monkeypatch.setattr(supervise, name, lambda *_, **__: None)

    def broken(session: Session, console: Console) -> None:
        raise ValueError("no GPU for 2 learners")

    monkeypatch.setattr(Session, "prepare", broken)
    folder = RunFolder.create(RUNS["debug"])
    options = Connections(address=None, redis_url=None, redis_port=None)
    with pytest.raises(ValueError, match="no GPU"):
        supervise_or_fail(RUNS["debug"], folder, options, Console(quiet=True))
    summary = own_summary(folder)
    assert (folder.info().state, summary.state) == ("failed", "failed")
    assert [alert.text for alert in standing_alerts(summary, summary.last_s + 1.0)] == [
        "no GPU for 2 learners"
    ]
