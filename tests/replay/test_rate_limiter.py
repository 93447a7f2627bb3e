"""The limiter's laws."""

import json
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.rate_limiter import Limiter, LimiterConfig

CONFIGS = st.builds(
    LimiterConfig,
    warmup_tokens=st.integers(0, 500),
    reads_per_inserted_token=st.floats(0.1, 50),
    slack_tokens=st.integers(1, 5000),
)


@given(CONFIGS, st.lists(st.tuples(st.booleans(), st.integers(1, 300)), max_size=200))
def test_one_of_two_sides_can_always_move_and_the_error_stays_within_the_slack(
    config: LimiterConfig, operations: list[tuple[bool, int]]
) -> None:
    limiter = Limiter(config)
    ratio = config.reads_per_inserted_token or 0.0
    largest = 300
    for wants_insert, tokens in operations:
        assert limiter.may_insert() or limiter.may_read()
        if wants_insert and limiter.may_insert():
            limiter.inserted(tokens)
        elif not wants_insert and limiter.may_read():
            limiter.read(tokens)
        # One operation may overshoot by its own size; before the warm-up is over writers are free.
        assert limiter.owed_tokens >= -config.slack_tokens - largest
        ceiling = max(config.slack_tokens, config.warmup_tokens * ratio) + largest * ratio
        assert limiter.owed_tokens <= ceiling


def test_nothing_is_read_before_the_warm_up() -> None:
    limiter = Limiter(LimiterConfig(warmup_tokens=10))
    assert not limiter.may_read()
    limiter.inserted(10)
    assert limiter.may_read()


def test_without_a_ratio_nobody_waits_for_the_other() -> None:
    limiter = Limiter(LimiterConfig(warmup_tokens=1))
    limiter.inserted(1)
    limiter.read(10**9)
    assert limiter.may_insert()
    assert limiter.may_read()


def test_a_limiter_goes_on_from_saved_counts() -> None:
    config = LimiterConfig(warmup_tokens=0, reads_per_inserted_token=2.0, slack_tokens=10)
    assert not Limiter(config, inserted_tokens=100, read_tokens=215).may_read()
    assert not Limiter(config, inserted_tokens=100, read_tokens=185).may_insert()


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan, math.inf, 1e-9, 1e9])
def test_a_ratio_under_which_a_side_would_wait_permanently_is_rejected(ratio: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        LimiterConfig(warmup_tokens=0, reads_per_inserted_token=ratio)


@pytest.mark.parametrize("tokens", [-1, math.nan, math.inf])
def test_a_warm_up_or_slack_that_is_no_count_is_rejected(tokens: int) -> None:
    with pytest.raises(ValueError, match="finite"):
        LimiterConfig(warmup_tokens=tokens)
    with pytest.raises(ValueError, match="finite"):
        LimiterConfig(warmup_tokens=0, slack_tokens=tokens)


TOKENS = st.integers(1, 300)
MAYBE_COUPLED = st.builds(
    LimiterConfig,
    warmup_tokens=st.integers(0, 500),
    reads_per_inserted_token=st.none() | st.floats(1e-6, 1e6),
    slack_tokens=st.integers(1, 5000),
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["insert", "read"]), TOKENS),
        st.tuples(st.just("reconfigure"), MAYBE_COUPLED),
        st.tuples(st.sampled_from(["pause", "resume", "restart"]), st.none()),
    ),
    max_size=100,
)


def restarted(limiter: Limiter, config: LimiterConfig | None = None) -> Limiter:
    return Limiter.load(config or limiter.config, json.loads(json.dumps(limiter.state())))


def apply(limiter: Limiter, name: str, value: int | LimiterConfig | None) -> Limiter:
    """What the limiter is after an operation; an insert or read that it does not allow is left
    out."""
    if isinstance(value, LimiterConfig):
        limiter.reconfigure(value)
    elif isinstance(value, int):
        if name == "insert" and limiter.may_insert():
            limiter.inserted(value)
        elif name == "read" and limiter.may_read():
            limiter.read(value)
    elif name == "restart":
        return restarted(limiter)
    elif name == "pause":
        limiter.pause()
    else:
        limiter.resume()
    return limiter


