"""A run's numbers reach files, TensorBoard, Prometheus and a webhook: each once, also if the
follower is started again, while the run goes on or afterwards."""

from __future__ import annotations

import csv
import http.server
import json
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.exporters.follow import Follower
from cluster.exporters.metrics_server import MetricsServer
from cluster.exporters.series import Series
from cluster.exporters.sink import Feed
from cluster.exporters.webhook import Webhook, webhook_url
from cluster.journal.codec import encode
from cluster.journal.journal_file import JournalFile
from cluster.journal.records import Event, Record
from cluster.journal.segment_writer import SegmentWriter
from cluster.monitor.alerts import standing_alerts
from cluster.monitor.prometheus import metrics_text
from cluster.monitor.summary import Summary
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from gato.metrics import Evaluation, Mean, ReplayStats, WorkerReport
from gato.version import Version
from tests.cluster.cli.test_main import gato, here
from tests.cluster.journals import BEGIN_S, learner_report, written
from tests.cluster.wait import until

__all__ = ["here"]
TASK = "mujoco/hopper"
EVIL = 'a"\n\\{x="y"}\x1b[2J<b>'


def records() -> list[Record]:
    evaluation = Evaluation(
        task=TASK, version=Version(1, 10), learner_step=10, returns=(10.0, 30.0)
    )
    worker = WorkerReport(
        worker="w0", role="generate", task=TASK, version=Version(1, 10), episodes=2, env_steps=500,
        wall_s=2.0, wait_s=0.5, node="node-7",
    )  # fmt: skip
    stats = ReplayStats(
        episodes={TASK: 3}, steps=30, inserted_tokens=300, read_tokens=600, stored_bytes=25,
        capacity_bytes=100, refused={EVIL: 2},
    )  # fmt: skip
    return [
        Event(kind="started", text="1 task", time_s=BEGIN_S),
        replace(learner_report(10), seconds={"forward": 0.5, "backward": 1.0}, mfu=0.25),
        evaluation,
        replace(evaluation, returns=(50.0, 70.0)),
        worker,
        stats,
        learner_report(20, loss=0.5),
    ]


@pytest.fixture
def run(here: Path) -> RunFolder:
    folder = RunFolder.create(replace(RUNS["debug"], name="demo"))
    scale = {"random_return": 0.0, "teacher_return": 100.0}
    (folder.path / "scales.json").write_text(json.dumps({TASK: scale}))
    written(folder, [*records(), Event(kind="finished", text="all", time_s=BEGIN_S)])
    folder.set_state("finished")
    return folder


def append(run: RunFolder, *more: Record) -> None:
    with SegmentWriter(run.path / "journal") as lines:
        for record in more:
            lines.append(encode(record, time_s=BEGIN_S + lines.last))


