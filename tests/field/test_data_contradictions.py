"""Laws: a source with one contradiction is rejected, cut, converted or named; none passes silently,
and what is taken is right."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.envs.gymnasium_env import keyword_defaults
from actors.tasks.catalog import TASKS
from gato.compatibility.wrappers import HARMLESS_WRAPPERS
from gato.episode import check_episode
from replay.formats.detect import read_source
from replay.formats.reader import ImportOptions
from replay.storage.changes import FIELD

LIMIT = 20
HOPPER = replace(TASKS["mujoco/hopper"], max_steps=LIMIT)
HOPPER4 = replace(TASKS["mujoco-v4/hopper"], max_steps=LIMIT)
KNOWN = {**TASKS, HOPPER.name: HOPPER, HOPPER4.name: HOPPER4}
LENGTHS = (LIMIT, 12, LIMIT)
"""Of three episodes; the second ends in a fall."""
Change = Callable[["Source"], None]


@dataclass
class Source:
    """Three whole episodes, and what a file says of them; changes are made here, before it is
    written."""

    observations: list[Any] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[Any] = field(default_factory=list)
    terminals: list[Any] = field(default_factory=list)
    timeouts: list[Any] = field(default_factory=list)
    spec: dict[str, Any] = field(default_factory=dict)
    action_space: dict[str, Any] = field(default_factory=dict)
    observation_space: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    """Further columns of the file, or other values of those."""


def whole() -> Source:
    rng = np.random.default_rng(0)
    made = Source(
        spec={
            "id": "Hopper-v5",
            "kwargs": {},
            "max_episode_steps": LIMIT,
            "additional_wrappers": [],
        },
        action_space={
            "type": "Box",
            "dtype": "float32",
            "shape": [3],
            "low": [-1.0] * 3,
            "high": [1.0] * 3,
        },
        observation_space={
            "type": "Box",
            "dtype": "float64",
            "shape": [11],
            "low": [-np.inf] * 11,
            "high": [np.inf] * 11,
        },
        about={"total_episodes": len(LENGTHS)},
    )
    for steps in LENGTHS:
        made.observations.append(rng.normal(size=(steps + 1, 11)))
        made.actions.append(rng.uniform(-0.9, 0.9, (steps, 3)).astype(np.float32))
        made.rewards.append(rng.uniform(0.5, 1.5, steps))
        ends = np.arange(steps) == steps - 1
        made.terminals.append(ends if steps < LIMIT else np.zeros(steps, np.bool_))
        made.timeouts.append(ends if steps == LIMIT else np.zeros(steps, np.bool_))
    return made


def write_d4rl(made: Source, folder: Path) -> Path:
    path = folder / "hopper.hdf5"
    with h5py.File(path, "w") as file:
        columns: dict[str, Any] = {
            "observations": np.concatenate([values[:-1] for values in made.observations]),
            "actions": np.concatenate(made.actions),
            "rewards": np.concatenate(made.rewards),
            "terminals": np.concatenate(made.terminals),
            "timeouts": np.concatenate(made.timeouts),
            "next_observations": np.concatenate([values[1:] for values in made.observations]),
            "metadata/env_id": str(made.spec["id"]).encode(),
            "metadata/env_spec": json.dumps(made.spec).encode(),
        }
        for name, values in (columns | made.columns).items():
            if values is not None:
                file[name] = values
    return path


def write_minari(made: Source, folder: Path) -> Path:
    (folder / "set" / "data").mkdir(parents=True)
    about = {
        "dataset_id": "mine/hopper-v0", "data_format": "hdf5", "minari_version": "0.5.4",
        "env_spec": json.dumps(made.spec),
        "action_space": json.dumps(made.action_space),
        "observation_space": json.dumps(made.observation_space),
    }  # fmt: skip
    (folder / "set" / "data" / "metadata.json").write_text(json.dumps(about | made.about))
    with h5py.File(folder / "set" / "data" / "main_data.hdf5", "w") as file:
        for index in range(len(LENGTHS)):
            group = file.create_group(f"episode_{index}")
            group["observations"], group["actions"] = made.observations[index], made.actions[index]
            group["rewards"] = made.rewards[index]
            group["terminations"], group["truncations"] = (
                made.terminals[index],
                made.timeouts[index],
            )
    return folder / "set"


def write_jat(made: Source, folder: Path) -> Path:
    path = folder / "mujoco-hopper" / "train.parquet"
    path.parent.mkdir()
    columns: dict[str, Any] = {
        "continuous_observations": [values[:-1].tolist() for values in made.observations],
        "continuous_actions": [np.asarray(values).tolist() for values in made.actions],
        "rewards": [
            None if values is None else np.asarray(values).tolist() for values in made.rewards
        ],
    }
    kept = {name: values for name, values in (columns | made.columns).items() if values is not None}
    pq.write_table(pa.table(kept), path)
    return path


def read(write: Callable[[Source, Path], Path], made: Source) -> tuple[int, set[str]]:
    """How many episodes are taken, and all that is said: errors, refusals, notes, and changes of
    the episodes."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = write(made, Path(folder))
            reading = read_source(
                str(path), KNOWN, options=ImportOptions(defaults=keyword_defaults)
            )
            episodes = list(reading)
        except ValueError as problem:
            return 0, {f"error: {problem}"}
    for episode in episodes:
        check_episode(episode, KNOWN[episode.task])
    report = reading.report
    changes = {f"changed: {episode.info[FIELD]}" for episode in episodes if FIELD in episode.info}
    refused = {f"refused: {reason}" for reason in report.rejected}
    return len(episodes), {*report.notes, *report.left_out, *refused, *changes}


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
places = st.integers(0, len(LENGTHS) - 1)