def answers(limiter: Limiter) -> tuple[object, ...]:
    return (
        limiter.may_insert(),
        limiter.may_read(),
        limiter.owed_tokens,
        limiter.paused,
        limiter.why(),
        limiter.state(),
    )


@given(MAYBE_COUPLED, OPERATIONS)
def test_whatever_happened_one_of_two_sides_can_move_and_why_names_the_other(
    config: LimiterConfig, operations: list[tuple[str, int | LimiterConfig | None]]
) -> None:
    limiter = Limiter(config)
    for name, value in operations:
        limiter = apply(limiter, name, value)
        assert limiter.may_insert() or limiter.may_read()
        waiting = (
            "writers"
            if not limiter.may_insert()
            else "readers"
            if not limiter.may_read()
            else "nobody"
        )
        assert limiter.why().startswith(waiting)
        assert "\n" not in limiter.why()


@given(MAYBE_COUPLED, OPERATIONS, OPERATIONS)
def test_a_restart_changes_nothing(
    config: LimiterConfig,
    before: list[tuple[str, int | LimiterConfig | None]],
    after: list[tuple[str, int | LimiterConfig | None]],
) -> None:
    limiter = Limiter(config)
    for name, value in before:
        limiter = apply(limiter, name, value)
    twin = restarted(limiter)
    assert answers(twin) == answers(limiter)
    for name, value in after:
        limiter, twin = apply(limiter, name, value), apply(twin, name, value)
        assert answers(twin) == answers(limiter)


@given(MAYBE_COUPLED, OPERATIONS, MAYBE_COUPLED)
def test_a_restart_with_other_settings_is_a_reconfiguration(
    config: LimiterConfig,
    operations: list[tuple[str, int | LimiterConfig | None]],
    other: LimiterConfig,
) -> None:
    limiter = Limiter(config)
    for name, value in operations:
        limiter = apply(limiter, name, value)
    twin = restarted(limiter, other)
    limiter.reconfigure(other)
    assert answers(twin) == answers(limiter)


@given(CONFIGS, OPERATIONS, CONFIGS)
def test_what_is_owed_stays_within_the_new_slack_when_settings_change(
    config: LimiterConfig,
    operations: list[tuple[str, int | LimiterConfig | None]],
    other: LimiterConfig,
) -> None:
    limiter = Limiter(config)
    for name, value in operations:
        limiter = apply(limiter, name, value)
    owed_tokens, same = limiter.owed_tokens, limiter.config == other
    totals = limiter.inserted_tokens, limiter.read_tokens
    limiter.reconfigure(other)
    within = min(max(owed_tokens, -other.slack_tokens), other.slack_tokens)
    assert limiter.owed_tokens == (owed_tokens if same else within)
    assert (limiter.inserted_tokens, limiter.read_tokens) == totals


def test_a_new_ratio_judges_only_what_comes_from_now_on() -> None:
    limiter = Limiter(LimiterConfig(warmup_tokens=0, reads_per_inserted_token=2.0, slack_tokens=10))
    limiter.inserted(1000)
    limiter.read(1995)  # 5 are owed
    limiter.reconfigure(
        LimiterConfig(warmup_tokens=0, reads_per_inserted_token=8.0, slack_tokens=10)
    )
    assert limiter.owed_tokens == 5
    limiter.inserted(1)
    assert limiter.owed_tokens == 13


