"""Which settings a sweep takes, and the trials that it draws."""

import pytest

from cluster.runs.presets import RUNS
from cluster.sweep.plan import SweepConfig, draw_trials
from cluster.sweep.settings import as_words, check_varied, fitted_space, with_settings
from cluster.sweep.space import Range, parse
from gato.serialization import from_plain, to_plain


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tasks", "all trials play the same tasks"),
        ("name", "only names a run"),
        ("data", "the same episodes"),
        ("learner.num_updates", "--updates sets them"),
        ("learner.num_threads", "--cpus"),
        ("learner.checkpoint_every", "does not change how a trial trains"),
        ("replay.capacity_bytes", "replay.mix"),
        ("replay.limiter.slack_tokens", "replay.mix"),
        ("actors.num_workers", "actors.evaluate"),
        ("actors.generate.temperature", "actors.evaluate"),
        ("learner.rate", "did you mean 'learner.max_rate'?"),
        ("model.wdth", "did you mean 'model.width'?"),
        ("nonsense", "unknown setting 'nonsense'"),
        ("learner", "group of settings"),
        ("replay.mix", "group of settings"),
    ],
)
def test_a_setting_that_cannot_be_varied_says_why(path: str, message: str) -> None:
    with pytest.raises(ValueError) as problem:
        check_varied(RUNS["debug"], path, "asha")
    assert message in str(problem.value)


@pytest.mark.parametrize(
    "path",
    [
        "learner.max_rate",
        "learner.weight_decay",
        "model.width",
        "replay.mix.rows",
        "replay.mix.tasks.mujoco/inverted-pendulum.window_steps",
        "actors.evaluate.temperature",
        "seed",
    ],
)
def test_what_changes_a_training_or_how_it_is_judged_can_be_varied(path: str) -> None:
    check_varied(RUNS["debug"], path, "none")


@pytest.mark.parametrize("path", ["model.width", "seed", "actors.evaluate.temperature"])
def test_pbt_takes_only_what_can_change_between_updates(path: str) -> None:
    with pytest.raises(ValueError, match="in the middle of a training"):
        check_varied(RUNS["debug"], path, "pbt")
    check_varied(RUNS["debug"], "learner.max_rate", "pbt")


def test_whole_numbers_follow_the_setting() -> None:
    space = {"model.width": parse("model.width", "log:16:64")}
    (of,) = fitted_space(RUNS["debug"], space, "none").values()
    assert isinstance(of, Range)
    assert of.is_whole


def test_settings_as_words_are_what_set_reads() -> None:
    settings = {
        "learner.max_rate": 1e-3,
        "learner.bf16": None,
        "actors.evaluate.discrete": "sample",
    }
    words = as_words(settings)
    assert words == [
        "learner.max_rate=0.001",
        "learner.bf16=null",
        "actors.evaluate.discrete=sample",
    ]
    assert with_settings(RUNS["debug"], settings).actors.evaluate.discrete == "sample"


def sweep(varied: dict[str, str], **changes: object) -> SweepConfig:
    given = {
        "name": "s", "base": RUNS["debug"], "words": (), "over": varied, "scheduler": "none",
        "trials": 4, "evaluate_every": 10, "episodes": 1, "stores": (), "scales": {},
    }  # fmt: skip
    return SweepConfig(**(given | changes))  # type: ignore[arg-type]


def test_a_seed_always_draws_the_same_trials_and_they_differ() -> None:
    plan = sweep({"learner.max_rate": "log:1e-4:1e-2", "replay.mix.rows": "choice:8,16"}, trials=8)
    trials = draw_trials(plan)
    assert trials == draw_trials(plan)
    assert len({tuple(trial.items()) for trial in trials}) == 8
    more = sweep(dict(plan.over), trials=9)
    assert draw_trials(more)[:8] == trials


def test_too_few_choices_for_so_many_trials_are_named() -> None:
    with pytest.raises(ValueError, match="only 2 trials differ; lower --trials to 2"):
        draw_trials(sweep({"replay.mix.rows": "choice:8,16"}, trials=3))


def test_settings_that_do_not_go_together_are_drawn_again() -> None:
    plan = sweep({"model.width": "choice:24,32,36", "model.num_heads": "choice:2,3,4"}, trials=5)
    for trial in draw_trials(plan):
        assert plan.config_of(trial, name="t").model.width == trial["model.width"]


def test_settings_that_never_go_together_are_one_error() -> None:
    with pytest.raises(ValueError, match=r"no settings for trial 1 .*with model.width=3[35]: "):
        draw_trials(sweep({"model.width": "choice:33,35"}, trials=2))


def test_values_of_the_wrong_kind_are_one_error() -> None:
    with pytest.raises(ValueError, match="is of another kind"):
        draw_trials(sweep({"learner.max_rate": "choice:fast,slow"}, trials=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler": "asha", "evaluate_every": 40}, "asha stops trials before their end"),
        ({"scheduler": "asha", "reduction": 1}, "--reduction 1 must be at least 2"),
        ({"scheduler": "pbt", "trials": 1}, "pbt needs a population"),
        ({"scheduler": "pbt", "evaluate_every": 40}, "none comes before the end"),
        ({"evaluate_every": 41}, "lower --evaluate-every or raise --updates"),
        ({"trials": 0}, "trials is 0"),
        ({"episodes": 0}, "episodes is 0"),
        ({"cpus": 0}, "cpus is 0"),
        ({"gpus": -1}, "gpus is -1"),
        ({"over": {}}, "nothing is varied; name a setting"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweep({"learner.max_rate": "log:1e-4:1e-2"}, **changes)


def test_a_sweep_comes_back_from_its_file() -> None:
    plan = sweep({"learner.max_rate": "log:0.0001:0.01"})
    assert from_plain(SweepConfig, to_plain(plan)) == plan
