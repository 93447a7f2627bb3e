"""A trained policy as one file: weights, tasks, how each is acted, prompts, and the text tokenizer.

The tensors are the weights under their own names, `prompt/TASK/...`, and `text/sentencepiece`. All
else is JSON in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from gato.acting.config import ActingConfig
from gato.array_spec import Kind
from gato.config import ModelConfig
from gato.exported.tensor_file import FIX, TensorFile, read_tensors, write_tensors
from gato.files import damaged
from gato.sequence import StepLayout, Window
from gato.serialization import from_plain, to_plain
from gato.task import Task
from gato.text import ByteEncoder
from gato.tokenizer import TokenLayout
from gato.version import Version
from gato.weights import Weights

FORMAT = 1
FORMAT_KEY = "gato-ray policy"
HEADER_KEY = "policy"
SENTENCEPIECE = "text/sentencepiece"
MOST_PROMPT_BYTES = 256 * 2**20
"""Of all prompts of a file together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPolicy:
    """A task, and how the policy acts in it."""

    task: Task
    """With the statistics that its observations are normalised by."""
    acting: ActingConfig
    prompt: Window | None = None
    """The demonstration that each episode begins with; None: no prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """What a policy file holds.

    write_policy(Path("policy.safetensors"), policy)
    policy = read_policy(Path("policy.safetensors"))
    policy.tasks["mujoco/hopper"].acting.window_steps
    """

    run: str
    """The name of the run that it is from."""
    seed: int
    """Of the generator that actions are sampled with."""
    model: ModelConfig
    """The shape of the model that acts (`gato.weights.acting_config`)."""
    weights: Weights
    tasks: Mapping[str, TaskPolicy]
    """By the task's name."""
    text_model: bytes | None = None
    """A SentencePiece model, if the tasks' texts are encoded by one; else they are bytes."""
    gato_ray: str = ""
    """The version of gato-ray that wrote the file."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("a policy file needs at least one task")
        prompt_bytes = sum(
            array.nbytes for each in self.tasks.values() for array in _prompt_arrays(each).values()
        )
        if prompt_bytes > MOST_PROMPT_BYTES:
            raise ValueError(
                f"the prompts have {prompt_bytes:,} bytes, a policy file holds at most"
                f" {MOST_PROMPT_BYTES:,}; ask for shorter ones, such as --prompts 2"
            )

    @property
    def shows_text(self) -> bool:
        return any(_shows_text(each.task) for each in self.tasks.values())

    @property
    def num_weights(self) -> int:
        return sum(array.size for array in self.weights.arrays.values())

    def of_tasks(self, names: list[str]) -> PolicyFile:
        """The same policy with these tasks alone."""
        return replace(self, tasks={name: self.tasks[name] for name in names})

    def demonstration(self, task_name: str, num_steps: int) -> Window | None:
        """The stored prompt: a `PromptSource` for players. `num_steps` is the stored one's own."""
        return self.tasks[task_name].prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class _TaskHeader:
    task: Task
    acting: ActingConfig
    steps: Mapping[str, int]
    """Tokens of each part of a step, in the order of `StepLayout`: what a reader must agree
    with."""
    has_prompt: bool
    prompt_has_returns: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    gato_ray: str
    run: str
    seed: int
    learner_step: int
    version: Version
    model: ModelConfig
    tasks: tuple[_TaskHeader, ...]
    text: Literal["none", "bytes", "sentencepiece"]


def _own_version() -> str:
    try:
        return metadata.version("gato-ray")
    except metadata.PackageNotFoundError:  # a folder of sources that is not installed
        return "unknown"


def _shows_text(task: Task) -> bool:
    return any(spec.kind is Kind.TEXT for spec in (*task.observations.values(), task.action))


def _step_tokens(task: Task, layout: TokenLayout) -> dict[str, int]:
    """How many tokens of each kind a step has, in their order."""
    text = ByteEncoder() if _shows_text(task) else None  # it does not count
    steps = StepLayout(task, replace(layout, text=text))
    return {
        "return": steps.num_return_tokens,
        "text": steps.num_text_tokens,
        "patches": steps.num_patches,
        "values": sum(spec.num_tokens for _, spec in steps.tensors),
        "separator": 1,
        "action": steps.num_action_tokens,
        "step": steps.tokens_per_step,
    }


def _prompt_arrays(each: TaskPolicy) -> dict[str, Shaped[np.ndarray, "T ..."]]:
    if each.prompt is None:
        return {}
    begin, prompt = f"prompt/{each.task.name}", each.prompt
    arrays = {f"{begin}/observations/{name}": array for name, array in prompt.observations.items()}
    arrays[f"{begin}/actions"] = prompt.actions
    if prompt.returns is not None:
        arrays[f"{begin}/returns"] = prompt.returns.astype(np.float64)
    return arrays


