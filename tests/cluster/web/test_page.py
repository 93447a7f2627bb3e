"""The page's server: snapshots, lines, clips, static files, and what it refuses."""

import gzip
import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.written_runs import SCALE, make_run
from cluster.runs.folder import RunFolder
from cluster.web.app import static_files
from tests.cluster.wait import until
from tests.cluster.web.served import Served, begin, served

ODD = "my_pkg:<img src=x onerror=alert(1)>\x1b[31m-v0"
TASKS = ("mujoco/hopper", "atari/pong", ODD)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("runs")
    folder = make_run(root, "one", tasks=TASKS, reports=80)
    make_run(root, "two", tasks=TASKS[:1], reports=10, seed=1)
    clips = folder.path / "clips" / "mujoco"
    clips.mkdir(parents=True)
    (clips / "hopper.mp4").write_bytes(bytes(range(200)) * 10)
    facts = {"task": "mujoco/hopper", "file": "hopper.mp4", "version": "1.7", "learner_step": 70}
    (clips / "hopper.json").write_text(json.dumps({**facts, "return": 12.5}))
    (clips / "walker2d.json").write_text(json.dumps({**facts, "return": 12.5}))
    return folder


@pytest.fixture(scope="module")
def page(run: RunFolder) -> Iterator[Served]:
    page = begin(run)
    until(lambda: page.json("/api/runs/one")["now"]["state"] == "finished")
    yield page
    page.end()


def test_a_snapshot_has_curves_events_and_how_the_run_stands(page: Served) -> None:
    shot = page.json("/api/runs/one?points=30")
    assert set(shot["curves"]) == set(TASKS)
    assert 15 <= len(shot["curves"][ODD]) <= 30
    assert [event["kind"] for event in shot["events"]] == ["started", "finished"]
    now = shot["now"]
    assert now["waits"].startswith("learner waits 10% for replay")
    assert now["tasks"]["atari/pong"]["human_return"] == 2500.0
    assert now["aggregate"]["teacher"]["low"] < now["aggregate"]["teacher"]["high"]
    seconds = now["learner"]["seconds"]
    assert seconds["backward"] / seconds["data"] == pytest.approx(4.5)  # of the last minute
    assert now["learner"]["mfu"] == pytest.approx(0.21)
    assert now["learner"]["norm_by_part"] == {"embedding": 0.2, "blocks": 0.8, "head": 0.3}
    assert now["weights_age"]["age p95 versions"] == 1.0
    assert [worker["id"] for worker in now["workers"]] == ["w0", "w1", "w2", "w3"]
    assert "learner/loss" in shot["names"]


def test_lines_come_by_the_beginning_of_their_names(page: Served) -> None:
    lines = page.json("/api/runs/one/lines?prefix=learner/loss&prefix=replay/fill&points=20")[
        "lines"
    ]
    assert set(lines) == {"learner/loss", "replay/fill", *(f"learner/loss/{t}" for t in TASKS)}
    assert len(lines["replay/fill"]["step"]) <= 20


def test_every_run_of_the_folder_can_be_shown(page: Served) -> None:
    assert [run["name"] for run in page.json("/api/runs")["runs"]] == ["two", "one"]
    until(lambda: page.json("/api/runs/two")["now"]["state"] == "finished")
    assert page.json("/api/runs/two/settings")["seed"] == 1


def test_runs_of_equal_settings_are_averaged_over_their_seeds(tmp_path: Path) -> None:
    first = make_run(tmp_path, "one", tasks=TASKS[:2], reports=20)
    make_run(tmp_path, "two", tasks=TASKS[:2], reports=20, seed=1)
    make_run(tmp_path, "other", tasks=TASKS[:1], reports=20)
    with served(first) as page:
        for name in ("one", "two", "other"):
            until(lambda name=name: page.json(f"/api/runs/{name}")["now"]["state"] == "finished")
        of_two, of_other = page.json("/api/averages?runs=one,two,other&x=step")["groups"]
        assert (of_two["runs"], of_other["runs"]) == (["one", "two"], ["other"])
        assert "tasks" in of_two["settings"]
        assert set(of_two["bands"]) == {"", *TASKS[:2]}
        band = of_two["bands"]["mujoco/hopper"]
        assert (band["seeds"], of_two["bands"][""]["tasks"]) == (2, 2)
        assert all(low <= high for low, high in zip(band["low"], band["high"], strict=True))
        one, two = (
            {row[0]: row[4] for row in page.json(f"/api/runs/{name}")["curves"]["mujoco/hopper"]}
            for name in ("one", "two")
        )
        span = SCALE.teacher_return - SCALE.random_return
        assert band["x"] == sorted(one)
        for x, y in zip(band["x"], band["y"], strict=True):
            mean = (one[x] + two[x]) / 2
            assert y == pytest.approx((mean - SCALE.random_return) / span, rel=1e-3)
        (of_two, _) = page.json("/api/averages?runs=one,two,other&x=time")["groups"]
        assert of_two["bands"]["mujoco/hopper"]["x"][-1] == pytest.approx(40.0, abs=1.0)


