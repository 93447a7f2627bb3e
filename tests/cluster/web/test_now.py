"""What the page is told of workers and clips."""

import json
from dataclasses import replace
from pathlib import Path

from benchmarks.written_runs import make_run
from cluster.journal.records import Event
from cluster.monitor.fold import fold
from cluster.monitor.summary import Summary
from cluster.web.now import MAX_WORKERS, clips_of, last_faults, now_of
from gato.metrics import WorkerReport

REPORT = WorkerReport(
    worker="w0", role="generate", task="t", version=None, episodes=1, env_steps=10, wall_s=1.0
)


def folded(*records: Event | WorkerReport) -> Summary:
    summary = Summary(run="one")
    for number, record in enumerate(records, start=1):
        summary = fold(summary, f"{number}-0", 1000.0, record)
    return summary


def test_a_worker_is_shown_with_what_went_wrong_with_it_last() -> None:
    summary = folded(
        Event(kind="worker died", text="w1 at evaluate of t; starts again where there is room"),
        Event(kind="no progress", text="worker w1 has been at one evaluate of t for 90 s"),
        Event(kind="worker failed", text="w12 at generate of t: no room"),
        Event(kind="scaled", text="w1 at nothing"),
        replace(REPORT, worker="w3", failed="broken"),
    )
    assert last_faults(summary) == {
        "w1": "no progress: been at one evaluate of t for 90 s",
        "w12": "worker failed: generate of t: no room",
        "w3": "failed: broken",
    }


def test_of_a_fleet_some_workers_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", reports=1)
    summary = folded(*(replace(REPORT, worker=f"w{number}") for number in range(MAX_WORKERS + 50)))
    now = now_of(summary, folder, "", False)
    # long ago, by the clock of the wall
    assert (now["num_workers"], now["num_gone"]) == (0, MAX_WORKERS + 50)
    now = now_of(replace(summary, state="finished"), folder, "", False)
    assert (now["num_workers"], len(now["workers"])) == (MAX_WORKERS + 50, MAX_WORKERS)
    assert [worker["id"] for worker in now["workers"][:3]] == ["w0", "w1", "w2"]


def test_a_run_whose_process_is_gone_is_dead_unless_it_had_ended(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", reports=1)
    running = folded(Event(kind="started", text="1 task"))
    assert now_of(running, folder, "", True)["state"] == "dead"
    assert now_of(replace(running, state="finished"), folder, "", True)["state"] == "finished"


def test_the_page_is_told_what_somebody_should_look_at(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "one", reports=1)
    event = Event(kind="task failed", text="<b>t</b> killed three workers")
    assert now_of(folded(), folder, "", False)["alerts"] == []
    alerts = now_of(folded(event), folder, "", False)["alerts"]
    assert alerts == [{"kind": "task failed", "text": "<b>t</b> killed three workers"}]


def test_facts_of_clips_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    facts = {"task": "a/b", "file": "b.mp4", "version": "1.2", "learner_step": 3, "return": 4.5}
    for name, text in (("a/b", json.dumps(facts)), ("a/c", json.dumps(facts)), ("d", "{")):
        file = tmp_path / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert clips_of(tmp_path / "nothing") == {}
    found = clips_of(tmp_path)
    assert set(found) == {"a/b"}
    assert {key: found["a/b"][key] for key in facts} == facts
