"""A worker: whole episodes by one version of the weights, never an older one; failures reported,
not averaged away."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from actors.assignment import Assignment, Role
from actors.delivery import EpisodeSink, Outbox
from actors.envs.factory import make_envs
from actors.envs.vector import VectorEnv
from actors.players.player import TimeStep
from actors.tasks.catalog import TASKS
from actors.teachers.scripted import UP
from actors.teachers.specialist import load_specialist
from actors.worker import WeightedPlayer, WeightsSource, Worker
from gato.episode import Episode, check_episode
from gato.task import Task
from gato.tokenizer import TokenLayout
from gato.version import Version
from tests.actors.fakes import (
    COUNTING,
    Answer,
    CountingEnv,
    ListSink,
    ListSource,
    WeightedEcho,
    counting_envs,
)


def short_games(task: Task, num_envs: int) -> VectorEnv:
    return make_envs(replace(task, max_steps=20), num_envs)


class _Waits(WeightedEcho):
    """Never presses a button."""

    def act(self, step: TimeStep) -> np.ndarray:
        return np.zeros(step.num_rows, np.int64)


class _Leans(WeightedEcho):
    """Pushes by as much as the pole leans."""

    def act(self, step: TimeStep) -> np.ndarray:
        return step.observations["state"][:, 1:2]


class WorkerSetup:
    """A worker with lists at both ends."""

    def __init__(
        self,
        versions: list[Version],
        *,
        answers: list[Answer] | None = None,
        breaks_at_seed: int | None = None,
        pays: float = 1.0,
        outbox: Outbox | None = None,
    ) -> None:
        self.sink = ListSink(answers or [])
        self.players: dict[str, WeightedEcho] = {}
        self.made = 0
        self.seen: list[Episode] = []
        self._breaks_at_seed = breaks_at_seed
        self._pays = pays
        tasks = {
            COUNTING.name: COUNTING,
            "mujoco/inverted-pendulum": TASKS["mujoco/inverted-pendulum"],
        }
        self.worker = Worker(
            "w0",
            tasks,
            self.player,
            self.sink,
            ListSource(versions),
            outbox=outbox,
            make=self.envs,
            node="node-7",
            seen=self.seen.append,
        )

    def player(self, task: Task, num_envs: int, role: str) -> WeightedPlayer:
        return self.players.setdefault(role, WeightedEcho())

    def envs(self, task: Task, num_envs: int) -> VectorEnv:
        self.made += 1
        if task is not COUNTING:
            return make_envs(task, num_envs)
        return counting_envs(num_envs, breaks_at_seed=self._breaks_at_seed, pays=self._pays)


def counting(role: Role, *seeds: int) -> Assignment:
    return Assignment(role=role, task=COUNTING.name, seeds=seeds)


def test_the_fakes_are_what_a_worker_asks_for() -> None:
    assert isinstance(ListSink(), EpisodeSink)
    assert isinstance(ListSource([]), WeightsSource)
    assert isinstance(WeightedEcho(), WeightedPlayer)


def test_an_evaluation_is_of_one_version_with_a_return_for_each_seed_in_order() -> None:
    setup = WorkerSetup([Version(1, 3)])
    report, evaluation = setup.worker.perform(counting("evaluate", 4, 0, 2))
    assert evaluation is not None
    assert evaluation.version == Version(1, 3)
    assert evaluation.learner_step == 30
    assert evaluation.returns == (28.0, 6.0, 15.0)  # 7, 3 and 5 steps
    assert evaluation.failed is None
    assert evaluation.env_steps == report.env_steps == 15
    assert report.episodes == 3
    assert report.returns.value == pytest.approx(49 / 3)
    assert setup.sink.episodes == []
    assert report.node == "node-7"
    assert {episode.seed: episode.episode_return for episode in setup.seen} == {
        4: 28.0, 0: 6.0, 2: 15.0,
    }  # fmt: skip


def test_an_evaluation_warns_of_what_its_tokens_lose() -> None:
    source, tasks = ListSource([Version(1, 3)]), {COUNTING.name: COUNTING}
    worker = Worker(
        "w0",
        tasks,
        lambda *_: WeightedEcho(),
        ListSink([]),
        source,
        make=WorkerSetup([]).envs,
        layout=TokenLayout(),
    )
    _, evaluation = worker.perform(counting("evaluate", *range(1000, 1010)))
    assert evaluation is not None
    (warning,) = evaluation.warnings
    assert warning.startswith("state[0]: 100 % of the values are clipped")
    assert "--normalise fake/counting" in warning
    _, evaluation = worker.perform(counting("evaluate", *range(10)))
    assert evaluation is not None
    assert evaluation.warnings == ()


def test_the_same_assignment_gives_the_same_returns() -> None:
    setup = WorkerSetup([Version(1, 1), Version(1, 2)])
    first, second = (setup.worker.perform(counting("evaluate", 5, 6))[1] for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.returns == second.returns
    assert first.version < second.version


def test_older_weights_are_never_applied() -> None:
    setup = WorkerSetup([Version(2, 5), Version(1, 9), Version(2, 4), Version(2, 5), Version(2, 6)])
    played = [setup.worker.perform(counting("evaluate", 1))[0].version for _ in range(5)]
    assert played == [Version(2, 5)] * 4 + [Version(2, 6)]
    assert setup.players["evaluate"].loaded == [Version(2, 5), Version(2, 6)]


def test_a_version_is_kept_for_as_long_as_an_assignment_lasts() -> None:
    setup = WorkerSetup([Version(1, 1), Version(1, 2)])
    setup.worker.perform(counting("generate", *range(8)))
    assert {episode.version for episode in setup.sink.episodes} == {Version(1, 1)}


def test_without_weights_there_is_nothing_to_play_with() -> None:
    with pytest.raises(RuntimeError, match="no weights were published yet"):
        WorkerSetup([]).worker.perform(counting("generate", 1))


def test_generated_episodes_go_to_the_sink_under_keys_that_never_come_again() -> None:
    first, again = (
        WorkerSetup([Version(1, 1)]),
        WorkerSetup([Version(1, 1)]),
    )  # the same worker, started again
    for setup in (first, again):
        setup.worker.perform(counting("generate", 1, 2))
        setup.worker.perform(counting("generate", 3, 4))
        assert {episode.source for episode in setup.sink.episodes} == {"agent"}
        assert sorted(episode.seed for episode in setup.sink.episodes) == [1, 2, 3, 4]
    keys = [episode.key for setup in (first, again) for episode in setup.sink.episodes]
    assert len(set(keys)) == 8


def test_what_is_handed_in_is_numbered_without_holes_whatever_was_evaluated_in_between() -> None:
    setup = WorkerSetup([Version(1, 1)])
    for role in ("generate", "evaluate", "evaluate", "generate"):
        setup.worker.perform(counting(role, 1, 2))
    numbers = [int(episode.key.rpartition(".")[2]) for episode in setup.sink.episodes]
    assert numbers == [1, 2, 3, 4]  # deduplication would have to remember gaps


def test_a_teacher_needs_no_weights_and_signs_its_episodes() -> None:
    setup = WorkerSetup([])
    report, evaluation = setup.worker.perform(
        Assignment(role="demonstrate", task="mujoco/inverted-pendulum", seeds=(0, 1))
    )
    assert evaluation is None
    assert report.version is None
    assert {episode.source for episode in setup.sink.episodes} == {
        "teacher:specialist:mujoco/inverted-pendulum"
    }
    assert report.returns.value > 500


def test_relabelling_plays_as_the_agent_does_and_keeps_what_the_teacher_would_have_done() -> None:
    setup = WorkerSetup([Version(1, 1)])
    setup.players["relabel"] = _Leans()
    report, evaluation = setup.worker.perform(
        Assignment(role="relabel", task="mujoco/inverted-pendulum", seeds=(0, 1, 2), num_envs=2)
    )
    assert evaluation is None
    assert report.version == Version(1, 1)
    specialist = load_specialist("mujoco/inverted-pendulum")
    assert len(setup.sink.episodes) == 3
    for episode in setup.sink.episodes:
        assert episode.source == "agent:relabelled"
        assert episode.version == Version(1, 1)
        seen = episode.observations["state"]
        np.testing.assert_array_equal(episode.actions, seen[:, 1:2])
        np.testing.assert_allclose(episode.labels, specialist.mean(seen), atol=1e-5)
        check_episode(episode, TASKS["mujoco/inverted-pendulum"])


def test_a_rule_relabels_by_what_it_would_have_pressed() -> None:
    sink = ListSink()
    worker = Worker(
        "w0", TASKS, lambda *_: _Waits(), sink, ListSource([Version(1, 1)]), make=short_games
    )
    worker.perform(Assignment(role="relabel", task="atari/freeway", seeds=(0, 1)))
    for episode in sink.episodes:
        assert set(episode.actions.tolist()) == {0}
        assert episode.labels is not None
        assert UP in episode.labels


@pytest.mark.parametrize("role", ["relabel", "evaluate"])
@pytest.mark.parametrize("max_steps", [15, None])
def test_a_novice_that_never_serves_can_be_cut_off(role: Role, max_steps: int | None) -> None:
    sink, seen = ListSink(), list[Episode]()
    worker = Worker(
        "w0",
        TASKS,
        lambda *_: _Waits(),
        sink,
        ListSource([Version(1, 1)]),
        make=lambda task, num_envs: make_envs(replace(task, max_steps=100), num_envs),
        seen=seen.append,
    )
    report, evaluation = worker.perform(
        Assignment(role=role, task="atari/breakout", seeds=(0, 1), max_steps=max_steps)
    )
    assert report.failed is None
    assert len(seen) == 2
    for episode in seen:
        assert episode.truncated
        assert (episode.num_steps == 15) if max_steps else (episode.num_steps > 50)
        check_episode(episode, TASKS["atari/breakout"])
    if evaluation is not None:
        assert evaluation.num_cut == (2 if max_steps else 0)


def test_fewer_environments_than_seeds_play_all_of_them() -> None:
    setup = WorkerSetup([Version(1, 1)])
    _, evaluation = setup.worker.perform(
        Assignment(role="evaluate", task=COUNTING.name, seeds=(4, 0, 2, 1), num_envs=2)
    )
    assert evaluation is not None
    assert evaluation.returns == (28.0, 6.0, 15.0, 10.0)


def test_what_replay_has_no_room_for_is_kept_and_handed_in_later_in_order() -> None:
    held = Answer("wait", "writers are held back")
    setup = WorkerSetup([Version(1, 1)], answers=[held, held], outbox=Outbox(pause_s=0.0))
    report, _ = setup.worker.perform(counting("generate", 1, 2))
    assert setup.sink.episodes == []
    assert report.kept == report.episodes == 2
    assert report.refused == {}
    after, _ = setup.worker.perform(counting("evaluate", 3))  # whatever it does next
    assert [episode.seed for episode in setup.sink.episodes] == [1, 2]
    assert after.kept == 0


def test_a_replay_that_asked_to_wait_is_left_alone_for_a_while() -> None:
    setup = WorkerSetup([Version(1, 1)], answers=[Answer("wait")], outbox=Outbox(pause_s=3600.0))
    setup.worker.perform(counting("generate", 1, 2, 3))
    setup.worker.perform(counting("evaluate", 3))
    assert setup.sink.tries == 1


def test_a_worker_waits_for_replay_only_when_it_can_keep_no_more() -> None:
    setup = WorkerSetup(
        [Version(1, 1)], answers=[Answer("wait")] * 5, outbox=Outbox(capacity_bytes=0)
    )
    report, _ = setup.worker.perform(counting("generate", 1))
    assert setup.sink.tries == 6
    assert len(setup.sink.episodes) == 1
    assert report.kept == 0
    assert report.wait_s >= 0


def test_refusals_are_counted_by_reason() -> None:
    setup = WorkerSetup(
        [Version(1, 1)], answers=[Answer("rejected", "not finite"), Answer("duplicate")]
    )
    report, _ = setup.worker.perform(counting("generate", 1, 2, 3))
    assert report.refused == {"not finite": 1}


def test_a_failed_evaluation_is_reported_as_failed_and_the_worker_lives_on() -> None:
    setup = WorkerSetup([Version(1, 1)], breaks_at_seed=2)
    report, evaluation = setup.worker.perform(counting("evaluate", 1, 2))
    assert evaluation is not None
    assert evaluation.returns == ()
    assert (
        evaluation.failed
        == "fake/counting broke at step 2 of seed 2: OSError('the wheels came off')"
    )
    assert report.failed == evaluation.failed
    _, after = setup.worker.perform(counting("evaluate", 3, 4))
    assert after is not None
    assert after.failed is None
    assert len(after.returns) == 2
    assert setup.made == 2  # what broke is not played in again


def test_a_return_that_is_no_number_fails_the_evaluation() -> None:
    _, evaluation = WorkerSetup([Version(1, 1)], pays=float("nan")).worker.perform(
        counting("evaluate", 1)
    )
    assert evaluation is not None
    assert evaluation.returns == ()
    assert "returned reward nan" in (evaluation.failed or "")


def test_an_environment_that_cannot_be_made_fails_the_evaluation() -> None:
    def broken(task: Task, num_envs: int) -> VectorEnv:
        raise ValueError("no such ROM")

    worker = Worker(
        "w0",
        {COUNTING.name: COUNTING},
        lambda *_: WeightedEcho(),
        ListSink(),
        ListSource([Version(1, 1)]),
        make=broken,
    )
    _, evaluation = worker.perform(counting("evaluate", 1))
    assert evaluation is not None
    assert evaluation.failed == "fake/counting could not be made: no such ROM"


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_an_assignment_needs_different_seeds(seeds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one or more different seeds"):
        counting("evaluate", *seeds)


class _Slow(WeightedEcho):
    """Stops in its third step until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.stopped, self.go = threading.Event(), threading.Event()

    def act(self, step: TimeStep) -> np.ndarray:
        self.steps += 1
        if self.steps == 3:
            self.stopped.set()
            assert self.go.wait(30)
        return super().act(step)


