"""Who does what next: demonstrations, then evaluations of the newest version, then generation."""

from dataclasses import replace

from actors.assignment import Assignment
from actors.config import ActorsConfig
from cluster.supervision.scheduler import EVALUATION_SEED, Scheduler
from cluster.supervision.task_progress import BREAKS_AFTER
from gato.metrics import WorkerReport
from gato.version import Version

CONFIG = ActorsConfig(num_envs=2, demonstration_steps=100, generate_share=0.5)


def report(
    assignment: Assignment, *, env_steps: int = 60, version: Version | None = None
) -> WorkerReport:
    return WorkerReport(
        worker="w",
        role=assignment.role,
        task=assignment.task,
        version=version,
        episodes=2,
        env_steps=env_steps,
        wall_s=1.0,
    )


def make(config: ActorsConfig = CONFIG, **kwargs: object) -> Scheduler:
    given = {"demonstration_steps": {}, "teachable": ["a", "b"], "seed": 0} | kwargs
    return Scheduler(config, ["a", "b"], **given)  # type: ignore[arg-type]


def test_demonstrations_come_first_the_scarcest_task_before_the_others() -> None:
    scheduler = make()
    done: list[str] = []
    for _ in range(4):
        assignment = scheduler.next("w", 0.0)
        assert assignment is not None
        assert assignment.role == "demonstrate"
        done.append(assignment.task)
        scheduler.done("w", assignment, report(assignment), 0.0)
    assert done == ["a", "b", "a", "b"]
    assert scheduler.next("w", 0.0) is None  # nothing was published


def test_nobody_demonstrates_while_replay_holds_writers_back() -> None:
    scheduler = make()
    scheduler.replay_takes(False)
    assert scheduler.next("w", 0.0) is None
    scheduler.published(Version(1, 1))
    evaluation = scheduler.next("w", 0.0)
    assert evaluation is not None
    assert evaluation.role == "evaluate"
    scheduler.replay_takes(True)
    demonstration = scheduler.next("w2", 0.0)
    assert demonstration is not None
    assert demonstration.role == "demonstrate"


def test_no_two_assignments_of_a_task_share_a_seed() -> None:
    scheduler = make()
    seeds: list[tuple[str, int]] = []
    while (assignment := scheduler.next("w", 0.0)) is not None:
        seeds += [(assignment.task, seed) for seed in assignment.seeds]
        scheduler.done("w", assignment, report(assignment), 0.0)
    assert len(seeds) == len(set(seeds)) == 8
    assert not {seed for _, seed in seeds} & set(range(EVALUATION_SEED, EVALUATION_SEED + 100))


def test_each_version_is_evaluated_once_on_each_task_on_the_same_seeds() -> None:
    scheduler = make(teachable=[])
    version = Version(1, 1)
    scheduler.published(version)
    first, second = scheduler.next("w0", 0.0), scheduler.next("w1", 0.0)
    assert first is not None
    assert second is not None
    assert [first.role, second.role] == ["evaluate", "evaluate"]
    assert {first.task, second.task} == {"a", "b"}
    assert first.seeds == second.seeds == (EVALUATION_SEED, EVALUATION_SEED + 1)
    for assignment in (first, second):
        scheduler.done("w", assignment, report(assignment, version=version), 1.0)
    assert not scheduler.num_unevaluated
    scheduler.published(Version(1, 2))
    assert scheduler.num_unevaluated


def test_the_last_version_is_evaluated_with_all_episodes_also_where_it_had_been_with_few() -> None:
    config = replace(CONFIG, final_evaluation_episodes=5, generate_share=0.0)
    scheduler = make(config, teachable=[])
    version = Version(1, 1)
    scheduler.published(version)
    for _ in range(2):
        usual = scheduler.next("w", 0.0)
        assert usual is not None
        assert len(usual.seeds) == 2
        scheduler.done("w", usual, report(usual, version=version), 0.0)
    assert scheduler.next("w", 0.0) is None
    assert scheduler.num_unevaluated == 2
    last = [scheduler.next("w", 1.0, last=True) for _ in range(2)]
    assert scheduler.next("w", 1.0, last=True) is None
    for assignment in last:
        assert assignment is not None
        assert assignment.seeds == tuple(EVALUATION_SEED + i for i in range(5))
    assert last[0] is not None
    assert last[1] is not None
    scheduler.done("w", last[0], report(last[0], version=version), 2.0)
    assert scheduler.num_unevaluated == 1
    scheduler.failed(last[1], version, given_s=1.0, now_s=2.0)
    assert not scheduler.num_unevaluated, "one that fails waits for a newer version"