def test_all_series_are_written_as_csv_and_as_parquet(
    run: RunFolder, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ("all.csv", "all.parquet"):
        status, out, _ = gato(monkeypatch, capsys, "export-metrics", "demo", file)
        assert status == 0
        assert "samples" in out
    rows = list(csv.DictReader((here / "all.csv").open(newline="")))
    table = pq.read_table(here / "all.parquet").to_pylist()
    assert [(r["name"], int(r["step"]), float(r["value"])) for r in rows] == [
        (r["name"], r["step"], r["value"]) for r in table
    ]
    found = {(r["name"], r["step"]): r["value"] for r in table}
    assert found["learner/loss", 20] == 0.5
    assert found["learner/tokens", 20] == 50_000
    assert found["learner/time_share/backward", 10] == 0.5
    assert found[f"evaluate/return/{TASK}", 10] == 60.0, "the same seeds, played again"
    assert found[f"evaluate/episodes/{TASK}", 10] == 2
    assert found[f"evaluate/normalised/{TASK}", 10] == 0.6
    assert found["workers/env_steps", 10] == 500
    assert found["replay/fill", 10] == 0.25
    for words, said in (
        (("demo", "x.txt"), ".csv or .parquet"),
        (("demo", "no/x.csv"), "no/x.csv"),
    ):
        status, _, err = gato(monkeypatch, capsys, "export-metrics", *words)
        assert status == 2
        assert said in err
    assert not list(here.glob("*.part"))


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """What event files hold, read by their format: length, CRC, event, CRC."""
    from tensorboardX.proto import event_pb2  # pyright: ignore[reportMissingTypeStubs]

    found: list[tuple[str, int, float]] = []
    for file in sorted(folder.glob("events.*")):
        data, place = file.read_bytes(), 0
        while place < len(data):
            size = int.from_bytes(data[place : place + 8], "little")
            event = event_pb2.Event.FromString(data[place + 12 : place + 12 + size])
            place += 16 + size
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
    return found


def test_event_files_get_each_point_once_also_from_a_follower_started_again(
    run: RunFolder, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("follow", "demo", "--tensorboard", "board")
    assert gato(monkeypatch, capsys, *words)[0] == 0
    first = scalars(here / "board")
    assert ("learner/loss", 20, 0.5) in first
    assert (f"evaluate/return/{TASK}", 10, 60.0) in first
    assert gato(monkeypatch, capsys, *words)[0] == 0
    assert scalars(here / "board") == first
    append(run, learner_report(30, loss=0.25))
    assert gato(monkeypatch, capsys, *words)[0] == 0
    later = scalars(here / "board")
    assert [row for row in later if row not in first and row[0] == "learner/loss"] == [
        ("learner/loss", 30, 0.25)
    ]
    assert ("learner/tokens", 30, 75_000) in later, "sums begin with the run, not the follower"


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def write(self, samples: object) -> None:
        self.names += [sample.name for sample in samples]  # pyright: ignore

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_a_run_that_goes_on_is_followed_to_its_end(run: RunFolder, tmp_path: Path) -> None:
    run.set_state("running")
    append(run, Event(kind="resumed", text="", time_s=BEGIN_S))
    sink, looks = Kept(), list[Summary]()
    follower = Follower(
        run, feeds=[Feed(sink, tmp_path / "at.json", "x")], look=lambda s, _: looks.append(s)
    )
    thread = threading.Thread(target=lambda: follower.follow(stays=False))
    thread.start()
    until(lambda: bool(looks))
    assert thread.is_alive()
    before = len(sink.names)
    append(run, learner_report(40), Event(kind="stopped", text="bye", time_s=BEGIN_S))
    thread.join(20.0)
    assert not thread.is_alive()
    assert "learner/loss" in sink.names[before:]
    assert looks[-1].state == "stopped"


def test_a_long_journal_is_looked_at_from_its_end_alone(run: RunFolder) -> None:
    append(run, Event(kind="resumed", text="", time_s=BEGIN_S))
    append(run, *(learner_report(30 + number, num_updates=9000) for number in range(2500)))
    append(run, Event(kind="finished", text="all", time_s=BEGIN_S))
    looks: list[Summary] = []
    Follower(run, look=lambda summary, _: looks.append(summary)).follow(stays=False)
    assert looks
    assert {summary.state for summary in looks} == {"finished"}


def families(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_prometheus_gets_the_state_of_a_run_under_stable_names(run: RunFolder) -> None:
    follower = Follower(run)
    follower.follow(stays=False)
    text = metrics_text([follower.summary, Summary(run=EVIL)], follower.summary.last_s)
    found = families(text)
    named = (("run", "demo"),)
    task = (*named, ("task", TASK))
    assert found["gato_learner_updates", named] == 20
    assert found["gato_return", task] == 60.0
    assert found["gato_return_normalised", task] == 0.6
    assert found["gato_replay_inserted_tokens_total", named] == 300
    assert found["gato_replay_rejected_episodes_total", (("reason", EVIL), *named)] == 2
    workers = (("node", "node-7"), ("role", "generate"), *named)
    assert found["gato_workers", tuple(sorted(workers))] == 1
    assert found["gato_run_state", (*named, ("state", "finished"))] == 1
    assert found["gato_run_state", (("run", EVIL), ("state", "starting"))] == 1
    page = Path("docs/how-to/exporters.md")
    page = Path(__file__).parents[3] / page
    documented = set(re.findall(r"`(gato_[a-z_]+)`", page.read_text()))
    assert {name for name, _ in found} == documented & {name for name, _ in found}


def test_names_that_have_no_utf_8_leave_the_other_metrics_readable() -> None:
    found = families(metrics_text([Summary(run="half \ud800"), Summary(run="demo")], 1.0))
    assert found["gato_run_state", (("run", "half \\ud800"), ("state", "starting"))] == 1
    assert found["gato_run_state", (("run", "demo"), ("state", "starting"))] == 1


def test_a_report_of_a_publication_alone_has_no_gradient_and_no_rate(run: RunFolder) -> None:
    last = replace(
        learner_report(20), loss=Mean(), tokens=0, wait_s=0.0, gradient_norm=0.0, mfu=0.0
    )
    waiting = replace(last, wait_s=2.0)
    append(run, waiting, last)
    entries = JournalFile(run.path / "journal").read()
    series = Series({})
    *_, of_waiting, of_last = [series.samples(entry) for entry in entries]
    told = {"learner/tokens", "learner/memory_bytes"}
    assert {sample.name for sample in of_last} == told
    rates = {sample.name: sample.value for sample in of_waiting if sample.name not in told}
    assert rates == {
        "learner/mfu": 0.0, "learner/tokens_per_s": 0.0, "learner/wait_share": 1.0,
        "learner/blocked_share": 0.0,
    }  # fmt: skip


def test_the_server_asks_for_its_token_and_answers_local_names_alone() -> None:
    def get(url: str, **headers: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as problem:
            return problem.code, problem.read()

    def text() -> bytes:
        return b"gato_x 1\n"

    with pytest.raises(ValueError, match="--token-file"):
        MetricsServer("0.0.0.0", 0, text=text, content_type="text/plain")
    with MetricsServer("127.0.0.1", 0, text=text, content_type="text/plain") as server:
        assert get(server.url) == (200, b"gato_x 1\n")
        assert get(server.url + "/x")[0] == 404
        assert get(server.url, Host="evil.example.org")[0] == 403
        assert get(server.url, Host="localhost:9464")[0] == 200
    with MetricsServer(
        "0.0.0.0", 0, text=text, content_type="text/plain", token="t" * 20
    ) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert get(url)[0] == 401
        assert get(url, Authorization="Bearer wrong")[0] == 401
        assert get(url, Authorization=f"Bearer {'t' * 20}") == (200, b"gato_x 1\n")


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, object]], list[int]]]:
    """A server on loopback: its URL, what was posted, and the statuses that it answers first."""
    posted, statuses = list[dict[str, object]](), list[int]()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = statuses.pop(0) if statuses else 204
            if status == 204:
                posted.append(json.loads(body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/secret", posted, statuses
    server.shutdown()
    server.server_close()
    thread.join()


def test_each_alert_is_posted_once_while_it_stands(
    hook: tuple[str, list[dict[str, object]], list[int]],
) -> None:
    url, posted, statuses = hook
    said: list[str] = []
    webhook = Webhook(url, "demo", said.append)
    alert = Event(kind="no progress", text="x", time_s=5.0)
    statuses.append(500)
    webhook.look([alert])
    assert posted == []
    assert said
    assert "secret" not in said[0]
    webhook.look([alert])
    webhook.look([alert])
    assert posted == [
        {
            "text": "gato run demo: no progress: x",
            "run": "demo",
            "kind": "no progress",
            "time_s": 5.0,
        }
    ]
    webhook.look([])
    webhook.look([replace(alert, time_s=9.0)])
    assert len(posted) == 2
    gone = Webhook("http://127.0.0.1:9/secret", "demo", said.append)
    for _ in range(5):
        gone.look([alert])
    assert len(said) == 4, "a URL that never answers is given up"


def test_the_follower_posts_alerts_of_the_journal(
    run: RunFolder,
    hook: tuple[str, list[dict[str, object]], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    append(run, Event(kind="failed", text="loss nan is not finite in step 3", time_s=BEGIN_S + 99))
    monkeypatch.setenv("GATO_WEBHOOK", hook[0])
    status, out, err = gato(monkeypatch, capsys, "follow", "demo")
    assert (status, err) == (0, "")
    assert [row["kind"] for row in hook[1]] == ["failed"]
    assert "secret" not in out


def test_a_webhook_is_named_by_a_file_or_the_environment(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "hook").write_text("https://example.org/x\n")
    assert webhook_url(f"@{here}/hook") == "https://example.org/x"
    with pytest.raises(ValueError, match="a webhook is a URL"):
        webhook_url("ftp://example.org")
    assert webhook_url(None) is None
    RunFolder.create(replace(RUNS["debug"], name="demo"))
    for words, said in (
        (("follow",), "nothing to hand on to"),
        (("follow", "--prometheus", "x"), "is not [HOST:]PORT"),
        (("follow", "--prometheus", "0.0.0.0:0"), "--token-file"),
        (("follow", "--trackio", "p"), "trackio is not installed"),
    ):
        status, _, err = gato(monkeypatch, capsys, *words)
        assert status == 2
        assert said in err
        assert len(err.strip().splitlines()) == 1


def test_alerts_stand_until_what_they_are_of_is_over() -> None:
    from cluster.monitor.fold import fold

    def after(*of: Record) -> Summary:
        summary = Summary(run="demo")
        for number, record in enumerate(of, start=1):
            summary = fold(summary, f"{number}-0", BEGIN_S + number, record)
        return summary

    started = Event(kind="started", text="", time_s=BEGIN_S)
    silent = Event(kind="no progress", text="nothing heard", time_s=BEGIN_S)
    broken = Event(kind="task failed", text="x failed 3 times; left alone", time_s=BEGIN_S)
    assert [a.kind for a in after(started, silent, broken).alerts] == ["no progress", "task failed"]
    assert [a.kind for a in after(started, silent, broken, learner_report(1)).alerts] == [
        "task failed"
    ]
    assert after(broken, Event(kind="resumed", text="")).alerts == ()
    running = after(started, learner_report(1))
    assert standing_alerts(running, running.learner_s + 29) == []
    (alert,) = standing_alerts(running, running.learner_s + 45)
    assert (alert.kind, alert.text) == (
        "no progress", "the learner has made no update for 45 s",
    )  # fmt: skip
    slow = after(started, replace(learner_report(1), wall_s=60.0))
    assert standing_alerts(slow, slow.learner_s + 100) == [], "its reports take a minute each"
    done = after(started, learner_report(1000))
    assert standing_alerts(done, done.learner_s + 100) == []


def test_a_webhook_that_speaks_no_http_costs_its_alert_alone() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"220 mail.example ESMTP\r\n")

        threading.Thread(target=greet, daemon=True).start()
        url = webhook_url(f"http://127.0.0.1:{server.getsockname()[1]}/hook")
        Webhook(url, "demo", said.append).look([Event(kind="failed", text="x", time_s=1.0)])
    assert "did not take an alert" in said[0]
