"""`--normalise`: statistics of the data sets go into the model's config, and from there into the
tasks whose tokens are made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.tasks.resolve import resolve_task
from cluster.control.build_run import make_config
from cluster.control.evaluation.evaluate import StoredPrompts
from cluster.runs.config import RunConfig
from cluster.runs.data import datasets
from cluster.runs.normalise import Moments
from cluster.runs.resolve import tasks_of
from gato.compatibility.coverage import Coverage
from gato.episode import Episode
from gato.serialization import from_plain, to_plain
from gato.tokenizer import encode
from replay.storage.store import EpisodeStore
from tests.cluster.cli.test_main import gato

PRICES = "tests.actors.prices:Prices-v0"


@pytest.fixture
def prices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[Episode]:
    """The episodes of a recorded data set called prices."""
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    teacher = "python:tests.actors.prices:knows"
    status, _, err = gato(
        monkeypatch,
        capsys,
        "record",
        PRICES,
        "--teacher",
        teacher,
        "--episodes",
        "6",
        "--name",
        "prices",
    )
    assert (status, err) == (0, "")
    path = datasets.find("prices").path / "episodes"
    store = EpisodeStore(path, capacity_bytes=datasets.CAPACITY_BYTES, read_only=True)
    episodes = list(store.all_episodes())
    store.close()
    return episodes


def started(
    *normalise: str, data: tuple[str, ...] = ("prices",), tasks: list[str] | None = None
) -> RunConfig:
    return make_config("debug", name=None, tasks=tasks, data=data, settings=(), normalise=normalise)


def covered(config: RunConfig, episodes: list[Episode]) -> Coverage:
    coverage = Coverage(tasks_of(config)[PRICES].observations, config.model.layout)
    for episode in episodes:
        coverage.observe(episode.observations)
    return coverage


@pytest.mark.parametrize("words", [(PRICES,), ("all",)])
def test_what_was_one_token_becomes_many(prices: list[Episode], words: tuple[str, ...]) -> None:
    assert "clipped" in covered(started(), prices).warnings()[0]
    config = started(*words)
    assert covered(config, prices).warnings() == []
    spec = tasks_of(config)[PRICES].observations["state"]
    shown = np.concatenate([episode.observations["state"] for episode in prices])
    np.testing.assert_allclose(spec.mean, shown.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(spec.std, [*shown[:, :2].std(axis=0, dtype=np.float64), 1.0])
    ids = encode(shown, spec, config.model.layout)
    assert [len(np.unique(column)) > 100 for column in ids.T] == [True, True, False]


@pytest.mark.report("ugr-sail/sinergym#408")
def test_the_statistics_are_kept_with_the_run_and_used_wherever_its_tasks_are(
    prices: list[Episode], tmp_path: Path
) -> None:
    config = started(PRICES)
    again = from_plain(RunConfig, json.loads(json.dumps(to_plain(config))))
    assert again == config
    assert tasks_of(again)[PRICES] == tasks_of(config)[PRICES]
    assert {n: s.raw for n, s in tasks_of(config)[PRICES].observations.items()} == resolve_task(
        PRICES
    ).observations
    store = EpisodeStore(tmp_path / "replay", capacity_bytes=1 << 26)
    store.add(replace(prices[0], source="teacher:t"), tokens=1)
    store.close()
    shown = StoredPrompts(tmp_path / "replay", config).demonstration(PRICES, 3)
    assert shown is not None
    np.testing.assert_array_equal(
        shown.observations["state"], prices[0].observations["state"][:3]
    )  # raw: encoded later


def test_what_cannot_be_normalised_is_named(prices: list[Episode]) -> None:
    with pytest.raises(
        ValueError, match=r"needs recorded episodes .* the data sets prices have none of it"
    ):
        started("mujoco/inverted-pendulum", tasks=["mujoco/inverted-pendulum"])
    with pytest.raises(
        ValueError,
        match=r"the run has no data set; make one with gato record mujoco/inverted-pendulum",
    ):
        started("mujoco/inverted-pendulum", data=(), tasks=["mujoco/inverted-pendulum"])
    with pytest.raises(
        ValueError, match=r"the run has no such task; it has tests\.actors\.prices:Prices-v0"
    ):
        started("hopper")
    with pytest.raises(ValueError, match="shows nothing continuous"):
        started("pong", tasks=["atari/pong"])
    with pytest.raises(ValueError, match="no task of this run shows continuous values"):
        started("all", tasks=["atari/pong"])


def test_an_environment_is_made_whatever_its_task_is_normalised_by(prices: list[Episode]) -> None:
    from actors.envs.factory import make_envs

    task = tasks_of(started(PRICES))[PRICES]
    envs = make_envs(task, 1, backend="process")
    envs.reset_row(0, 3)
    assert envs.observations["state"].min() > 29_000
    envs.close()


def test_moments_of_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).normal([1e6, 0.0, 3.0], [1.0, 1e-9, 0.0], (500, 3))
    moments = Moments(3)
    for part in np.split(values, [7, 300]):
        moments.add(part)
    np.testing.assert_allclose(moments.statistics.mean, values.mean(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(moments.statistics.std, [*values[:, :2].std(axis=0), 1.0], rtol=1e-6)