def test_an_assignment_of_a_dead_worker_is_given_out_again() -> None:
    scheduler = make(teachable=[])
    scheduler.published(Version(1, 1))
    given = [scheduler.next("w0", 0.0), scheduler.next("w0", 0.0)]
    assert given[0] is not None
    scheduler.died(given[0], given_s=0.0, now_s=1.0)
    assert scheduler.next("w1", 1.0) == given[0]


def test_an_evaluation_that_fails_waits_for_the_next_version() -> None:
    scheduler = make(replace(CONFIG, generate_share=0.0), teachable=[])
    scheduler.published(Version(1, 1))
    for _ in range(2):
        assignment = scheduler.next("w", 0.0)
        assert assignment is not None
        scheduler.failed(assignment, scheduler.newest, given_s=0.0, now_s=0.0)
    assert scheduler.next("w", 0.0) is None
    scheduler.published(Version(1, 2))
    assert scheduler.next("w", 0.0) is not None


def test_a_task_that_fails_to_be_taught_is_left_alone_longer_each_time() -> None:
    scheduler = make(teachable=["a"])
    now_s, waits = 0.0, []
    for _ in range(3):
        assignment = scheduler.next("w", now_s)
        assert assignment is not None
        assert assignment.role == "demonstrate"
        scheduler.failed(assignment, scheduler.newest, given_s=now_s, now_s=now_s)
        begun = now_s
        while scheduler.next("w", now_s + 1.0) is None:
            now_s += 1.0
        now_s += 1.0
        waits.append(now_s - begun)
        scheduler = _same_after(scheduler)
    assert waits[0] < waits[1] < waits[2]


def _same_after(scheduler: Scheduler) -> Scheduler:
    for state in scheduler._tasks.values():
        state.teaching_in_flight = 0
    return scheduler


def test_generation_has_its_share_of_the_idle_time() -> None:
    scheduler = make(teachable=[])
    scheduler.published(Version(1, 1))
    for _ in range(2):
        assignment = scheduler.next("w", 0.0)
        assert assignment is not None
        scheduler.done("w", assignment, report(assignment, version=Version(1, 1)), 0.0)
    generated = scheduler.next("w", 0.0)
    assert generated is not None
    assert generated.role == "generate"
    scheduler.done("w", generated, report(generated), 1.0)  # took 1 s, so it rests 1 s
    assert scheduler.next("w", 1.5) is None
    again = scheduler.next("w", 2.0)
    assert again is not None
    assert again.task != generated.task


def roles_of(
    scheduler: Scheduler, *, rounds: int, begun: int = 0, failing: str | None = None
) -> list[str]:
    """What is done in so many seconds where each publishes a version; the teacher of `failing`
    never succeeds."""
    roles: list[str] = []
    for now in range(begun, begun + rounds):
        version = Version(1, 1 + now)
        scheduler.published(version)
        assignment = scheduler.next("w", float(now))
        assert assignment is not None
        if assignment.role == "demonstrate" and assignment.task == failing:
            scheduler.failed(assignment, version, given_s=float(now), now_s=now + 1.0)
        else:
            roles.append(assignment.role)
            scheduler.done("w", assignment, report(assignment, version=version), now + 1.0)
    return roles


def test_generation_has_its_share_where_an_evaluation_always_waits() -> None:
    roles = roles_of(make(replace(CONFIG, generate_share=0.3), teachable=[]), rounds=100)
    assert roles[:2] == ["evaluate", "evaluate"]
    assert 24 <= roles.count("generate") <= 31


def test_relabelled_play_does_not_wait_for_the_first_evaluation_of_every_task() -> None:
    """A run of fifty tasks that was resumed would relabel nothing for half an hour."""
    config = replace(CONFIG, generate_share=0.0, relabel_share=0.5)
    names = [f"task-{number}" for number in range(50)]
    scheduler = Scheduler(
        config, names, demonstration_steps=dict.fromkeys(names, 100), teachable=names, seed=0
    )
    roles = roles_of(scheduler, rounds=40)
    assert roles[:4] == ["evaluate", "relabel", "evaluate", "relabel"]
    assert roles.count("relabel") == 20


