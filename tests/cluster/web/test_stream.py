"""The event stream goes on from any entry, also at another server, and is refused clearly."""

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.written_runs import BEGIN_S, append, evaluation, make_run
from cluster.journal.records import Event
from cluster.runs.folder import RunFolder
from cluster.web.stream import MAX_STREAMS, read_places
from tests.cluster.wait import until
from tests.cluster.web.served import Served, begin, served

HOPPER = "mujoco/hopper"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path, "one", tasks=(HOPPER,), reports=20, ends=False)


def play(run: RunFolder, number: int, mean: float = 500.0) -> None:
    record = evaluation(HOPPER, number, mean, np.random.default_rng(number))
    append(run, [(BEGIN_S + 2.0 * number, record)])


def caught_up(page: Served) -> int:
    """Number of the last entry, once the page has read the whole journal."""
    until(lambda: page.json("/api/runs/one")["now"]["problem"] == "")
    return page.json("/api/runs/one")["last"]


def test_what_is_written_is_told_within_two_seconds(run: RunFolder) -> None:
    with served(run) as page:
        last = caught_up(page)
        stream = page.stream(f"one:{last}")
        for number in range(21, 26):
            begun_s = time.monotonic()
            play(run, number)
            told, data = stream.next("changes")
            assert time.monotonic() - begun_s < 2.0
            assert (data["after"], data["last"]) == (last, last + 1)
            assert data["changes"][0]["task"] == HOPPER
            assert data["changes"][0]["point"][0] == 10 * number
            last += 1
            assert told == f"one:{last}"
        stream.close()


def test_it_goes_on_after_the_last_event_at_another_server(run: RunFolder) -> None:
    page = begin(run)
    last = caught_up(page)
    page.end()
    play(run, 21)
    play(run, 22)
    with served(run) as again:
        assert again.port == page.port  # so that open tabs find it
        stream = again.stream("one:0", Last_Event_ID=f"one:{last}")
        told, data = stream.next("changes")
        stream.close()
    assert told == f"one:{last + 2}"
    assert data["after"] == last
    assert [change["point"][0] for change in data["changes"]] == [210, 220]


def test_it_goes_on_where_no_history_was_kept(run: RunFolder) -> None:
    page = begin(run)
    last = caught_up(page)
    page.end()
    (run.path / "page" / "history.json.gz").unlink()  # killed before it was written
    play(run, 21)
    with served(run) as again:
        stream = again.stream("one:0", Last_Event_ID=f"one:{last}")
        _, data = stream.next("changes")
        stream.close()
    assert (data["after"], [change["id"] for change in data["changes"]]) == (last, [last + 1])


def test_a_place_beyond_the_journal_is_reset(run: RunFolder) -> None:
    with served(run) as page:
        caught_up(page)
        stream = page.stream("one:999999")
        assert stream.next("reset")[1] == {"run": "one"}
        stream.close()


def test_a_history_of_a_longer_journal_is_made_again(run: RunFolder) -> None:
    with served(run) as page:
        last = caught_up(page)
        play(run, 21)
        until(lambda: page.json("/api/runs/one")["last"] > last)
    lines = sorted((run.path / "journal").glob("*.log"))[0]
    lines.write_bytes(b"".join(lines.read_bytes().splitlines(keepends=True)[:30]))
    with served(run) as page:
        until(lambda: page.json("/api/runs/one")["last"] == 30)


def test_more_streams_than_allowed_are_refused_with_a_reason(run: RunFolder) -> None:
    with served(run) as page:
        last = caught_up(page)
        streams = [page.stream(f"one:{last}") for _ in range(MAX_STREAMS)]
        status, text, headers = page.ask(f"/api/stream?runs=one:{last}")
        assert status == 503
        assert f"{MAX_STREAMS} streams are open" in text
        assert headers["Retry-After"] == "5"
        begun_s = time.monotonic()
        assert page.json("/api/runs/one")["last"] == last
        assert time.monotonic() - begun_s < 1.0
        streams.pop().close()
        until(lambda: stream_opens(page, last))
        for stream in streams:
            stream.close()


def stream_opens(page: Served, last: int) -> bool:
    stream = page.stream(f"one:{last}")
    stream.close()
    return stream.answer.status == 200


def test_events_and_their_names_are_told_as_they_are(run: RunFolder) -> None:
    with served(run) as page:
        last = caught_up(page)
        stream = page.stream(f"one:{last}")
        odd = "w\x1b]0;x\x07<b>\n</script>"
        append(run, [(BEGIN_S + 99, Event(kind="worker died", text=odd, time_s=BEGIN_S + 99))])
        _, data = stream.next("changes")
        stream.close()
    assert data["changes"][0]["event"]["text"] == odd


@pytest.mark.parametrize("text", ["", "one", "one:-1", "a b:1", "one:1,one:2", "../x:1", "one:1,"])
def test_a_list_of_places_is_checked(text: str) -> None:
    with pytest.raises(ValueError, match="no list of at most"):
        read_places(text)