def _set(of: str, index: int, value: Any) -> Change:
    return lambda made: getattr(made, of).__setitem__(index, value)


def _edit(of: str, index: int, edit: Callable[[Any], Any]) -> Change:
    return lambda made: getattr(made, of).__setitem__(index, edit(getattr(made, of)[index]))


def _with(values: Any, place: Any, value: float) -> Any:
    values = np.array(values, np.float64)
    values[place] = value
    return values


def _spec(**changes: Any) -> Change:
    return lambda made: made.spec.update(changes)


@st.composite
def of_any_form(draw: st.DrawFn) -> Change:
    """Contradictions of the episodes themselves, which every form can hold."""
    index = draw(places)
    step = draw(st.integers(0, 11))
    bad = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    absurd = draw(st.floats(3.3e5, 1e38)) * draw(st.sampled_from([1, -1]))
    outside = draw(st.floats(1.01, 1e6)) * draw(st.sampled_from([1, -1]))
    return draw(
        st.sampled_from(
            [
                _edit("observations", index, lambda v: _with(v, (step, 3), bad)),
                _edit("actions", index, lambda v: _with(v, (step, 1), bad)),
                _edit("rewards", index, lambda v: _with(v, step, bad)),
                _edit("rewards", index, lambda v: _with(v, step, absurd)),
                _edit("actions", index, lambda v: _with(v, (step, 2), outside)),
                _edit("actions", index, lambda v: np.asarray(v) * 30.0),
            ]
        )
    )


@st.composite
def of_the_environment(draw: st.DrawFn) -> Change:
    """Contradictions of what a file says of its environment."""
    names = st.text("abcdefghijklmnopqrstuvwxyzABC", min_size=3, max_size=20)
    wrapper = draw(names.filter(lambda name: name not in HARMLESS_WRAPPERS and name != "TimeLimit"))
    known = draw(
        st.sampled_from(
            ["NormalizeObservation", "TransformReward", "FrameStackObservation", "StickyAction"]
        )
    )
    keyword = draw(names)
    weight = draw(numbers.filter(lambda value: value != 1.0))
    version = draw(
        st.sampled_from(["Walker2d-v5", "Ant-v5", "CartPole-v1", "Hopper-v9", "MyHopper-v5"])
    )
    return draw(
        st.sampled_from(
            [
                _spec(id=version),
                _spec(additional_wrappers=[{"name": wrapper, "entry_point": "x:Y", "kwargs": {}}]),
                _spec(
                    additional_wrappers=[
                        {"name": known, "entry_point": f"gymnasium.wrappers:{known}", "kwargs": {}}
                    ]
                ),
                _spec(
                    additional_wrappers=[
                        {"name": "TimeLimit", "entry_point": "mine:TimeLimit", "kwargs": {}}
                    ]
                ),
                _spec(kwargs={keyword: 1}),
                _spec(kwargs={"healthy_reward": weight}),
                _spec(kwargs={"frame_skip": 1}),
                _spec(kwargs={"terminate_when_unhealthy": False}),
                _spec(entry_point="my_project.envs:Hopper"),
                _spec(
                    max_episode_steps=draw(
                        st.integers(1, 10_000).filter(lambda limit: limit != LIMIT)
                    )
                ),
            ]
        )
    )


def _columns(**values: Any) -> Change:
    return lambda made: made.columns.update(values)


ROWS = sum(LENGTHS)
OF_D4RL: list[Change] = [
    _edit("timeouts", 0, lambda v: np.zeros(len(v), np.bool_)),  # two episodes that become one
    _edit("terminals", 1, lambda v: np.zeros(len(v), np.bool_)),
    _columns(terminals=np.full(ROWS, 0.5)),
    _columns(timeouts=np.full(ROWS, np.nan)),
    _columns(rewards=np.zeros((ROWS, 2))),
    _columns(rewards=np.zeros(ROWS - 1)),
    _columns(observations=np.zeros((ROWS, 17))),
    _columns(actions=np.zeros((ROWS, 6))),
    _columns(actions=np.full((ROWS, 3), b"x")),
    _columns(next_observations=np.random.default_rng(3).normal(size=(ROWS, 11))),
    _columns(**{"infos/seed": np.arange(ROWS)}),
    _columns(**{"metadata/env_spec": b"{"}),
    _columns(**{"metadata/env_kwargs": b'{"gravity": 3}'}),
    _columns(observations=None),
]