def spent(config: ActorsConfig, *, rounds: int) -> dict[str, float]:
    """Seconds in each role where every assignment takes one and each second brings a version."""
    seconds = dict.fromkeys(("evaluate", "generate", "relabel", "demonstrate"), 0.0)
    for role in roles_of(make(config, has_data=["a", "b"]), rounds=rounds):
        seconds[role] += 1.0
    return seconds


def test_every_role_has_its_share_of_the_time() -> None:
    shares = {"generate": 0.2, "relabel": 0.4, "demonstrate": 0.1}
    config = replace(CONFIG, **{f"{role}_share": share for role, share in shares.items()})
    seconds = spent(config, rounds=400)
    for role, share in shares.items():
        assert abs(seconds[role] / 400 - share) < 0.03, seconds
    assert abs(seconds["evaluate"] / 400 - 0.3) < 0.05


def test_shares_change_while_the_run_goes_on() -> None:
    scheduler = make(replace(CONFIG, generate_share=0.6), has_data=["a", "b"])
    assert roles_of(scheduler, rounds=100).count("generate") > 50
    scheduler.configure(replace(CONFIG, generate_share=0.0, relabel_share=0.6))
    roles = roles_of(scheduler, rounds=100, begun=100)
    assert roles.count("generate") == 0
    assert 54 <= roles.count("relabel") <= 61


def test_the_agent_plays_to_learn_from_an_update_on_and_has_its_share_from_then_on() -> None:
    config = replace(
        CONFIG, generate_share=0.2, relabel_share=0.2, demonstrate_share=0.2, play_from=400
    )
    scheduler = make(config, has_data=["a", "b"])
    scheduler.learned(399)
    roles = roles_of(scheduler, rounds=100)
    assert roles.count("demonstrate") > 15  # teachers know what they do from the beginning
    assert not {"generate", "relabel"} & set(roles)
    scheduler.learned(400)
    roles = roles_of(scheduler, rounds=100, begun=100)
    assert 17 <= roles.count("generate") <= 23, (
        "what it did not have before, it does not catch up on"
    )
    assert 17 <= roles.count("relabel") <= 23


def test_evaluations_have_no_more_than_their_share_but_one_of_each_task() -> None:
    scheduler = make(replace(CONFIG, evaluate_share=0.0, generate_share=0.5), has_data=["a", "b"])
    roles: list[str] = []
    for now in range(20):
        scheduler.published(Version(1, 1 + now))
        assignment = scheduler.next("w", float(now))
        if assignment is not None:
            roles.append(assignment.role)
            scheduler.done(
                "w", assignment, report(assignment, version=Version(1, 1 + now)), now + 1.0
            )
    assert roles.count("evaluate") == 2
    last = scheduler.next("w", 20.0, last=True)
    assert last is not None
    assert last.role == "evaluate"


def test_only_who_has_a_teacher_is_relabelled_and_taught() -> None:
    scheduler = make(
        replace(CONFIG, generate_share=0.2, relabel_share=0.4, demonstrate_share=0.2),
        teachable=["a"],
    )
    scheduler.published(Version(1, 1))
    seen: set[tuple[str, str]] = set()
    for now in range(100):
        assignment = scheduler.next("w", float(now))
        if assignment is not None:
            seen.add((assignment.role, assignment.task))
            scheduler.done("w", assignment, report(assignment, version=Version(1, 1)), now + 1.0)
    assert {task for role, task in seen if role in ("relabel", "demonstrate")} == {"a"}
    assert {task for role, task in seen if role == "generate"} == {"a", "b"}


def test_data_takes_the_place_of_demonstrations_and_leaves_the_teacher_to_relabel() -> None:
    scheduler = make(replace(CONFIG, relabel_share=0.5), has_data=["a", "b"])
    assert scheduler.next("w", 0.0) is None
    roles = roles_of(scheduler, rounds=50)
    assert "demonstrate" not in roles
    assert roles.count("relabel") > 20


def test_a_task_that_always_fails_is_left_alone_and_the_others_go_on() -> None:
    scheduler = make(replace(CONFIG, generate_share=0.5), teachable=[])
    tries = 0
    for now in range(0, 40_000, 40):
        scheduler.published(Version(1, 1 + now))
        assignment = scheduler.next("w", float(now))
        if assignment is None:
            continue
        failed = "the wheels came off" if assignment.task == "a" else None
        tries += assignment.task == "a"
        scheduler.done(
            "w",
            assignment,
            replace(report(assignment, version=Version(1, 1 + now)), failed=failed),
            now + 1.0,
        )
    assert tries == 2 * BREAKS_AFTER
    assert set(scheduler.broken) == {("a", "evaluate"), ("a", "generate")}
    assert not scheduler.is_hopeless
    scheduler.published(Version(1, 99_999))
    assert scheduler.num_unevaluated
    last = scheduler.next("w", 50_000.0, last=True)
    assert last is not None
    assert last.task == "b"
    scheduler.done("w", last, report(last, version=Version(1, 99_999)), 50_001.0)
    assert not scheduler.num_unevaluated  # what is left alone is not waited for


