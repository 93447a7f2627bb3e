"""From a run, a checkpoint or a policy file to what a policy file holds: what `gato export` writes
and `gato serve` serves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from actors.tasks.text_encoder import BYTES
from cluster.control.evaluation.evaluate import Checkpoint, locate, weights_of
from cluster.control.evaluation.prompts import StoredPrompts
from cluster.runs.resolve import acting_configs, have_text, layout_of, tasks_of
from gato.exported.policy_file import PolicyFile, TaskPolicy, read_policy, write_policy
from gato.exported.tensor_file import require_absent
from gato.sequence import StepLayout, Window
from gato.task import Task, find_task
from gato.weights import acting_config, exact, rounded, snapshot

Precision = Literal["bf16", "fp32"]


def policy_of(
    what: str,
    *,
    command: str,
    tasks: Sequence[str] | None = None,
    precision: Precision = "bf16",
    prompt_steps: int | None = None,
) -> PolicyFile:
    """What a policy file of this run holds; it acts as evaluations do.

    Args:
        what: A run's name (its last checkpoint), a checkpoint's folder, or a policy file.
        command: Named if the run's files are on another machine.
        tasks: Only these. Default: all.
        precision: Of the weights. The actors of a run act in bf16.
        prompt_steps: Steps of a stored demonstration that episodes begin with. Default: as
            evaluations of the run; of a policy file, its own.

    Raises:
        ValueError: There is no such run, checkpoint, file, task or demonstration.
    """
    file = Path(what)
    if file.is_file():
        return _of_file(file, tasks, precision, prompt_steps)
    if file.suffix == ".safetensors" and not file.is_dir():
        raise ValueError(f"there is no file {file}; make one with gato export RUN {file}")
    return _of_checkpoint(locate(what, command), tasks, precision, prompt_steps)


def _of_file(
    file: Path, tasks: Sequence[str] | None, precision: Precision, prompt_steps: int | None
) -> PolicyFile:
    policy = read_policy(file)
    arrays = policy.weights.arrays
    is_bf16 = any(array.dtype.itemsize == 2 for array in arrays.values())
    if precision == "bf16" and not is_bf16:
        policy = replace(policy, weights=replace(policy.weights, arrays=rounded(arrays)))
    elif precision == "fp32" and is_bf16:
        raise ValueError(f"{file} has its weights in bf16: fp32 is lost; export the run itself")
    if prompt_steps:
        raise ValueError(
            f"{file} has the prompts that it has; export the run itself with --prompts"
        )
    if prompt_steps == 0:
        policy = replace(
            policy, tasks={name: _unprompted(each) for name, each in policy.tasks.items()}
        )
    known = {name: each.task for name, each in policy.tasks.items()}
    return policy.of_tasks(_chosen(tasks, known, what=str(file)))


def _unprompted(each: TaskPolicy) -> TaskPolicy:
    return replace(each, prompt=None, acting=replace(each.acting, prompt_steps=0))


def _of_checkpoint(
    found: Checkpoint, tasks: Sequence[str] | None, precision: Precision, prompt_steps: int | None
) -> PolicyFile:
    config, run = found.config, found.path.parent.parent
    known = tasks_of(config)
    names = _chosen(tasks, known, what=f"run {config.name}")
    acting = acting_configs(config, "evaluate")
    layout = layout_of(config, known, run)
    prompts = StoredPrompts(run / "replay", config)
    policies: dict[str, TaskPolicy] = {}
    for name in names:
        most = config.model.context_tokens // StepLayout(known[name], layout).tokens_per_step
        window_steps = min(acting[name].window_steps or most, most)
        if prompt_steps is not None and prompt_steps >= window_steps:
            raise ValueError(
                f"--prompts {prompt_steps} does not fit {name}, which is acted with a window of"
                f" {window_steps} steps; a prompt has at most {window_steps - 1}"
            )
        each = replace(
            acting[name],
            prompt_steps=acting[name].prompt_steps if prompt_steps is None else prompt_steps,
        )
        prompt = prompts.demonstration(name, each.prompt_steps) if each.prompt_steps else None
        if prompt_steps and prompt is None:
            raise ValueError(
                f"run {config.name} has no stored demonstration of {name} to prompt with; leave"
                " out --prompts"
            )
        policies[name] = TaskPolicy(
            task=known[name],
            acting=each,
            prompt=_last_steps(prompt, window_steps - 1) if prompt else None,
        )
    return PolicyFile(
        run=config.name,
        seed=config.seed,
        model=acting_config(config.model),
        weights=weights_of(found.path, config, snapshot if precision == "bf16" else exact),
        tasks=policies,
        text_model=text_model_of(config.text, run, (known[name] for name in names)),
    )


def _chosen(tasks: Sequence[str] | None, known: Mapping[str, Task], *, what: str) -> list[str]:
    """The full names of the tasks; all of them if none is named."""
    try:
        return list(dict.fromkeys(find_task(name, known).name for name in tasks or known))
    except ValueError as problem:
        raise ValueError(f"{problem} ({what} has {', '.join(known)})") from problem


def _last_steps(prompt: Window, num_steps: int) -> Window | None:
    """What a policy with this much room sees of a prompt; None if there is no room."""
    if not num_steps:
        return None
    return replace(
        prompt,
        observations={name: array[-num_steps:] for name, array in prompt.observations.items()},
        actions=prompt.actions[-num_steps:],
        returns=None if prompt.returns is None else prompt.returns[-num_steps:],
    )


def text_model_of(text: str, run: Path, tasks: Iterable[Task]) -> bytes | None:
    """The SentencePiece model of a run's setting `text`, if it has one and a task shows text, or
    has it written."""
    if text == BYTES or not have_text(tasks):
        return None
    return (run / text).read_bytes()


def export_policy(
    what: str,
    to: Path,
    *,
    tasks: Sequence[str] | None = None,
    precision: Precision = "bf16",
    prompt_steps: int | None = None,
    replace: bool = False,
) -> PolicyFile:
    """Write a policy file.

    Args:
        what: A run's name, a checkpoint's folder, or another policy file.
        to: The new file.
        tasks: Only these. Default: all.
        precision: Of the weights.
        prompt_steps: See `policy_of`.
        replace: Whether a file of this name is replaced.

    Returns:
        What was written.

    Raises:
        ValueError: See `policy_of`; or the file is there already, or cannot be written.
    """
    require_absent(to, replace=replace)
    folder = to.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(
            f"cannot write into {folder.absolute()}: it is"
            f" {'not writable' if folder.is_dir() else 'not a folder'}; name a file elsewhere"
        )
    policy = policy_of(
        what, command="gato export", tasks=tasks, precision=precision, prompt_steps=prompt_steps
    )
    try:
        write_policy(to, policy, replace=replace)
    except OSError as problem:
        raise ValueError(
            f"cannot write {to} ({problem.strerror or problem}); name a file elsewhere"
        ) from problem
    return policy
