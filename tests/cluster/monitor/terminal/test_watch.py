"""The picture of a run says what it should, at any width, however many tasks there are and whatever
went wrong."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import pytest
from rich.console import Console

from cluster.journal.journal import START, Entry
from cluster.journal.records import Event, Record
from cluster.journal.redis_client import RedisAway
from cluster.monitor.fold import fold
from cluster.monitor.format import duration_text
from cluster.monitor.scores import Scale
from cluster.monitor.summary import Summary
from cluster.monitor.terminal.watch import GIVE_UP_S, render, watch_live
from gato.metrics import Amount, Evaluation, LearnerReport, Mean, ReplayStats, WorkerReport
from gato.version import Version

BEGIN_S = 1_000.0


def task_names(num_tasks: int) -> list[str]:
    return [f"mujoco/task{number}-with-a-long-name" for number in range(num_tasks)]


def scales(num_tasks: int) -> dict[str, Scale]:
    return {
        name: Scale(random_return=20.0, teacher_return=3220.0) for name in task_names(num_tasks)
    }


def records(num_tasks: int, num_versions: int = 5) -> list[Record]:
    kept: list[Record] = [Event(kind="started", text="with 2 workers", time_s=BEGIN_S)]
    for number in range(1, num_versions + 1):
        kept.append(
            LearnerReport(
                step=100 * number,
                num_updates=1000,
                version=Version(1, number),
                loss=Mean(6.0, 4),
                learning_rate=1e-4,
                gradient_norm=1.0,
                tokens=25_000,
                wall_s=2.0,
                wait_s=0.01,
            )
        )
        for name in task_names(num_tasks):
            returns = (20.0 + 400.0 * number, 20.0 + 440.0 * number)
            kept.append(
                Evaluation(
                    task=name,
                    version=Version(1, number),
                    learner_step=100 * number,
                    returns=returns,
                )
            )
            kept.append(
                WorkerReport(
                    worker="worker-0",
                    role="generate",
                    task=name,
                    version=Version(1, max(1, number - 1)),
                    episodes=2,
                    env_steps=1500,
                    wall_s=1.0,
                )
            )
    episodes = dict.fromkeys(task_names(num_tasks), 7)
    kept.append(
        ReplayStats(
            episodes=episodes,
            steps=7000,
            inserted_tokens=1,
            read_tokens=1,
            stored_bytes=25_000_000,
            capacity_bytes=100_000_000,
        )
    )
    return kept


def entries(of: list[Record]) -> list[Entry]:
    return [Entry(f"{place + 1}-0", BEGIN_S + place, record) for place, record in enumerate(of)]


def folded(num_tasks: int, of: list[Record]) -> Summary:
    summary = Summary(run="demo", scales=scales(num_tasks))
    for entry in entries(of):
        summary = fold(summary, *entry)
    return summary


def drawn(
    summary: Summary, columns: int = 80, *, encoding: str = "utf-8", now_s: float | None = None
) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    console = Console(file=file, width=columns, color_system=None)
    console.print(render(summary, now_s=now_s))
    file.seek(0)
    text = file.read()
    assert max(len(line) for line in text.splitlines()) <= columns
    return text


@pytest.mark.parametrize("num_tasks", [1, 2, 12])
@pytest.mark.parametrize("columns", [80, 100, 120, 200])
def test_every_task_has_its_line_at_any_width(num_tasks: int, columns: int) -> None:
    text = drawn(folded(num_tasks, records(num_tasks)), columns)
    for number in range(num_tasks):
        (line,) = [line for line in text.splitlines() if f"task{number}-" in line and "±" in line]
        for part in ("2,120 ± 100", "0.66", "▂", "█", "1.5", "500", "3,220"):
            assert part in line.replace("▆", "█")
        assert "…" not in line.split("±")[1], "numbers are never cut"
    for part in (
        "demo",
        "running",
        "500/1,000",
        "50%",
        "loss 1.50",
        "12.5k tok",
        "0.5%",
        "25%",
        "episodes",
    ):
        assert part in text
    assert "25.0 MB of 100.0 MB" in text
    assert "weights: 1 version" in text
    assert "worker-0" in text
    assert "with 2 workers" in text


def test_before_anything_has_happened_it_says_so() -> None:
    text = drawn(Summary(run="demo", scales=scales(2)))
    for part in (
        "demo",
        "starting",
        "no update yet",
        "no episode yet",
        "0 workers",
        "task0",
        "task1",
        "waiting",
    ):
        assert part in text


def test_a_worker_in_a_long_evaluation_is_not_forgotten() -> None:
    summary = folded(1, records(1))
    assert "1 worker " in drawn(summary)
    text = drawn(summary, now_s=summary.last_s + 180.0)
    assert "0 workers · 1 not heard of for 3 min" in text
    ended = fold(summary, "999-0", BEGIN_S + 900.0, Event(kind="finished", text=""))
    assert "not heard of for" not in drawn(ended, now_s=BEGIN_S + 9000.0)


def test_a_run_without_tasks_can_be_drawn() -> None:
    assert "demo" in drawn(Summary(run="demo"))


def test_failed_evaluations_and_refused_episodes_are_named() -> None:
    of = records(2)
    of.append(
        Evaluation(
            task=task_names(2)[0],
            version=Version(1, 6),
            learner_step=600,
            failed="the\nsimulation broke",
        )
    )
    of.append(
        ReplayStats(
            episodes={},
            steps=0,
            inserted_tokens=0,
            read_tokens=0,
            stored_bytes=0,
            capacity_bytes=1,
            refused={"rewards is not finite": 3},
        )
    )
    text = drawn(folded(2, of), 120)
    assert "evaluation failed" in text
    assert "1 so far: the simulation broke" in text
    assert "3 x rewards is not finite" in text
    assert "2,120 ± 100" in text, "the last good evaluation stays"


def test_what_is_stored_but_not_read_is_named() -> None:
    of = records(1)
    unread = {task_names(1)[0]: {"below 80% of the best": Amount(episodes=6, steps=5000)}}
    of.append(
        ReplayStats(
            episodes={task_names(1)[0]: 7},
            steps=7000,
            inserted_tokens=1,
            read_tokens=1,
            stored_bytes=1,
            capacity_bytes=2,
            left_out=unread,
            evicted=4,
        )
    )
    text = drawn(folded(1, of), 140)
    assert "of 7 episodes 6 (5,000 steps) below 80% of the best" in text
    assert "4 episodes made room for others" in text


def test_what_tokens_lose_is_named_until_an_evaluation_loses_nothing() -> None:
    evaluation = Evaluation(
        task=task_names(1)[0],
        version=Version(1, 6),
        learner_step=600,
        returns=(1.0,),
        warnings=("state[0]: 9 % clipped",),
    )
    text = drawn(folded(1, [evaluation]), 120)
    assert "values lost" in text
    assert "state[0]: 9 % clipped" in text
    assert "tokens lose" not in drawn(
        folded(1, [evaluation, replace(evaluation, warnings=())]), 120
    )


def test_a_task_whose_evaluations_all_failed_is_not_waiting() -> None:
    text = drawn(
        folded(
            1,
            [
                Evaluation(
                    task=task_names(1)[0], version=Version(1, 1), learner_step=0, failed="broke"
                )
            ],
        )
    )
    assert "failed" in text
    assert "waiting" not in text


def test_a_learner_that_says_nothing_is_named() -> None:
    summary = folded(1, records(1))
    assert "silent" not in drawn(summary)
    assert "silent for 1 min" in drawn(summary, now_s=summary.last_s + 60)


def test_what_people_wrote_is_never_taken_for_markup() -> None:
    text = drawn(
        folded(1, [Event(kind="[bold]x", text="[red]a[/red] [/oops]", time_s=BEGIN_S)]), 120
    )
    assert "[red]a[/red] [/oops]" in text


def test_a_terminal_without_unicode_gets_plain_characters() -> None:
    of = [*records(1), Event(kind="refused", text="≥ 1 «bad» episode", time_s=BEGIN_S)]
    assert "2,120 +- 100" in drawn(folded(1, of), encoding="ascii")


def test_the_time_of_a_run_ends_with_it() -> None:
    summary = folded(1, records(1))
    assert summary.first_s is not None
    assert "running 2 min" in drawn(summary, now_s=summary.first_s + 121.0)
    ended = folded(1, [*records(1), Event(kind="finished", text="")])
    assert ended.first_s is not None
    took = duration_text(ended.last_s - ended.first_s)
    assert f"finished {took} " in drawn(ended, now_s=ended.last_s + 86_400.0)


def test_an_event_that_lists_a_whole_batch_is_cut() -> None:
    names = ", ".join(f"w0.3b7c9797b84f.{number}" for number in range(200))
    event = Event(kind="problem", text=f"the loss was 9; episodes: {names}", time_s=BEGIN_S)
    text = drawn(folded(1, [*records(1), event]))
    assert "the loss was 9" in text
    assert "w0.3b7c9797b84f.199" not in text
    assert " ".join(text.replace("│", " ").split()).endswith(
        "... (all of it: gato watch --once --json) ╰" + 78 * "─" + "╯"
    )
    unbroken = drawn(folded(1, [*records(1), replace(event, text="x" * 300)]))
    assert unbroken.count("x") >= 200
    failed = drawn(folded(1, [*records(1), replace(event, kind="failed")]))
    assert "w0.3b7c9797b84f.199" in failed


def test_on_a_low_screen_workers_make_way_for_the_last_events() -> None:
    of = records(2)
    worker = WorkerReport(
        worker="w",
        role="demonstrate",
        task=task_names(2)[0],
        version=None,
        episodes=1,
        env_steps=1,
        wall_s=1.0,
    )
    of += [replace(worker, worker=f"worker-{number}") for number in range(12)]
    console = Console(
        file=io.StringIO(), width=80, height=20, force_terminal=True, color_system=None
    )
    with console.capture() as captured:
        console.print(render(folded(2, of)))
    text = captured.get()
    assert len(text.splitlines()) < 20
    for part in ("worker-0", "and 8 more", "with 2 workers"):
        assert part in text


class Script:
    """A journal that gives one batch a read; after the last it does what `end` says."""

    def __init__(self, batches: list[list[Entry]], end: BaseException | None = None) -> None:
        self.batches = batches
        self.end = end

    def read(
        self, after_id: str = START, *, block_s: float = 0.0, count: int = 1000
    ) -> list[Entry]:
        if self.batches:
            return self.batches.pop(0)
        if self.end is not None:
            raise self.end
        return []


def watched(
    journal: Script, *, terminal: bool, step_s: float = 1.0, until_ended: bool = True
) -> tuple[Summary, str]:
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    clock = itertools.count(BEGIN_S, step_s)
    summary = watch_live(
        journal,
        run="demo",
        scales=scales(1),
        console=console,
        clock=lambda: next(clock),
        until_ended=until_ended,
    )
    assert isinstance(console.file, io.StringIO)
    return summary, console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_ends_with_the_run_and_shows_its_last_state(terminal: bool) -> None:
    batches = [[entry] for entry in entries([*records(1), Event(kind="stopped", text="bye")])]
    summary, text = watched(Script(batches), terminal=terminal)
    assert summary.state == "stopped"
    assert "bye" in text
    assert "2,120 ± 100" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_ends_watching_quietly(terminal: bool) -> None:
    summary, text = watched(Script([entries(records(1))], KeyboardInterrupt()), terminal=terminal)
    assert summary.state == "running"
    assert "Traceback" not in text


def test_a_journal_that_stays_away_is_named_and_given_up() -> None:
    gone = RedisAway("Connection refused")
    summary, text = watched(Script([entries(records(1))], gone), terminal=False, step_s=3.0)
    assert summary.state == "running"
    assert "has not answered for" in text


def test_without_a_terminal_it_is_printed_now_and_then() -> None:
    batches: list[list[Entry]] = [entries(records(1)), *[[] for _ in range(40)]]
    _, text = watched(Script(batches, KeyboardInterrupt()), terminal=False, step_s=0.5)
    assert 3 <= text.count("╭") <= 6
    assert "\x1b" not in text
    assert GIVE_UP_S > 10


def test_watching_ends_when_it_is_told_that_the_run_is_gone_and_raises_ctrl_c_if_asked() -> None:
    console = Console(file=io.StringIO(), width=80)
    asked = iter([False, True])
    script = Script([entries(records(1)), [], []])
    summary = watch_live(
        script, run="demo", scales=scales(1), console=console, give_up=lambda: next(asked)
    )
    assert summary.state == "running"
    with pytest.raises(KeyboardInterrupt):
        watch_live(
            Script([entries(records(1))], KeyboardInterrupt()),
            run="demo",
            scales=scales(1),
            console=console,
            raises_interrupt=True,
        )
