"""The weights that a run begins with (`gato start --from`): of a run, a checkpoint or a policy
file."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from actors.tasks.resolve import resolve_tasks
from actors.tasks.text_encoder import BYTES
from cluster.control.evaluation.evaluate import locate
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder
from cluster.runs.overrides import with_tasks
from cluster.runs.resolve import have_text
from gato.config import ModelConfig
from gato.exported.policy_file import read_policy
from gato.weights import Arrays
from learner.checkpoints.files import has_checkpoint
from learner.checkpoints.initial import stored_arrays, write_initial
from learner.checkpoints.state import read_model_config, read_record

FREE = ("dropout", "stochastic_depth", "action_dropout", "context_tokens", "normalise")
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
    text_model: bytes | None = None
    """The SentencePiece model that its text was encoded by; None: bytes, or it has seen none."""

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
            text_model=policy.text_model,
        )
    if file.suffix == ".safetensors" and not file.is_dir():
        raise ValueError(f"there is no file {file}; make one with gato export RUN {file}")
    found = locate(what, "gato start --from")
    return InitialWeights(
        model=read_model_config(found.path),
        tasks=found.config.tasks,
        step=read_record(found.path)["step"],
        arrays=stored_arrays(found.path),
        text_model=_read_text(found.config.text, found.path.parent.parent),
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


def with_initial(
    config: RunConfig, what: str, *, takes_tasks: bool = False, text: str | None = None
) -> RunConfig:
    """The run with the model and the text encoder of trained weights. It keeps its own dropouts and
    stochastic depth; its rows are no longer than the model's context.

    Args:
        config: The run.
        what: The weights, see `read_initial`.
        takes_tasks: Whether it has the tasks of the weights instead of its own.
        text: An encoder of text that the user gave, as the setting `text` has it.

    Raises:
        ValueError: See `read_initial`; or the weights know text by another encoder than is given.
    """
    initial = read_initial(what)
    if takes_tasks:
        config = with_tasks(config, initial.tasks)
    model = replace(
        initial.model,
        dropout=config.model.dropout,
        stochastic_depth=config.model.stochastic_depth,
        action_dropout=config.model.action_dropout,
    )
    mix = config.replay.mix
    mix = replace(mix, row_tokens=min(mix.row_tokens, model.context_tokens))
    file = Path(what).expanduser()
    return replace(
        config,
        model=model,
        replay=replace(config.replay, mix=mix),
        text=_encoder_of(initial, what, text or (config.text if config.text != BYTES else None)),
        initial_weights=str(file.absolute()) if file.exists() else what,
    )


def _encoder_of(initial: InitialWeights, what: str, given: str | None) -> str:
    """The setting `text` of a run that begins with these weights. `given`: by the user, if any.
    Raises ValueError if the weights know text by another encoder."""
    if given is None:
        return BYTES if initial.text_model is None else _file_of(initial.text_model)
    if _read_text(given, Path()) != initial.text_model and _knows_text(initial):
        theirs = "bytes" if initial.text_model is None else "another SentencePiece model"
        raise ValueError(
            f"the weights of {what} know text by {theirs}, not by {given}: to them its tokens mean"
            " nothing; leave the text encoder out (--text)"
        )
    return given


def _knows_text(initial: InitialWeights) -> bool:
    """Whether weights were trained on text; also if their tasks are unknown here."""
    if initial.text_model is not None:
        return True
    try:
        return have_text(resolve_tasks(*initial.tasks).values())
    except ValueError:
        return True


def _read_text(text: str, folder: Path) -> bytes | None:
    """The SentencePiece model of a setting `text`, from a run's folder; None: bytes. Raises
    ValueError if it cannot be read."""
    if text == BYTES:
        return None
    try:
        return (folder / text).read_bytes()
    except OSError as problem:
        raise ValueError(
            f"cannot read the SentencePiece model {folder / text} ({problem.strerror}); give the"
            " .model file that `spm_train` wrote"
        ) from problem


@cache
def _file_of(model: bytes) -> str:
    """A file with this SentencePiece model, until this process ends: a new run copies it."""
    folder = mkdtemp(prefix="gato-text-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = Path(folder) / "text.model"
    file.write_bytes(model)
    return str(file)
