"""Beginning with trained weights, and training a part of the model only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gato.network.model import Gato
from learner.checkpoints.files import list_checkpoints
from learner.checkpoints.initial import stored_arrays, write_initial
from learner.config import LearnerConfig
from learner.optimiser import freeze, make_optimiser, require_parts
from learner.schedule import Schedule
from tests.learner.test_learner import CONFIG, MODEL, make, weights_of


def begun_with_trained(tmp_path: Path, config: LearnerConfig = CONFIG) -> Path:
    """The checkpoints of a learner that begins where another ended."""
    trained = make(tmp_path / "trained")
    list(trained.run())
    [*_, last] = list_checkpoints(tmp_path / "trained")
    folder = tmp_path / "tuned" / "checkpoints"
    write_initial(folder, MODEL, stored_arrays(last), {"from": "trained", "step": 12})
    tuned = make(folder, config=config)
    assert tuned.progress.step == 0
    assert not tuned.notes
    for name, value in weights_of(trained).items():
        assert torch.equal(value, weights_of(tuned)[name]), name
    list(tuned.run())
    return folder


def test_a_learner_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    folder = begun_with_trained(tmp_path)
    assert [path.name for path in list_checkpoints(folder)] == ["step-000000008", "step-000000012"]


def test_the_checkpoint_of_step_0_says_where_it_is_from(tmp_path: Path) -> None:
    write_initial(tmp_path, MODEL, _arrays(Gato(MODEL)), {"from": "demo", "step": 2000})
    record = json.loads((tmp_path / "step-000000000" / "checkpoint.json").read_text())
    assert record["initial"] == {"from": "demo", "step": 2000}


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    other = Gato(replace(MODEL, feedforward=32))
    with pytest.raises(ValueError, match="weights of another model"):
        write_initial(tmp_path, MODEL, _arrays(other), {})
    assert not list_checkpoints(tmp_path)


def _arrays(model: Gato) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def test_frozen_parts_stay_as_they_are_and_others_learn(tmp_path: Path) -> None:
    folder = begun_with_trained(tmp_path, replace(CONFIG, frozen=("embedding",)))
    [*_, last] = list_checkpoints(folder)
    [*_, first] = list_checkpoints(tmp_path / "trained")
    before, after = stored_arrays(first), stored_arrays(last)
    for name, array in before.items():
        is_same = np.array_equal(array, after[name])
        if name.startswith("embedding."):
            assert is_same, name
        elif name.endswith(".weight"):
            assert not is_same, name


def test_a_batch_without_what_is_trained_changes_nothing(tmp_path: Path) -> None:
    """The patches alone are trained, and no row has an image."""
    rest = ("transformer", "embedding.table", "embedding.place", "embedding.wave_mix")
    config = replace(CONFIG, frozen=rest)
    before = _arrays(make(tmp_path / "before", config=config).model)
    learner = make(tmp_path / "after", config=config)
    assert list(learner.run())[-1].gradient_norm == 0.0
    for name, array in _arrays(learner.model).items():
        assert np.array_equal(array, before[name]), name


def test_frozen_parameters_have_no_place_in_the_optimiser() -> None:
    model = Gato(MODEL)
    freeze(model, ["transformer.blocks.0", "embedding.table.weight"])
    optimiser = make_optimiser(model, CONFIG)
    in_optimiser = {id(p) for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        is_frozen = name.startswith("transformer.blocks.0.") or name == "embedding.table.weight"
        assert (id(parameter) not in in_optimiser) == is_frozen, name


def test_a_name_that_is_no_part_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no part 'transformer.block.0'.*transformer.blocks.0$"):
        require_parts(MODEL, ["transformer.block.0"])
    with pytest.raises(ValueError, match=r"no part 'transformer\.blocks\.1'"):
        require_parts(MODEL, ["transformer.blocks.1"])  # it has one
    with pytest.raises(ValueError, match="nothing is left to train"):
        require_parts(MODEL, ["embedding", "transformer"])


def test_the_rate_of_fine_tuning_is_constant() -> None:
    schedule = Schedule(max_rate=1e-5, num_updates=100, warmup_updates=0, final_fraction=1.0)
    assert {schedule.at(step) for step in range(120)} == {1e-5}
    with pytest.raises(ValueError, match="final_rate_fraction 2 must be from 0 to 1"):
        _ = LearnerConfig(num_updates=1, final_rate_fraction=2.0).schedule