@given(CONFIGS, st.lists(st.tuples(st.booleans(), TOKENS), max_size=50))
def test_a_pause_counts_in_the_totals_and_not_against_the_ratio(
    config: LimiterConfig, operations: list[tuple[bool, int]]
) -> None:
    limiter = Limiter(config)
    limiter.pause()
    limiter.pause()
    assert limiter.paused
    assert not limiter.may_read()
    inserted = read = 0
    for is_insert, tokens in [(True, 1), *operations]:
        (limiter.inserted if is_insert else limiter.read)(tokens)
        inserted, read = inserted + tokens * is_insert, read + tokens * (not is_insert)
        assert limiter.may_insert()
        assert limiter.may_read()
        assert limiter.owed_tokens == 0
    limiter.resume()
    limiter.resume()
    assert not limiter.paused
    assert limiter.owed_tokens == 0
    assert (limiter.inserted_tokens, limiter.read_tokens) == (inserted, read)
    assert limiter.may_read() == (inserted >= config.warmup_tokens)


def test_why_says_who_waits_and_for_how_much() -> None:
    limiter = Limiter(
        LimiterConfig(warmup_tokens=10_000, reads_per_inserted_token=4.0, slack_tokens=50_000)
    )
    limiter.inserted(1200)
    assert limiter.why() == "readers wait: 1,200 of 10,000 tokens of the warm-up are in"
    limiter.pause()
    assert limiter.why() == "nobody waits, the limiter is paused"
    limiter.resume()
    limiter.inserted(8800)
    assert limiter.why() == "nobody waits"
    limiter.read(40_000 + 54_800)
    assert limiter.why() == "readers wait for 1,200 more inserted tokens"
    limiter.inserted(1200 + 25_000 + 850)
    assert limiter.why() == "writers are held back until 3,400 tokens were read"
    assert (
        Limiter(LimiterConfig(warmup_tokens=0)).why() == "readers wait for the first inserted token"
    )


@given(
    st.integers(1, 500),
    st.integers(1, 400),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.integers(0, 10**7),
)
def test_the_number_that_why_tells_is_just_enough(
    quarters: int, slack_tokens: int, inserted_tokens: int, warmup_tokens: int, read_tokens: int
) -> None:
    limiter = Limiter(
        LimiterConfig(
            warmup_tokens=min(warmup_tokens, inserted_tokens),
            reads_per_inserted_token=quarters / 4,
            slack_tokens=slack_tokens,
        ),
        inserted_tokens=inserted_tokens,
        read_tokens=read_tokens,
    )
    numbers = [int(word.replace(",", "")) for word in limiter.why().split() if word[0].isdigit()]
    if not limiter.may_read():
        limiter.inserted(numbers[0] - 1)
        assert not limiter.may_read()
        limiter.inserted(1)
        assert limiter.may_read()
    elif not limiter.may_insert():
        limiter.read(numbers[0] - 1)
        assert not limiter.may_insert()
        limiter.read(1)
        assert limiter.may_insert()
    else:
        assert not numbers


def test_a_state_of_another_form_is_rejected() -> None:
    with pytest.raises(ValueError, match="lacks base_inserted_tokens"):
        Limiter.load(LimiterConfig(warmup_tokens=0), {"inserted_tokens": 3, "read_tokens": 4})


