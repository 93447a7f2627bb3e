"""Only who has the token changes a run, and what is asked is checked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.written_runs import make_run
from cluster.control.run_journal import open_journal
from cluster.journal.journal import Control
from cluster.journal.writer import JournalWriter
from cluster.runs.folder import RunFolder
from cluster.web.steering import steer
from tests.cluster.wait import until
from tests.cluster.web.served import Served, begin

WORDS: list[tuple[str, Any]] = [
    ("stop", {}), ("scale", {"workers": 3}), ("roles", {"relabel": 0.5}),
]  # fmt: skip


class Live:
    """A run that takes words, with its page."""

    def __init__(self, folder: RunFolder, journal: JournalWriter, page: Served) -> None:
        self.folder = folder
        self.journal = journal
        self.page = page
        self.token = (folder.path / "page" / "token").read_text()

    def words(self) -> list[Control]:
        return self.journal.take_control()

    def state(self) -> tuple[str, str, int]:
        folder = self.folder.path
        return (
            (folder / "config.yaml").read_text(),
            (folder / "run.json").read_text(),
            self.journal.last_number,
        )


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = make_run(tmp_path_factory.mktemp("runs"), "one", reports=3, ends=False)
    folder.set_state("running")
    with open_journal(folder, None) as journal:
        page = begin(folder)
        until(lambda: page.json("/api/runs/one")["now"]["problem"] == "")
        yield Live(folder, journal, page)
        page.end()


def ask(live: Live, word: str, body: Any, **headers: str) -> tuple[int, str]:
    status, text, _ = live.page.ask(f"/api/runs/one/{word}", method="POST", body=body, **headers)
    return status, text


@pytest.mark.parametrize(("word", "body"), WORDS)
def test_without_the_token_nothing_changes(live: Live, word: str, body: Any) -> None:
    token, before = live.token, live.state()
    for headers in (
        {}, {"Authorization": "Bearer wrong"}, {"Authorization": token}, {"Cookie": f"t={token}"},
        {"Authorization": "Bearer "}, {"X-Token": token}, {"Authorization": f"Bearer {token}x"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ):  # fmt: skip
        assert ask(live, word, {**body, "token": token}, **headers)[0] == 401
        assert ask(live, f"{word}?token={token}", body, **headers)[0] == 401
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
        for given in ({}, {"Authorization": f"Bearer {token}"}):
            status, _, _ = live.page.ask(
                f"/api/runs/one/{word}?token={token}", method=method, body=body, **given
            )
            assert status in (404, 405)
    assert live.state() == before
    assert live.words() == []


def test_another_site_changes_nothing_even_with_the_token(live: Live) -> None:
    given = {"Authorization": f"Bearer {live.token}", "Origin": "http://evil.example"}
    assert ask(live, "stop", {}, **given)[0] == 403
    assert live.words() == []


def test_roles_are_set(live: Live) -> None:
    status, text = ask(live, "roles", {"relabel": 0.25}, Authorization=f"Bearer {live.token}")
    assert (status, "asked for other shares" in text) == (200, True)
    assert live.folder.config().actors.relabel_share == 0.25
    (word,) = until(live.words)
    assert (word.word, word.value) == ("roles", '{"relabel_share": 0.25}')


def test_a_run_is_stopped(live: Live) -> None:
    status, text = ask(live, "stop", {}, Authorization=f"Bearer {live.token}")
    assert (status, "was asked to stop" in text) == (200, True)
    assert [word.word for word in until(live.words)] == ["stop"]


@pytest.mark.parametrize(
    ("word", "body", "said"),
    [
        ("scale", {"workers": -1}, "workers is -1, expected a whole number"),
        ("scale", {"workers": 1.5}, "workers is 1.5, expected"),
        ("scale", {"workers": True}, "workers is True, expected"),
        ("scale", {}, "workers is None, expected"),
        ("scale", {"workers": 1, "more": 2}, "'more' cannot be set here; there are: workers"),
        ("scale", [1], "the body is no JSON object"),
        ("roles", {}, "expected shares from 0 to 1"),
        ("roles", {"relabel": 1.5}, "expected shares from 0 to 1"),
        ("roles", {"learn": 0.5}, "'learn' cannot be set here"),
        ("stop", {"now": True}, "'now' cannot be set here; there are: none"),
        ("delete", {}, "'delete' cannot be asked for; there are stop, scale"),
    ],
)
def test_what_is_asked_is_checked(live: Live, word: str, body: Any, said: str) -> None:
    before = live.state()
    status, text = ask(live, word, body, Authorization=f"Bearer {live.token}")
    assert (status, said in text) == (400, True), text
    assert (live.state(), live.words()) == (before, [])


def test_brackets_in_brackets_are_no_json_object(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", reports=2)
    with pytest.raises(ValueError, match="the body is no JSON object"):
        steer(folder, "scale", b"[" * 4000)


def test_a_run_that_has_ended_is_not_steered(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", reports=2)
    page = begin(folder)
    token = (folder.path / "page" / "token").read_text()
    for word, body in WORDS:
        status, text, _ = page.ask(
            f"/api/runs/one/{word}", method="POST", body=body, Authorization=f"Bearer {token}"
        )
        assert (status, text) == (400, "run one is finished, not running")
    page.end()
