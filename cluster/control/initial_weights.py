"""The weights that a run begins with (`gato start --from`): of a run, a checkpoint or a policy
file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cluster.control.evaluation.evaluate import locate
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder
from cluster.runs.overrides import with_tasks
from cluster.runs.presets import FINETUNE
from gato.config import ModelConfig
from gato.exported.policy_file import read_policy
from gato.weights import Arrays
from learner.checkpoints.files import has_checkpoint
from learner.checkpoints.initial import stored_arrays, write_initial
from learner.checkpoints.state import read_model_config, read_record

FREE = ("dropout", "stochastic_depth", "context_tokens", "normalise")
"""Settings of the model that need not be those of its first weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWeights:
    """Trained weights, and what they are of."""

    model: ModelConfig
    tasks: Sequence[str]
    """That the model was trained on."""
    step: int
    """Updates that it was trained for."""
    arrays: Arrays

    def require_fit(self, config: RunConfig) -> None:
        """ValueError if the run's model has another shape."""
        mine, wanted = asdict(self.model), asdict(config.model)
        wrong = [
            f"model.{name} {wanted[name]} (the weights have {mine[name]})"
            for name in mine
            if name not in FREE and mine[name] != wanted[name]
        ]
        if wrong:
            raise ValueError(
                f"the weights of {config.initial_weights} do not fit the run's model:"
                f" {', '.join(wrong)}; leave these settings out"
            )

    def keep(self, folder: RunFolder, config: RunConfig) -> None:
        """Make the weights the checkpoint of step 0 in a new run's folder, from which its learner
        begins."""
        origin = {"from": config.initial_weights, "step": self.step}
        write_initial(folder.path / "checkpoints", config.model, self.arrays, origin)


def read_initial(what: str) -> InitialWeights:
    """The weights of a run (its last checkpoint), a checkpoint's folder or a policy file.

    Raises:
        ValueError: There is no such run, checkpoint or file, or it is damaged.
    """
    file = Path(what).expanduser()
    if file.is_file():
        policy = read_policy(file)
        return InitialWeights(
            model=policy.model,
            tasks=tuple(policy.tasks),
            step=policy.weights.learner_step,
            arrays=policy.weights.arrays,
        )
    if file.suffix == ".safetensors" and not file.is_dir():
        raise ValueError(f"there is no file {file}; make one with gato export RUN {file}")
    found = locate(what, "gato start --from")
    return InitialWeights(
        model=read_model_config(found.path),
        tasks=found.config.tasks,
        step=read_record(found.path)["step"],
        arrays=stored_arrays(found.path),
    )


def initial_of(config: RunConfig) -> InitialWeights | None:
    """The weights that a new run begins with; None: random ones. Raises ValueError if they cannot
    be read, or do not fit."""
    if not config.initial_weights:
        return None
    initial = read_initial(config.initial_weights)
    initial.require_fit(config)
    return initial


def keep_initial(folder: RunFolder, config: RunConfig) -> None:
    """Keep the weights that a run begins with, unless it has a checkpoint: its start may have been
    killed before they were kept, and its learner would begin with random ones.

    Raises:
        ValueError: They cannot be read, or do not fit.
        OSError: They cannot be kept (a full disk).
    """
    if config.initial_weights and not has_checkpoint(folder.path / "checkpoints"):
        initial = initial_of(config)
        assert initial is not None
        initial.keep(folder, config)


def with_initial(config: RunConfig, what: str) -> RunConfig:
    """The run with the model of trained weights. It keeps its own dropout and stochastic depth;
    its rows are no longer than the model's context. `finetune` has the tasks of the weights until
    it is given others. Raises ValueError as `read_initial`."""
    initial = read_initial(what)
    if config.name == FINETUNE:
        config = with_tasks(config, initial.tasks)
    model = replace(
        initial.model,
        dropout=config.model.dropout,
        stochastic_depth=config.model.stochastic_depth,
    )
    mix = config.replay.mix
    mix = replace(mix, row_tokens=min(mix.row_tokens, model.context_tokens))
    file = Path(what).expanduser()
    return replace(
        config,
        model=model,
        replay=replace(config.replay, mix=mix),
        initial_weights=str(file.absolute()) if file.exists() else what,
    )