def test_a_success_in_between_forgets_the_failures_before() -> None:
    scheduler = make(teachable=[])
    for number in range(1, 5 * BREAKS_AFTER):
        scheduler.published(Version(1, number))
        assignment = scheduler.next("w", 1000.0 * number)
        assert assignment is not None
        failed = "no luck" if number % 5 else None
        scheduler.done(
            "w",
            assignment,
            replace(report(assignment, version=Version(1, number)), failed=failed),
            1000.0 * number,
        )
    assert scheduler.broken == []


def test_workers_that_die_of_a_task_end_it_too_and_a_run_of_nothing_else_is_hopeless() -> None:
    scheduler = make()
    now_s = 0.0
    while not scheduler.is_hopeless:
        assignment = scheduler.next("w", now_s)
        assert assignment is not None
        scheduler.died(assignment, given_s=now_s, now_s=now_s + 1.0)
        now_s += 2.0
    assert scheduler.next("w", 1e9) is None
    assert set(scheduler.broken) == {("a", "demonstrate"), ("b", "demonstrate")}


def test_an_evaluation_has_as_many_episodes_as_asked_for_in_so_many_environments() -> None:
    scheduler = make(replace(CONFIG, evaluation_episodes=5), teachable=[])
    scheduler.published(Version(1, 1))
    assignment = scheduler.next("w", 0.0)
    assert assignment is not None
    assert assignment.seeds == tuple(range(EVALUATION_SEED, EVALUATION_SEED + 5))
    assert assignment.rows == 2


def test_one_failing_teacher_does_not_keep_others_from_generating() -> None:
    roles = roles_of(make(replace(CONFIG, generate_share=0.3)), rounds=200, failing="b")
    assert roles.count("generate") > 40


def test_a_resumed_run_does_not_teach_again() -> None:
    scheduler = make(demonstration_steps={"a": 100, "b": 120})
    assert scheduler.next("w", 0.0) is None


def test_a_task_is_filmed_now_and_then_and_in_its_last_evaluation() -> None:
    scheduler = make(replace(CONFIG, clip_every_s=10.0, generate_share=0.0), teachable=[])
    filmed: list[bool] = []
    for number, now_s in enumerate([0.0, 9.0, 10.0, 11.0]):
        scheduler.published(Version(1, number))
        for _ in range(2):
            assignment = scheduler.next("w", now_s, last=now_s == 11.0)
            assert assignment is not None
            scheduler.done("w", assignment, report(assignment, version=Version(1, number)), now_s)
            filmed.append(assignment.film)
    assert filmed == [True, True, False, False, True, True, True, True]
    never = make(replace(CONFIG, clip_every_s=0.0), teachable=[])
    never.published(Version(1, 1))
    assignment = never.next("w", 0.0, last=True)
    assert assignment is not None
    assert not assignment.film


def test_only_the_last_evaluations_are_played_to_their_ends() -> None:
    config = replace(CONFIG, generate_share=0.0, relabel_share=0.5)
    scheduler = make(config, teachable=["a"], has_data=["a"], longest={"a": 30})
    scheduler.published(Version(1, 1))
    given: list[Assignment] = []
    for _ in range(3):
        assignment = scheduler.next("w", 0.0)
        assert assignment is not None
        given.append(assignment)
        scheduler.done("w", assignment, report(assignment, version=Version(1, 1)), 0.0)
    steps = {(each.role, each.task): each.max_steps for each in given}
    assert steps == {("evaluate", "a"): 30, ("evaluate", "b"): None, ("relabel", "a"): 30}
    # Of the last version: that of a was cut off, and is made again; that of b is done.
    assert scheduler.num_unevaluated == 1
    last = scheduler.next("w", 1.0, last=True)
    assert last is not None
    assert (last.task, last.max_steps) == ("a", None)
    scheduler.done("w", last, report(last, version=Version(1, 1)), 1.0)
    assert scheduler.num_unevaluated == 0
    assert scheduler.next("w", 2.0, last=True) is None