def _space(which: str, **changes: Any) -> Change:
    return lambda made: getattr(made, which).update(changes)


def _metadata(**changes: Any) -> Change:
    return lambda made: made.about.update(changes)


OF_MINARI: list[Change] = [
    _space("action_space", low=[-10.0] * 3, high=[10.0] * 3),
    _space("action_space", low=[-1.0, -1.0, -0.5]),
    _space("action_space", low=[-1.0, -1.0, -np.inf]),
    _space("action_space", low=[-np.inf] * 3, high=[np.inf] * 3),
    _space("action_space", shape=[6], low=[-1.0] * 6, high=[1.0] * 6),
    lambda made: made.action_space.update(type="Discrete", n=3),
    _space("observation_space", low=[-1.0] * 11, high=[1.0] * 11),
    _space("observation_space", shape=[17], low=[-np.inf] * 17, high=[np.inf] * 17),
    _metadata(total_episodes=2),
    _metadata(total_episodes=5),
    _metadata(env_spec="null"),
    _metadata(env_spec="[1]"),
    _metadata(env_spec="{"),
    _metadata(data_format="zarr"),
    _edit("rewards", 1, lambda v: v[:-1]),
    _edit("terminals", 1, lambda v: v[:-1]),
    _edit("terminals", 1, lambda v: np.arange(len(v)) == 3),
    _edit("observations", 2, lambda v: v[:-1]),
    _edit("observations", 2, lambda v: v[:, :10]),
    _set("actions", 1, np.zeros((0, 3), np.float32)),
    _edit("rewards", 0, lambda v: np.repeat(v[:, None], 2, axis=1)),
]


def _longer(made: Source) -> None:
    """One episode of more steps than the limit."""
    for of in ("actions", "rewards", "terminals", "timeouts"):
        getattr(made, of)[0] = np.concatenate([getattr(made, of)[0]] * 2)
    made.observations[0] = np.concatenate([made.observations[0][:-1], made.observations[0]])
    for of in ("terminals", "timeouts"):
        getattr(made, of)[0][LIMIT - 1] = False


OF_JAT: list[Change] = [
    _longer,
    _edit("rewards", 1, lambda v: v[:-1]),
    _edit("actions", 1, lambda v: v[:-2]),
    _set("rewards", 1, None),
    _set("rewards", 1, np.zeros(0)),
    _edit("observations", 2, lambda v: v[:-3]),
    _columns(continuous_observations=[np.zeros((n, 17)).tolist() for n in LENGTHS]),
    _columns(continuous_actions=[np.zeros((n, 6)).tolist() for n in LENGTHS]),
    _columns(continuous_actions=None, discrete_actions=[[0] * n for n in LENGTHS]),
    _columns(discrete_actions=[[0] * n for n in LENGTHS]),
    _columns(rewards=[0.0] * 3),
    _columns(continuous_observations=None),
    _columns(frame_skip=[1, 1, 1]),
]

FORMS = {
    "d4rl": (write_d4rl, st.one_of(of_any_form(), of_the_environment(), st.sampled_from(OF_D4RL))),
    "minari": (
        write_minari,
        st.one_of(of_any_form(), of_the_environment(), st.sampled_from([*OF_MINARI, _longer])),
    ),
    "jat": (write_jat, st.one_of(of_any_form(), st.sampled_from(OF_JAT))),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_source_without_a_contradiction_is_taken_whole(form: str) -> None:
    write, _ = FORMS[form]
    count, said = read(write, whole())
    assert count == len(LENGTHS)
    assert not any(line.startswith(("refused", "changed", "converted", "error")) for line in said)


@pytest.mark.parametrize("form", FORMS)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_contradiction_passes_silently(form: str, data: st.DataObject) -> None:
    write, contradictions = FORMS[form]
    _, usual = read(write, whole())
    made = whole()
    data.draw(contradictions)(made)
    count, said = read(write, made)
    assert said - usual, f"{count} episodes were taken and nothing was said"


@pytest.mark.parametrize(
    ("form", "change"),
    [
        *(("d4rl", change) for change in OF_D4RL),
        *(("minari", change) for change in [*OF_MINARI, _longer]),
        *(("jat", change) for change in OF_JAT),
    ],
)
def test_each_contradiction_of_a_form_is_said(form: str, change: Change) -> None:
    write, _ = FORMS[form]
    _, usual = read(write, whole())
    made = whole()
    change(made)
    _, said = read(write, made)
    assert said - usual