def test_slow_resets_of_many_rows_are_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take as long as an answer may: together they take longer than a worker may be
    silent."""
    setup, now = WorkerSetup([Version(1, 1)]), [0.0]
    monkeypatch.setattr("actors.worker.time.monotonic", lambda: now[0])
    ages: list[float] = []
    reset = CountingEnv.reset

    def slow(env: CountingEnv, seed: int) -> dict[str, np.ndarray]:
        ages.append(setup.worker.progress().last_step_age_s)
        now[0] += 100.0
        return reset(env, seed)

    monkeypatch.setattr(CountingEnv, "reset", slow)
    setup.worker.perform(Assignment(role="generate", task=COUNTING.name, seeds=(1, 2, 3, 4)))
    assert ages == [0.0] * 4


def test_progress_can_be_asked_while_it_plays() -> None:
    setup, slow = WorkerSetup([Version(1, 1)]), _Slow()
    assert setup.worker.progress().assignment is None
    setup.players["generate"] = slow
    playing = threading.Thread(target=setup.worker.perform, args=(counting("generate", 4),))
    playing.start()
    assert slow.stopped.wait(30)
    progress = setup.worker.progress()
    slow.go.set()
    playing.join(30)
    assert (progress.steps, progress.env_steps, progress.episodes) == (3, 3, 0)
    assert progress.assignment == counting("generate", 4)
    assert progress.version == Version(1, 1)
    assert 0 <= progress.last_step_age_s < 30
    after = setup.worker.progress()
    assert (after.steps, after.episodes) == (7, 1)