def test_an_evaluation_that_failed_before_its_end_is_tried_again_at_the_end() -> None:
    scheduler = make(replace(CONFIG, generate_share=0.0), teachable=[], longest={"a": 30})
    scheduler.published(Version(1, 1))
    first = scheduler.next("w", 0.0)
    assert first is not None
    scheduler.failed(first, Version(1, 1), given_s=0.0, now_s=0.0)
    last = [scheduler.next(worker, 1.0, last=True) for worker in ("w", "v")]
    assert sorted(each.task for each in last if each) == ["a", "b"]


def test_workers_that_fail_together_are_one_failure() -> None:
    scheduler = make(replace(CONFIG, generate_share=1.0, evaluate_share=0.0), has_data=["a", "b"])
    scheduler.published(Version(1, 1))
    given = [scheduler.next(f"w{number}", 0.0) for number in range(30)]
    played = [
        assignment
        for assignment in given
        if assignment is not None and assignment.role == "generate"
    ]
    assert len(played) > 2 * BREAKS_AFTER
    for assignment in played:
        scheduler.died(assignment, given_s=0.0, now_s=5.0)
    assert scheduler.broken == []


def test_an_evaluation_of_an_older_version_that_fails_leaves_the_newest_to_be_evaluated() -> None:
    scheduler = make(teachable=[])
    scheduler.published(Version(1, 1))
    given = [scheduler.next("w", 0.0), scheduler.next("w", 0.0)]
    scheduler.published(Version(1, 9))
    for assignment in given:
        assert assignment is not None
        failed = replace(report(assignment, version=Version(1, 1)), failed="it broke")
        scheduler.done("w", assignment, failed, 1.0)
    assert scheduler.num_unevaluated
    last = scheduler.next("w", 2.0, last=True)
    assert last is not None
    assert last.role == "evaluate"


def test_evaluations_have_the_share_that_they_are_given_also_where_nothing_else_is_to_do() -> None:
    for share, generate in ((0.5, 0.0), (0.3, 0.05), (0.1, 0.2)):
        scheduler = make(
            replace(CONFIG, evaluate_share=share, generate_share=generate), has_data=["a", "b"]
        )
        seconds = 0
        for now in range(1000):
            scheduler.published(Version(1, 1 + now))
            assignment = scheduler.next("w", float(now))
            if assignment is not None:
                seconds += assignment.role == "evaluate"
                scheduler.done(
                    "w", assignment, report(assignment, version=Version(1, 1 + now)), now + 1.0
                )
        assert abs(seconds / 1000 - share) < 0.02


def test_new_shares_do_not_stop_demonstrations() -> None:
    scheduler = make(replace(CONFIG, first_demonstration_steps=60, demonstration_steps=60_000))
    assert roles_of(scheduler, rounds=300).count("demonstrate") > 90
    scheduler.configure(replace(CONFIG, generate_share=0.1))
    assert roles_of(scheduler, rounds=100, begun=300).count("demonstrate") > 30


def test_a_run_without_data_whose_teachers_fail_is_hopeless_though_it_can_be_evaluated() -> None:
    scheduler = make()
    for now in range(0, 40_000, 40):
        scheduler.published(Version(1, 1 + now))
        assignment = scheduler.next("w", float(now))
        if assignment is not None:
            failed = "no such module" if assignment.role == "demonstrate" else None
            ended = replace(report(assignment, version=Version(1, 1 + now)), failed=failed)
            scheduler.done("w", assignment, ended, now + 1.0)
    assert scheduler.is_hopeless


def test_recorded_tasks_are_evaluated_on_many_records_and_never_played() -> None:
    config = replace(CONFIG, evaluation_records=7, clip_every_s=1.0)
    scheduler = make(config, teachable=[], recorded=["b"])
    scheduler.published(Version(1, 1))
    roles: list[tuple[str, str]] = []
    for number in range(12):
        assignment = scheduler.next("w", float(number))
        if assignment is None:
            continue
        roles.append((assignment.role, assignment.task))
        if assignment.task == "b":
            assert assignment.seeds == tuple(range(EVALUATION_SEED, EVALUATION_SEED + 7))
            assert not assignment.film
        scheduler.done("w", assignment, report(assignment, version=Version(1, 1)), float(number))
    assert [role for role, task in roles if task == "b"] == ["evaluate"]
    assert ("generate", "a") in roles