def write_policy(file: Path, policy: PolicyFile, *, replace: bool = False) -> None:
    """Write a policy file; it is complete or absent.

    Args:
        file: Its folder must exist.
        policy: What to write.
        replace: Whether a file of this name is replaced.

    Raises:
        ValueError: If there is a file of this name, and not `replace`.
        OSError: If it cannot be written.
    """
    header = _Header(
        gato_ray=_own_version(),
        run=policy.run,
        seed=policy.seed,
        learner_step=policy.weights.learner_step,
        version=policy.weights.version,
        model=policy.model,
        tasks=tuple(
            _TaskHeader(
                task=each.task,
                acting=each.acting,
                steps=_step_tokens(each.task, policy.model.layout),
                has_prompt=each.prompt is not None,
                prompt_has_returns=each.prompt is not None and each.prompt.returns is not None,
            )
            for each in policy.tasks.values()
        ),
        text="none" if not policy.shows_text else "sentencepiece" if policy.text_model else "bytes",
    )
    arrays: dict[str, np.ndarray] = dict(policy.weights.arrays)
    for each in policy.tasks.values():
        arrays |= _prompt_arrays(each)
    if header.text == "sentencepiece" and policy.text_model is not None:
        arrays[SENTENCEPIECE] = np.frombuffer(policy.text_model, np.uint8)
    about = {FORMAT_KEY: str(FORMAT), HEADER_KEY: json.dumps(to_plain(header))}
    write_tensors(file, TensorFile(metadata=about, arrays=arrays), replace=replace)


def read_policy(file: Path) -> PolicyFile:
    """Read a policy file, and check it.

    Raises:
        ValueError: If it is no policy file, a newer version wrote it, or it is damaged.
        OSError: If it cannot be read.
    """
    tensors = read_tensors(file)
    number = tensors.metadata.get(FORMAT_KEY)
    if number is None:
        raise ValueError(
            f"{file} is a safetensors file but holds no policy; make one with gato export RUN"
            " policy.safetensors"
        )
    if number != str(FORMAT):
        raise ValueError(
            f"{file} has format {number}, this version reads {FORMAT}; update gato-ray"
        )
    try:
        plain: dict[str, Any] = json.loads(tensors.metadata[HEADER_KEY])
        header: _Header = from_plain(_Header, plain)
        return _policy(header, dict(tensors.arrays))
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise damaged(file, problem, fix=f"{FIX}, or use the gato-ray that wrote it") from problem


def _policy(header: _Header, arrays: dict[str, np.ndarray]) -> PolicyFile:
    tasks: dict[str, TaskPolicy] = {}
    for each in header.tasks:
        steps = _step_tokens(each.task, header.model.layout)
        if steps != each.steps:
            raise ValueError(
                f"steps of {each.task.name} are {dict(each.steps)} tokens in the file, {steps} here"
            )
        tasks[each.task.name] = TaskPolicy(
            task=each.task, acting=each.acting, prompt=_take_prompt(each, arrays)
        )
    text_model = None
    if header.text == "sentencepiece":
        text_model = arrays.pop(SENTENCEPIECE).tobytes()
    wrong = [name for name, array in arrays.items() if array.dtype.str not in ("<u2", "<f4")]
    if wrong:
        raise ValueError(f"the weight {wrong[0]} is not of bfloat16 or float32")
    return PolicyFile(
        run=header.run,
        seed=header.seed,
        model=header.model,
        weights=Weights(version=header.version, learner_step=header.learner_step, arrays=arrays),
        tasks=tasks,
        text_model=text_model,
        gato_ray=header.gato_ray,
    )


def _take_prompt(header: _TaskHeader, arrays: dict[str, np.ndarray]) -> Window | None:
    """The prompt of a task, taken out of `arrays`."""
    if not header.has_prompt:
        return None
    begin = f"prompt/{header.task.name}"
    prompt = Window(
        observations={
            name: arrays.pop(f"{begin}/observations/{name}") for name in header.task.observations
        },
        actions=arrays.pop(f"{begin}/actions"),
        returns=arrays.pop(f"{begin}/returns") if header.prompt_has_returns else None,
    )
    lengths = {len(prompt.actions), *map(len, prompt.observations.values())}
    if prompt.returns is not None:
        lengths.add(len(prompt.returns))
    if len(lengths) != 1:
        raise ValueError(f"the prompt of {header.task.name} has parts of {sorted(lengths)} steps")
    return prompt
