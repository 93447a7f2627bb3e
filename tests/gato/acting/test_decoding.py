"""Which token is chosen from given logits."""

import numpy as np
import pytest
import torch

from gato.acting.config import ActingConfig
from gato.acting.decoding import probabilities, restrict
from gato.acting.policy import Policy
from tests.gato.models import GAME, ROBOT, random_observations, small_model

LOGITS = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.05, 0.05, 0.1, 0.8]]).log()


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (None, None, [[0, 1, 2, 3], [0, 1, 2, 3]]),
        (1, None, [[0], [3]]),
        (2, None, [[0, 2], [2, 3]]),
        (9, None, [[0, 1, 2, 3], [0, 1, 2, 3]]),
        (None, 0.3, [[0], [3]]),
        (None, 0.65, [[0, 2], [3]]),
        (None, 0.75, [[0, 2, 3], [3]]),
        (None, 0.85, [[0, 2, 3], [2, 3]]),
        (None, 1.0, [[0, 1, 2, 3], [0, 1, 2, 3]]),
        # Of the two likeliest, 4/7 and 3/7, the first alone has 0.55 of what is left; without top_k
        # it has not.
        (2, 0.55, [[0], [3]]),
        (None, 0.55, [[0, 2], [3]]),
    ],
)
def test_a_draw_is_from_the_likeliest_only(
    top_k: int | None, top_p: float | None, kept: list[list[int]]
) -> None:
    out = restrict(LOGITS, top_k, top_p)
    assert [row.isfinite().nonzero()[:, 0].tolist() for row in out] == kept
    for row, logits, ids in zip(out, LOGITS, kept, strict=True):
        assert torch.equal(row[ids], logits[ids])


def test_of_equally_likely_ids_so_many_stay_as_were_asked_for() -> None:
    even = torch.zeros(1, 6)
    assert restrict(even, 2, None).isfinite().nonzero()[:, 1].tolist() == [0, 1]
    assert restrict(even, None, 0.6).isfinite().nonzero()[:, 1].tolist() == [0, 1, 2, 3]


def test_the_temperature_comes_before_the_nucleus() -> None:
    config = ActingConfig(discrete="sample", temperature=0.5, top_p=0.7)
    # Squared and normalised, the first row is 16, 1, 9, 4 of 30: the two likeliest have 25/30.
    np.testing.assert_allclose(
        probabilities(LOGITS, "sample", config)[0], [16 / 25, 0, 9 / 25, 0], atol=1e-6
    )
    np.testing.assert_allclose(
        probabilities(LOGITS, "mean", config)[0] * 30, [16, 1, 9, 4], rtol=1e-5
    )


class Choice(Policy):
    """A policy whose choice can be asked for."""

    def choose(self, logits: torch.Tensor) -> tuple[list[int], list[float]]:
        ids, values = self._choose(logits)
        return ids[:, 0].tolist(), values.tolist()


def peaked(num_ids: int, at: dict[int, float]) -> torch.Tensor:
    """Logits of one row with these probabilities, and next to none elsewhere."""
    p = torch.full((1, num_ids), 1e-30)
    for index, probability in at.items():
        p[0, index] = probability
    return p.log()


def test_mean_argmax_and_draws_of_a_continuous_action() -> None:
    model = small_model(64)
    first = model.config.layout.first_bin
    logits = peaked(1024, {0: 0.4, 1023: 0.6})
    ids, values = Choice(model, ROBOT, ActingConfig()).choose(logits)
    assert values == pytest.approx([0.2 * 1023 / 1024], abs=1e-5)
    assert ids == [first + 614]  # the bin that holds 0.1998
    assert Choice(model, ROBOT, ActingConfig(continuous="argmax")).choose(logits)[0] == [
        first + 1023
    ]
    draw = Choice(
        model, ROBOT, ActingConfig(continuous="sample"), generator=torch.Generator().manual_seed(0)
    )
    ids, values = draw.choose(logits.expand(1000, -1))
    assert set(ids) == {first, first + 1023}
    assert set(values) == {-1023 / 1024, 1023 / 1024}
    assert 0.55 < np.mean(np.array(ids) > first) < 0.65


def test_argmax_and_draws_of_a_discrete_action() -> None:
    model = small_model(64)
    logits = peaked(18, {3: 0.5, 7: 0.3, 11: 0.2})
    assert Choice(model, GAME, ActingConfig()).choose(logits)[0] == [3]

    def drawn(**settings: float) -> set[int]:
        config = ActingConfig(discrete="sample", **settings)  # type: ignore[arg-type]
        policy = Choice(model, GAME, config, generator=torch.Generator().manual_seed(0))
        return set(policy.choose(logits.expand(500, -1))[0])

    assert drawn() == {3, 7, 11}
    assert drawn(top_k=2) == {3, 7}
    assert drawn(top_p=0.4) == {3}
    assert drawn(top_p=0.6) == {3, 7}
    assert drawn(temperature=0.01) == {3}


def test_draws_of_the_likeliest_alone_are_argmax() -> None:
    model, rng = small_model(64), np.random.default_rng(0)
    observations = random_observations(ROBOT, 8, rng)
    drawn = Policy(model, ROBOT, ActingConfig(continuous="sample", top_k=1))
    likeliest = Policy(model, ROBOT, ActingConfig(continuous="argmax"))
    np.testing.assert_array_equal(
        drawn.act(drawn.start(8), observations), likeliest.act(likeliest.start(8), observations)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature 0.0 must be above 0"),
        ({"temperature": float("nan")}, "temperature nan must be above 0 and finite"),
        ({"discrete": "sample", "top_k": 0}, "top_k 0 must be at least 1; leave it out"),
        (
            {"discrete": "sample", "top_p": 0.0},
            "top_p 0.0 must be above 0 and at most 1; leave it out",
        ),
        ({"discrete": "sample", "top_p": 1.1}, "top_p 1.1 must be above 0 and at most 1"),
        ({"top_k": 3}, "nothing is drawn; set continuous or discrete to 'sample'"),
        ({"window_steps": 0}, "window_steps 0 must be at least 1"),
    ],
)
def test_a_wrong_way_to_act_says_how_to_mend_it(
    settings: dict[str, float | str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ActingConfig(**settings)  # type: ignore[arg-type]
