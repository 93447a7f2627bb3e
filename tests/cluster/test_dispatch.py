"""Who does what next: demonstrations, then evaluations of the newest version, then generation."""

from dataclasses import replace

from actors.worker import Assignment
from cluster.config import ActorsConfig
from cluster.dispatch import EVALUATION_SEED, Dispatcher
from gato.metrics import WorkerReport
from gato.version import Version

CONFIG = ActorsConfig(num_envs=2, demonstration_steps=100, generate_share=0.5)


def report(assignment: Assignment, *, env_steps: int = 60, version: Version | None = None) -> WorkerReport:
    return WorkerReport(
        worker="w",
        role=assignment.role,
        task=assignment.task,
        version=version,
        episodes=2,
        env_steps=env_steps,
        wall_s=1.0,
    )


def make(config: ActorsConfig = CONFIG, **kwargs: object) -> Dispatcher:
    given = {"demonstration_steps": {}, "teachable": ["a", "b"], "seed": 0} | kwargs
    return Dispatcher(config, ["a", "b"], **given)  # type: ignore[arg-type]


def test_demonstrations_come_first_the_scarcest_task_before_the_others() -> None:
    dispatcher = make()
    done: list[str] = []
    for _ in range(4):
        assignment = dispatcher.next("w", 0.0)
        assert assignment is not None
        assert assignment.role == "teach"
        done.append(assignment.task)
        dispatcher.done("w", assignment, report(assignment), 0.0)
    assert done == ["a", "b", "a", "b"]
    assert dispatcher.next("w", 0.0) is None  # nothing was published


def test_no_two_assignments_of_a_task_share_a_seed() -> None:
    dispatcher = make()
    seeds: list[tuple[str, int]] = []
    while (assignment := dispatcher.next("w", 0.0)) is not None:
        seeds += [(assignment.task, seed) for seed in assignment.seeds]
        dispatcher.done("w", assignment, report(assignment), 0.0)
    assert len(seeds) == len(set(seeds)) == 8
    assert not {seed for _, seed in seeds} & set(range(EVALUATION_SEED, EVALUATION_SEED + 100))


def test_each_version_is_evaluated_once_on_each_task_on_the_same_seeds() -> None:
    dispatcher = make(teachable=[])
    version = Version(1, 1)
    dispatcher.published(version)
    first, second = dispatcher.next("w0", 0.0), dispatcher.next("w1", 0.0)
    assert first is not None
    assert second is not None
    assert [first.role, second.role] == ["evaluate", "evaluate"]
    assert {first.task, second.task} == {"a", "b"}
    assert first.seeds == second.seeds == (EVALUATION_SEED, EVALUATION_SEED + 1)
    for assignment in (first, second):
        dispatcher.done("w", assignment, report(assignment, version=version), 1.0)
    assert dispatcher.everything_evaluated()
    dispatcher.published(Version(1, 2))
    assert not dispatcher.everything_evaluated()


def test_an_assignment_of_a_dead_worker_is_given_out_again() -> None:
    dispatcher = make(teachable=[])
    dispatcher.published(Version(1, 1))
    given = [dispatcher.next("w0", 0.0), dispatcher.next("w0", 0.0)]
    assert given[0] is not None
    dispatcher.done("w0", given[0], None, 1.0)
    assert dispatcher.next("w1", 1.0) == given[0]


def test_an_evaluation_that_fails_waits_for_the_next_version() -> None:
    dispatcher = make(replace(CONFIG, generate_share=0.0), teachable=[])
    dispatcher.published(Version(1, 1))
    for _ in range(2):
        assignment = dispatcher.next("w", 0.0)
        assert assignment is not None
        dispatcher.failed("w", assignment, 0.0)
    assert dispatcher.next("w", 0.0) is None
    dispatcher.published(Version(1, 2))
    assert dispatcher.next("w", 0.0) is not None


def test_a_task_that_fails_to_be_taught_is_left_alone_longer_each_time() -> None:
    dispatcher = make(teachable=["a"])
    now_s, waits = 0.0, []
    for _ in range(3):
        assignment = dispatcher.next("w", now_s)
        assert assignment is not None
        assert assignment.role == "teach"
        dispatcher.failed("w", assignment, now_s)
        begun = now_s
        while dispatcher.next("w", now_s + 1.0) is None:
            now_s += 1.0
        now_s += 1.0
        waits.append(now_s - begun)
        dispatcher = _same_after(dispatcher)
    assert waits[0] < waits[1] < waits[2]


def _same_after(dispatcher: Dispatcher) -> Dispatcher:
    for state in dispatcher._tasks.values():
        state.teaching_in_flight = 0
    return dispatcher


def test_generation_has_its_share_of_the_idle_time() -> None:
    dispatcher = make(teachable=[])
    dispatcher.published(Version(1, 1))
    for _ in range(2):
        assignment = dispatcher.next("w", 0.0)
        assert assignment is not None
        dispatcher.done("w", assignment, report(assignment, version=Version(1, 1)), 0.0)
    generated = dispatcher.next("w", 0.0)
    assert generated is not None
    assert generated.role == "generate"
    dispatcher.done("w", generated, report(generated), 1.0)  # took 1 s, so it rests 1 s
    assert dispatcher.next("w", 1.5) is None
    again = dispatcher.next("w", 2.0)
    assert again is not None
    assert again.task != generated.task


def roles_of(dispatcher: Dispatcher, *, rounds: int, failing: str | None = None) -> list[str]:
    """What is done in so many seconds where each publishes a version; the teacher of `failing` never succeeds."""
    roles: list[str] = []
    for now in range(rounds):
        version = Version(1, 1 + now)
        dispatcher.published(version)
        assignment = dispatcher.next("w", float(now))
        assert assignment is not None
        if assignment.role == "teach" and assignment.task == failing:
            dispatcher.failed("w", assignment, now + 1.0)
        else:
            roles.append(assignment.role)
            dispatcher.done("w", assignment, report(assignment, version=version), now + 1.0)
    return roles


def test_generation_has_its_share_where_an_evaluation_always_waits() -> None:
    roles = roles_of(make(replace(CONFIG, generate_share=0.3), teachable=[]), rounds=100)
    assert roles[:2] == ["evaluate", "evaluate"]
    assert 24 <= roles.count("generate") <= 31


def test_one_failing_teacher_does_not_keep_others_from_generating() -> None:
    roles = roles_of(make(replace(CONFIG, generate_share=0.3)), rounds=200, failing="b")
    assert roles.count("generate") > 40


def test_a_resumed_run_does_not_teach_again() -> None:
    dispatcher = make(demonstration_steps={"a": 100, "b": 120})
    assert dispatcher.next("w", 0.0) is None


def test_a_task_is_filmed_now_and_then_and_in_its_last_evaluation() -> None:
    dispatcher = make(replace(CONFIG, clip_every_s=10.0, generate_share=0.0), teachable=[])
    filmed: list[bool] = []
    for number, now_s in enumerate([0.0, 9.0, 10.0, 11.0]):
        dispatcher.published(Version(1, number))
        for _ in range(2):
            assignment = dispatcher.next("w", now_s, last=now_s == 11.0)
            assert assignment is not None
            dispatcher.done("w", assignment, report(assignment, version=Version(1, number)), now_s)
            filmed.append(assignment.film)
    assert filmed == [True, True, False, False, True, True, True, True]
    never = make(replace(CONFIG, clip_every_s=0.0), teachable=[])
    never.published(Version(1, 1))
    assignment = never.next("w", 0.0, last=True)
    assert assignment is not None
    assert not assignment.film