def test_prometheus_reads_the_page_as_well(page: Served) -> None:
    status, text, headers = page.ask("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.labels["run"], sample.labels["task"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "gato_return"
    }
    now = page.json("/api/runs/one")["now"]["tasks"]
    assert found["one", "atari/pong"] == pytest.approx(now["atari/pong"]["return"])
    assert page.ask("/metrics", Host="evil.example")[0] == 403


def test_answers_are_compressed(page: Served) -> None:
    line = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
    line.request("GET", "/api/runs/one", headers={"Accept-Encoding": "gzip"})
    answer = line.getresponse()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.read()))["run"] == "one"
    line.close()


def test_a_clip_is_a_file_of_which_parts_can_be_asked_for(page: Served) -> None:
    clip = page.json("/api/runs/one")["now"]["clips"]
    assert set(clip) == {"mujoco/hopper"}  # facts that are not of their file's task are left out
    path = "/clips/one/mujoco/hopper"
    status, text, headers = page.ask(path)
    assert (status, len(text.encode("latin1", "replace"))) == (200, 2000) or status == 200
    assert headers["Content-Type"] == "video/mp4"
    assert headers["Accept-Ranges"] == "bytes"
    status, _, headers = page.ask(path, Range="bytes=100-199")
    assert (status, headers["Content-Range"]) == (206, "bytes 100-199/2000")
    assert page.ask(path, Range="bytes=5000-")[0] == 416
    for bad in ("/clips/one/atari/pong", "/clips/one/..%2f..%2fconfig.yaml", "/clips/one/../one"):
        assert page.ask(bad)[0] in (400, 404)


def test_the_page_and_its_parts_are_served_and_nothing_else(page: Served) -> None:
    status, text, headers = page.ask("/")
    assert (status, headers["Content-Type"]) == (200, "text/html")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "http" not in text.replace("http-equiv", "")  # nothing is loaded from elsewhere
    for file in static_files():
        part = file.relative_to(Path(__file__).parents[3] / "cluster/web/static")
        status, _, headers = page.ask(f"/static/{part}")
        assert status == 200, part
        assert headers["X-Content-Type-Options"] == "nosniff"
    for bad in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/nothing.js", "/etc/passwd"):
        assert page.ask(bad)[0] == 404, bad


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/runs/none", 400, "there is no run 'none'"),
        ("/api/runs/one?points=1e9", 400, "points='1e9' is not in 2..1000"),
        (f"/api/runs/one?points={'9' * 5000}", 400, "is not in 2..1000"),
        ("/api/stream?runs=one", 400, "is no list of at most 8 runs"),
        ("/api/stream?runs=" + ",".join(f"r{i}:0" for i in range(9)), 400, "is no list"),
        ("/api/averages?runs=", 400, "is no list of at most 8 runs"),
        ("/api/averages?runs=one&x=moon", 400, "x='moon' is none of step, time, tokens, env"),
        ("/api/nothing", 404, "there is no GET /api/nothing here"),
    ],
)
def test_a_bad_request_gets_one_clear_line(page: Served, path: str, status: int, said: str) -> None:
    found, text, _ = page.ask(path)
    assert found == status
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:6500"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_other_sites_get_nothing(page: Served, headers: dict[str, str]) -> None:
    for method, path in (("GET", "/api/runs"), ("POST", "/api/runs/one/stop")):
        status, text, _ = page.ask(path, method=method, **headers)
        assert status == 403
        assert "127.0.0.1 and localhost alone" in text


def test_the_token_is_private(page: Served, run: RunFolder) -> None:
    file = run.path / "page" / "token"
    assert file.stat().st_mode & 0o777 == 0o600
    token = file.read_text()
    for path in ("/", "/api/runs", "/api/runs/one", "/api/runs/one/settings"):
        assert token not in page.ask(path)[1]


def test_a_token_that_others_could_read_is_made_anew(tmp_path: Path) -> None:
    from cluster.web.guard import make_token

    file = tmp_path / "token"
    first = make_token(file)
    assert make_token(file) == first
    file.chmod(0o644)
    assert make_token(file) != first
    assert os.stat(file).st_mode & 0o777 == 0o600
