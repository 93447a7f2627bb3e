"""Which episodes are drawn and which make room: the selectors' laws, frequencies, queues and
names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.sampling.ordered_selectors import (
    Fifo,
    Lifo,
    LowestReturn,
    MaxHeap,
    MinHeap,
    OldestVersion,
)
from replay.sampling.remover import victims
from replay.sampling.sampler import build_sampler
from replay.sampling.selector_names import selector_from_name
from replay.sampling.selectors import (
    Items,
    OrderedSelector,
    Prioritized,
    RandomSelector,
    Recency,
    ReturnWeighted,
    Selector,
    Stratified,
    Uniform,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
UNITS = st.sampled_from(["step", "episode"])
UNSTRATIFIED = st.one_of(
    st.builds(Uniform, unit=UNITS),
    st.builds(Prioritized, exponent=st.floats(0, 1e300), unit=UNITS),
    st.builds(Recency, half_life_episodes=POSITIVE, unit=UNITS),
    st.builds(ReturnWeighted, temperature=POSITIVE, unit=UNITS),
)
SHARES = st.none() | st.dictionaries(st.integers(-3, 5), st.floats(0, 1e9), min_size=1)
RANDOM = UNSTRATIFIED | st.builds(Stratified, inner=UNSTRATIFIED, task_weights=SHARES)
ORDERED = st.sampled_from([Fifo(), Lifo(), MaxHeap(), MinHeap(), LowestReturn(), OldestVersion()])
SEEDS = st.integers(0, 2**32)


def items_of(
    num_items: int,
    *,
    steps: Sequence[int] | None = None,
    task: Sequence[int] | None = None,
    score: Sequence[float] | None = None,
    priority: Sequence[float] | None = None,
    age_versions: Sequence[int] | None = None,
    times_sampled: Sequence[int] | None = None,
) -> Items:
    def ints(values: Sequence[int] | None, default: int) -> np.ndarray:
        return np.array([default] * num_items if values is None else values, np.int64)

    def floats(values: Sequence[float] | None) -> np.ndarray:
        return np.array([0.0] * num_items if values is None else values, np.float64)

    return Items(
        number=np.arange(num_items) * 3 + 7,
        steps=ints(steps, 1),
        task=ints(task, 0),
        score=floats(score),
        priority=floats(priority),
        age_versions=ints(age_versions, 0),
        times_sampled=ints(times_sampled, 0),
    )


@st.composite
def items_strategy(draw: st.DrawFn, min_size: int = 0) -> Items:
    num_items = draw(st.integers(min_size, 12))

    def column(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=num_items, max_size=num_items))

    return items_of(
        num_items,
        steps=column(st.integers(1, 10_000)),
        task=column(st.integers(-2, 4) | st.sampled_from([-(2**63), 2**63 - 1])),
        score=column(FINITE),
        priority=column(st.sampled_from([0.0, 1.0]) | st.floats(0, allow_infinity=False)),
        age_versions=column(st.integers(0, 5)),
        times_sampled=column(st.integers(0, 4)),
    )


ITEMS = items_strategy()


def chi_square(
    selector: RandomSelector, items: Items, *, seed: int, max_times_sampled: int | None = None
) -> float:
    """Of 100,000 draws against the weights, per degree of freedom; near 1 where they agree."""
    weights_N = selector.weights(items)
    index, probabilities = build_sampler(selector, items, max_times_sampled).draw(
        np.random.default_rng(seed), 100_000
    )
    expected_N = weights_N / weights_N.sum()
    np.testing.assert_allclose(probabilities, expected_N[index])
    seen_N = np.bincount(index, minlength=len(items))
    assert (seen_N[expected_N == 0] == 0).all()
    may_N = expected_N > 0
    counts_N = 100_000 * expected_N[may_N]
    return float((((seen_N[may_N] - counts_N) ** 2) / counts_N).sum() / max(1, may_N.sum() - 1))


@pytest.mark.parametrize(
    "name",
    [
        "uniform",
        "uniform:episode",
        "prioritized:0.6",
        "prioritized:0:episode",
        "recency:20",
        "return:0.5",
        "return:0.5:episode",
        "stratified:uniform",
        "stratified(0=3,2=0):prioritized:1",
    ],
)
def test_items_are_drawn_as_often_as_their_weights_say(name: str) -> None:
    rng = np.random.default_rng(5)
    items = items_of(
        60,
        steps=rng.integers(1, 30, 60),
        task=rng.integers(0, 4, 60),
        score=rng.random(60),
        priority=rng.random(60) * (rng.random(60) < 0.8),
    )
    selector = selector_from_name(name)
    assert isinstance(selector, RandomSelector)
    # 1 in 400 is above it for 59 degrees; the seed is fixed
    assert chi_square(selector, items, seed=1) < 1.6
    assert chi_square(selector, items, seed=2, max_times_sampled=10**9) < 1.6


@given(RANDOM, ITEMS)
def test_weights_are_finite_and_none_is_negative(selector: RandomSelector, items: Items) -> None:
    weights_N = selector.weights(items)
    assert weights_N.shape == (len(items),)
    assert weights_N.dtype == np.float64
    assert np.isfinite(weights_N).all()
    assert (weights_N >= 0).all()
    if len(items) and not isinstance(selector, Stratified):
        assert weights_N.sum() > 0


@given(RANDOM, ITEMS, SEEDS)
def test_the_probabilities_of_what_is_drawn_are_shares_of_all_weights(
    selector: RandomSelector, items: Items, seed: int
) -> None:
    weights_N = selector.weights(items)
    index, probabilities = build_sampler(selector, items, None).draw(
        np.random.default_rng(seed), 300
    )
    assert len(index) == len(probabilities) == (300 if weights_N.sum() > 0 else 0)
    assert (weights_N[index] > 0).all()
    distinct = dict(zip(index.tolist(), probabilities.tolist(), strict=True))
    assert sum(distinct.values()) <= 1 + 1e-9
    undrawn = np.ones(len(items), bool)
    undrawn[list(distinct)] = False
    if len(index):
        assert sum(distinct.values()) + (weights_N / weights_N.sum())[
            undrawn
        ].sum() == pytest.approx(1.0)


@given(ORDERED, ITEMS)
def test_an_order_is_a_permutation_and_equals_come_oldest_first(
    selector: OrderedSelector, items: Items
) -> None:
    order_N = selector.order(items)
    assert sorted(order_N) == list(range(len(items)))
    key = {
        "fifo": items.number,
        "lifo": -items.number,
        "max_heap": -items.priority,
        "min_heap": items.priority,
        "lowest_return": items.score,
        "oldest_version": -items.age_versions,
    }[selector.name]
    assert list(order_N) == sorted(range(len(items)), key=lambda index: (key[index], index))


@given(UNSTRATIFIED, ITEMS, SHARES)
def test_each_task_has_its_share_and_within_it_the_inner_selector_decides(
    inner: RandomSelector, items: Items, shares: dict[int, float] | None
) -> None:
    weights_N = Stratified(inner=inner, task_weights=shares).weights(items)
    for code in set(items.task.tolist()):
        of_task = np.flatnonzero(items.task == code)
        share = (shares or {}).get(code, 1.0)
        within = inner.weights(items.take(of_task))
        np.testing.assert_allclose(weights_N[of_task].sum(), share, rtol=1e-9, atol=1e-300)
        np.testing.assert_allclose(
            weights_N[of_task], share * within / within.sum(), rtol=1e-9, atol=1e-300
        )


def test_a_task_that_is_old_keeps_its_share() -> None:
    items = items_of(5000, task=[0] * 2500 + [1] * 2500)
    assert Recency(half_life_episodes=1.0).weights(items)[:2500].sum() == 0
    assert Stratified(inner=Recency(half_life_episodes=1.0)).weights(items)[
        :2500
    ].sum() == pytest.approx(1.0)


def test_a_task_of_which_the_inner_selector_draws_nothing_leaves_its_share() -> None:
    inner = Stratified(inner=Uniform(), task_weights={0: 0.0})
    weights_N = Stratified(inner=inner).weights(items_of(3, task=[0, 1, 1]))
    assert weights_N.tolist() == [0.0, 0.5, 0.5]


def test_uniform_counts_steps_or_episodes() -> None:
    items = items_of(2, steps=[1, 9])
    assert Uniform().weights(items).tolist() == [1, 9]
    assert Uniform(unit="episode").weights(items).tolist() == [1, 1]


def test_a_priority_of_zero_is_never_drawn_unless_all_are() -> None:
    for exponent in (0.0, 0.5):
        some = Prioritized(exponent=exponent).weights(items_of(3, priority=[0, 2, 2]))
        assert (some == 0).tolist() == [True, False, False]
        assert Prioritized(exponent=exponent).weights(items_of(3, steps=[1, 2, 3])).tolist() == [
            1,
            2,
            3,
        ]


def test_weights_follow_their_formulas() -> None:
    items = items_of(3, priority=[1, 4, 16], score=[0.0, 0.5, 1.0])
    np.testing.assert_allclose(Prioritized(exponent=0.5).weights(items) * 4, [1, 2, 4])
    np.testing.assert_allclose(Recency(half_life_episodes=2.0).weights(items), [0.5, 0.5**0.5, 1])
    np.testing.assert_allclose(ReturnWeighted(temperature=0.5).weights(items), np.exp([-2, -1, 0]))


def test_a_step_has_the_weight_of_its_item_unless_items_count_alike() -> None:
    steps = [2, 5, 10]
    items = items_of(3, steps=steps, priority=[1, 4, 16], score=[0.0, 0.5, 1.0])
    for selector in (
        Prioritized(exponent=0.5),
        Recency(half_life_episodes=2.0),
        ReturnWeighted(temperature=0.5),
    ):
        of_items = replace(selector, unit="episode").weights(items)
        assert len(set(of_items)) == 3
        np.testing.assert_allclose(selector.weights(items), of_items * steps)


@given(ORDERED, ITEMS, st.integers(1, 5), st.integers(0, 70), SEEDS)
def test_with_a_limit_an_order_is_a_queue(
    selector: OrderedSelector, items: Items, most: int, count: int, seed: int
) -> None:
    index, probabilities = build_sampler(selector, items, most).draw(
        np.random.default_rng(seed), count
    )
    queue = [
        item for item in selector.order(items) for _ in range(most - items.times_sampled[item])
    ]
    assert index.tolist() == queue[:count]
    assert (probabilities == 1.0).all()


@given(ORDERED, ITEMS, st.integers(0, 5), SEEDS)
def test_without_a_limit_an_order_gives_its_first_again_and_again(
    selector: OrderedSelector, items: Items, count: int, seed: int
) -> None:
    index, _ = build_sampler(selector, items, None).draw(np.random.default_rng(seed), count)
    assert index.tolist() == selector.order(items).tolist()[:1] * count


@given(RANDOM, ITEMS, st.integers(1, 5), st.integers(0, 70), SEEDS)
def test_with_a_limit_no_item_is_drawn_more_often_and_nothing_is_left_undrawn(
    selector: RandomSelector, items: Items, most: int, count: int, seed: int
) -> None:
    index, probabilities = build_sampler(selector, items, most).draw(
        np.random.default_rng(seed), count
    )
    live = np.flatnonzero(items.times_sampled < most)
    may = live[selector.weights(items.take(live)) > 0]
    left = {int(item): int(most - items.times_sampled[item]) for item in may}
    assert len(index) == len(probabilities) == min(count, sum(left.values()))
    assert all(times <= left[item] for item, times in Counter(index.tolist()).items())
    assert ((probabilities > 0) & (probabilities <= 1)).all()


def test_draws_with_a_limit_are_those_of_one_after_another() -> None:
    items = items_of(4, steps=[1, 2, 3, 14])
    weights = [0.05, 0.1, 0.15, 0.7]
    limited = build_sampler(Uniform(), items, 1)
    rng = np.random.default_rng(3)
    seen: Counter[tuple[int, ...]] = Counter()
    for _ in range(5_000):
        index, probabilities = limited.draw(rng, 3)
        seen[tuple(index.tolist())] += 1
        there = 1.0 - np.concatenate([[0], np.cumsum([weights[item] for item in index[:-1]])])
        np.testing.assert_allclose(probabilities, [weights[item] for item in index] / there)
    expected = {
        (a, b, c): (
            weights[a] * weights[b] / (1 - weights[a]) * weights[c] / (1 - weights[a] - weights[b])
        )
        for a in range(4)
        for b in range(4)
        for c in range(4)
        if len({a, b, c}) == 3
    }
    assert sum(expected.values()) == pytest.approx(1.0)
    statistic = sum((seen[order] - 5_000 * p) ** 2 / (5_000 * p) for order, p in expected.items())
    assert statistic / 23 < 2.0


def test_a_chooser_draws_the_same_with_the_same_generator() -> None:
    limited = build_sampler(Uniform(), items_of(50, steps=range(1, 51)), 3)
    first = limited.draw(np.random.default_rng(1), 100)
    again = limited.draw(np.random.default_rng(1), 100)
    np.testing.assert_array_equal(first, again)


BYTES = st.lists(st.integers(1, 1000), min_size=12, max_size=12)


@given(RANDOM | ORDERED, ITEMS, BYTES, st.integers(-5, 8000), SEEDS)
def test_victims_free_enough_and_not_one_item_too_many(
    selector: Selector, items: Items, sizes: list[int], excess_bytes: int, seed: int
) -> None:
    stored_bytes = np.array(sizes[: len(items)], np.int64)
    chosen = victims(selector, items, excess_bytes, stored_bytes, np.random.default_rng(seed))
    assert len(set(chosen.tolist())) == len(chosen)
    freed = int(stored_bytes[chosen].sum())
    assert freed >= min(excess_bytes, int(stored_bytes.sum()))
    assert not len(chosen) or freed - stored_bytes[chosen[-1]] < excess_bytes
    if isinstance(selector, OrderedSelector):
        assert chosen.tolist() == selector.order(items)[: len(chosen)].tolist()
    else:
        drawable = selector.weights(items)[chosen] > 0
        assert (drawable[:-1] >= drawable[1:]).all()  # What has weight 0 goes last.


def test_random_victims_go_in_proportion_to_their_weights_without_replacement() -> None:
    items, weights = items_of(4, steps=[1, 2, 3, 4]), np.array([0.1, 0.2, 0.3, 0.4])
    rng = np.random.default_rng(7)
    seen: Counter[frozenset[int]] = Counter()
    for _ in range(3_000):
        seen[frozenset(victims(Uniform(), items, 2, np.ones(4, np.int64), rng).tolist())] += 1
    expected = {
        frozenset((a, b)): weights[a] * weights[b] * (1 / (1 - weights[a]) + 1 / (1 - weights[b]))
        for a, b in combinations(range(4), 2)
    }
    statistic = sum((seen[pair] - 3_000 * p) ** 2 / (3_000 * p) for pair, p in expected.items())
    assert statistic / 5 < 3.0


@given(
    RANDOM
    | ORDERED
    | st.builds(Stratified, inner=st.builds(Stratified, inner=UNSTRATIFIED, task_weights=SHARES))
)
def test_a_name_gives_its_selector_back(selector: Selector) -> None:
    assert selector_from_name(selector.name) == selector


@pytest.mark.parametrize(
    "text",
    [
        "uniform",
        "prioritized:0.6",
        "recency:10000",
        "return:0.1",
        "fifo",
        "lifo",
        "max_heap",
        "min_heap",
        "stratified:uniform",
        "lowest_return",
        "oldest_version",
        "uniform:episode",
        "stratified(3=2,4=0.5):return:0.1",
    ],
)
def test_a_selector_gives_its_name_back(text: str) -> None:
    assert selector_from_name(text).name == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unifrom", "nearest is 'uniform'"),
        ("maxheap", "nearest is 'max_heap'"),
        ("", "is not known"),
        ("prioritized", r"not of the form prioritized:EXPONENT\[:episode\]"),
        ("prioritized:much", "'much' is not a number"),
        ("prioritized:-1", "exponent -1.0 must be finite and at least 0"),
        ("recency:0", "half_life_episodes 0.0 must be finite and above 0"),
        ("return:nan", "temperature nan must be finite and above 0"),
        ("fifo:3", "not of the form fifo"),
        ("uniform:3", "not of the form uniform"),
        ("stratified", "not of the form stratified"),
        ("stratified:fifo", "order within a task"),
        ("stratified(3=-1):uniform", r"task_weights\[3\] -1.0 must be finite and at least 0"),
        ("stratified(3=x):uniform", "'x' is not a number"),
        ("stratified(3):uniform", "not of the form stratified"),
        ("stratified(3=1 2=5):uniform", "not of the form stratified"),
    ],
)
def test_a_name_that_is_wrong_is_rejected_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        selector_from_name(text)
    assert "\n" not in str(caught.value)


def test_settings_that_make_no_sense_are_rejected() -> None:
    # Where calls are type-checked, that is sooner.
    with pytest.raises((ValueError, TypeError), match="unit"):
        Uniform(unit="frame")  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError), match="inner"):
        Stratified(inner=Fifo())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="task_weights is empty"):
        Stratified(inner=Uniform(), task_weights={})
    with pytest.raises(ValueError, match="max_times_sampled 0 must be at least 1"):
        build_sampler(Fifo(), items_of(1), 0)
    with pytest.raises(ValueError, match=r"priority -1\.0 is below 0"):
        Prioritized(exponent=1.0).weights(items_of(2, priority=[1, -1]))


def test_columns_that_do_not_fit_are_rejected() -> None:
    with pytest.raises((ValueError, TypeError), match=r"one entry an item|Expected type"):
        items_of(2, steps=[1])
    with pytest.raises(ValueError, match="not finite"):
        items_of(1, score=[float("nan")])
    with pytest.raises(ValueError, match="steps must be at least 1"):
        items_of(1, steps=[0])
    with pytest.raises(ValueError, match="increase"):
        items_of(3).take(np.array([1, 0]))
    with pytest.raises(ValueError, match="increase"):
        items_of(3).take(np.array([0, 2, 1]))
    with pytest.raises(ValueError, match="increase"):
        items_of(3).take(np.array([0, 1, 1]))