def test_over_100_000_operations_the_realised_ratio_stays_within_the_slack_and_one_operation() -> (
    None
):
    """With what came since the last change of settings (pauses left out), counted here in exact
    numbers: i inserted tokens, r read ones, B owed at the change, R the ratio, S the slack, W the
    warm-up, I all that was inserted at the change,

        -S - (largest read)  <=  B + i R - r  <=  S + R (largest insert + max(0, W - 1 - I))

    as a side goes on while it is within the slack, and only writers do until the warm-up is over.
    """
    dice = random.Random(11)
    largest_insert, largest_read = 700, 9000

    def settings() -> LimiterConfig:
        return LimiterConfig(
            warmup_tokens=dice.choice([0, 1, 10_000, 1_000_000]),
            reads_per_inserted_token=dice.choice([0.1, 0.25, 1.0, 3.7, 16.0]),
            slack_tokens=dice.choice([1, 1000, 100_000]),
        )

    config = settings()
    limiter = Limiter(config)
    base, inserted, read, total, total_at_change = Fraction(0), 0, 0, 0, 0
    moved = {"insert": 0, "read": 0, "neither": 0}
    for _ in range(100_000):
        ratio, slack = Fraction(config.reads_per_inserted_token or 0), config.slack_tokens
        if (roll := dice.random()) < 0.001:
            owed = base + inserted * ratio - read
            new = settings()
            if new != config:
                base = min(max(owed, Fraction(-new.slack_tokens)), Fraction(new.slack_tokens))
                config, inserted, read, total_at_change = new, 0, 0, total
            limiter = (
                restarted(limiter, new) if roll < 0.0005 else (limiter.reconfigure(new), limiter)[1]
            )
        elif roll < 0.003:
            limiter = restarted(limiter)
        elif roll < 0.004:  # A pause of one insert and one read that leaves the ratio alone.
            limiter.pause()
            tokens = dice.randint(1, largest_insert)
            limiter.inserted(tokens)
            limiter.read(dice.randint(1, largest_read))
            total += tokens
            limiter = restarted(limiter)
            limiter.resume()
        elif dice.random() < 0.5:
            if limiter.may_insert():
                tokens = dice.randint(1, largest_insert)
                limiter.inserted(tokens)
                inserted, total = inserted + tokens, total + tokens
                moved["insert"] += 1
        elif limiter.may_read():
            tokens = dice.randint(1, largest_read)
            limiter.read(tokens)
            read, moved["read"] = read + tokens, moved["read"] + 1
        moved["neither"] += not (limiter.may_insert() or limiter.may_read())

        ratio, slack = Fraction(config.reads_per_inserted_token or 0), config.slack_tokens
        owed = base + inserted * ratio - read
        warmup = max(0, max(1, config.warmup_tokens) - 1 - total_at_change)
        tiny = Fraction(1, 1000)  # The limiter counts in floats.
        assert abs(owed - Fraction(limiter.owed_tokens)) < tiny
        assert (
            -slack - largest_read - tiny <= owed <= slack + ratio * (largest_insert + warmup) + tiny
        )
    assert moved["neither"] == 0
    assert min(moved["insert"], moved["read"]) > 5_000


def test_the_least_settings_are_accepted_and_smaller_ones_rejected() -> None:
    for ratio in (1e-6, 1e6):
        config = LimiterConfig(warmup_tokens=0, slack_tokens=1, reads_per_inserted_token=ratio)
        assert config.reads_per_inserted_token == ratio
    for ratio in (0.99e-6, 1.0000005e6):
        with pytest.raises(ValueError, match="None uncouples"):
            LimiterConfig(warmup_tokens=0, reads_per_inserted_token=ratio)
    with pytest.raises(ValueError, match="at least 1"):
        LimiterConfig(warmup_tokens=0, slack_tokens=0)


def test_without_a_ratio_nothing_is_owed() -> None:
    limiter = Limiter(LimiterConfig(warmup_tokens=0))
    limiter.inserted(5)
    assert limiter.owed_tokens == 0.0


def test_the_last_token_of_the_warm_up_opens_the_readers_and_counts_for_the_writers() -> None:
    config = LimiterConfig(warmup_tokens=10, reads_per_inserted_token=100.0, slack_tokens=1)
    limiter = Limiter(config)
    limiter.inserted(9)
    assert limiter.may_insert()
    assert not limiter.may_read()
    limiter.inserted(1)
    assert not limiter.may_insert()
    assert limiter.may_read()


@pytest.mark.parametrize(
    ("warmup_tokens", "text"),
    [
        (0, "readers wait for the first inserted token"),
        (1, "readers wait for the first inserted token"),
        (2, "readers wait: 0 of 2 tokens of the warm-up are in"),
    ],
)
def test_why_speaks_of_a_warm_up_of_two_tokens_or_more(warmup_tokens: int, text: str) -> None:
    limiter = Limiter(LimiterConfig(warmup_tokens=warmup_tokens, reads_per_inserted_token=1.0))
    assert limiter.why() == text
