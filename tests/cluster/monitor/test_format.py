"""Names, keys and reasons come from files that anybody may have made: they neither steer a terminal
nor are markup."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from cluster.cli.main import main
from cluster.cli.replay.inspect import ls, stats
from cluster.cli.replay.maintain import verify
from cluster.cli.replay.peek import peek
from cluster.cli.watch import print_runs
from cluster.journal.records import Event
from cluster.monitor.fold import fold
from cluster.monitor.format import literal, printable
from cluster.monitor.scores import Scale
from cluster.monitor.summary import Summary
from cluster.monitor.table import print_table
from cluster.monitor.terminal.watch import render
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from gato.metrics import Evaluation, ReplayStats, WorkerReport
from gato.version import Version
from replay.storage.store import EpisodeStore
from tests.replay.episodes import counter_episode

EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202e[bold]b[/bold][/x]:bug:\\"
SHOWN = "a\\x1b[2J\\x1b]0;owned\\x07\\x9b31m\\u202e[bold]b[/bold][/x]:bug:\\"


def terminal(width: int = 400) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=100, emoji=False)


def shown_by(console: Console) -> str:
    """What a terminal shows: rich's own colours and lines drawn again are taken out, anything else
    of the kind fails the test."""
    assert isinstance(console.file, io.StringIO)
    text = re.sub(r"\x1b\[[0-9;]*[mKA]|\x1b\[\?25[lh]|\r", "", console.file.getvalue())
    assert all(line.isprintable() for line in text.splitlines()), repr(text)
    return text


@given(st.text())
def test_what_is_printable_stays_and_the_rest_becomes_it(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    assert text.isprintable() == (printable(text) == text)


# of which rich shows the bracket
@given(st.text(alphabet="ab[]/\\=@# 1").filter(lambda text: "\\[" not in text))
def test_a_literal_inside_of_markup_is_shown_as_it_is(text: str) -> None:
    assert Text.from_markup(f"[bold]{literal(text)}[/bold]").plain == text


def test_a_file_name_that_is_no_unicode_can_be_printed() -> None:
    assert printable("run-\udcff") == "run-\\udcff"


@pytest.mark.report("solana-labs/solana#20495", "microsoft/conductor#406")
def test_a_list_of_runs_shows_names_and_tasks_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    run = RunFolder.create(replace(RUNS["debug"], name="demo", tasks=(EVIL, "3")))
    renamed = RunFolder(tmp_path, "[red]x\x1b[2J")
    run.path.rename(renamed.path)
    file = renamed.path / "run.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"state": "\x1b[1mfinished", "created_s": 1e300})
    )
    console = terminal()
    print_runs(console)
    text = shown_by(console)
    for said in ("[red]x\\x1b[2J", SHOWN + ", 3", "\\x1b[1mfinished"):
        assert said in text


def test_a_table_shows_cells_as_they_are_and_as_wide_as_they_are() -> None:
    console = terminal()
    print_table(("name", "key"), [(EVIL, EVIL)], console, left=("name", "key"), clipped=("key",))
    assert shown_by(console).count(SHOWN) == 2


@pytest.mark.report("microsoft/conductor#387")
@pytest.mark.parametrize("width", [100, 400])
def test_a_picture_of_a_run_shows_what_the_journal_holds_as_it_is(width: int) -> None:
    summary = Summary(run=EVIL, scales={EVIL: Scale(random_return=0.0, teacher_return=1.0)})
    stats = ReplayStats(
        episodes={EVIL: 1},
        steps=1,
        inserted_tokens=1,
        read_tokens=0,
        stored_bytes=1,
        capacity_bytes=9,
        refused={EVIL: 2},
        duplicates=0,
        evicted=0,
        writers_waiting=0,
        readers_waiting=0,
        may_insert=True,
        who_waits=EVIL,
        incarnation=1,
    )
    records = [
        stats,
        Evaluation(task=EVIL, version=Version(1, 1), learner_step=1, failed=EVIL),
        WorkerReport(
            worker=EVIL,
            role=EVIL,
            task=EVIL,
            version=None,
            episodes=1,
            env_steps=1,
            wall_s=1.0,
            wait_s=0.0,
            node=EVIL,
        ),
        Event(kind=EVIL, text=EVIL),
        Event(kind="task failed", text=EVIL),
    ]
    for number, record in enumerate(records, 1):
        summary = fold(summary, f"{number}-0", 1000.0 + number, record)
    console = terminal(width)
    console.print(render(summary))
    text = shown_by(console)
    assert "a\\x1b[2J" in text
    if width > 200:
        assert text.count(SHOWN) >= 6


def test_an_episode_with_such_names_can_be_listed_peeked_at_counted_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    folder = tmp_path / "x\x1b[2J[bold]"
    store = EpisodeStore(folder, capacity_bytes=64 << 20)
    episode = replace(counter_episode(0, 10, source=EVIL), key=EVIL, info={EVIL: EVIL})
    store.add(episode, tokens=1)
    store.close()
    console = terminal()
    where = str(folder)
    ls(where, task=None, source=None, limit=0, order="number", as_json=False, console=console)
    peek("0", where, frames=None, console=console)
    stats(where, as_json=False, console=console)
    assert verify(where, repairs=False, console=console)
    text = shown_by(console)
    assert text.count(SHOWN) >= 5
    assert text.count("x\\x1b[2J[bold]") >= 3


def test_an_error_shows_a_path_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "\x1b[2J[bold]"))
    monkeypatch.setattr("sys.argv", ["gato", "status"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "\\x1b[2J[bold]; start one" in capsys.readouterr().err
