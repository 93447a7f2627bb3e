"""A question to a trained model: one record, answered as evaluations answer it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from actors.players.player import TimeStep
from cluster.control.evaluation.evaluate import Checkpoint, load_player, locate
from cluster.runs.resolve import layout_of, tasks_of
from gato.array_spec import Kind
from gato.episode import BadEpisode
from gato.task import CAPTIONS, VQA, Task
from gato.text import bytes_to_text, text_to_bytes
from replay.formats.records.build import fit_image


def ask(what: str, question: str, image: Path | None, *, task: str | None = None) -> str:
    """What the last checkpoint of a run answers, or writes as a caption where nothing is asked.

    Args:
        what: A run's name, or a checkpoint's folder.
        question: May be empty: then the image is captioned.
        image: A file that Pillow can read.
        task: One of the run's tasks. Default: the only one that fits.

    Raises:
        ValueError: The run was trained on no such task, or image or question cannot be read.
    """
    found = locate(what, "gato ask")
    chosen = _task(found, question, image, task)
    shown: dict[str, np.ndarray] = {}
    if image is not None:
        try:
            data = image.read_bytes()
        except OSError as problem:
            raise ValueError(f"cannot read {image}: {problem.strerror}") from problem
        try:
            shown["image"] = fit_image(data, chosen.observations["image"], str(image))[None]
        except BadEpisode as problem:
            raise ValueError(str(problem).removesuffix("; remove it")) from problem
    if question:
        shown["question"] = _asked(found, chosen, question)
    player = load_player(found, chosen.name)
    answers = player.act(TimeStep.first(shown, seeds=[0]))
    return bytes_to_text(answers[0])


def _task(found: Checkpoint, question: str, image: Path | None, name: str | None) -> Task:
    """The run's task of this kind. Raises ValueError if there is none, or more than one."""
    if image is None:
        raise ValueError("questions are about an image; name its file with --image FILE")
    family = VQA if question else CAPTIONS
    fitting = {n: t for n, t in tasks_of(found.config).items() if t.family == family}
    what = "answer questions about images" if question else "caption images"
    if not fitting:
        raise ValueError(
            f"{found.config.name} was not trained to {what}; train one that was: gato import"
            " easy-vqa, then gato start breadth"
        )
    if name is None and len(fitting) == 1:
        return next(iter(fitting.values()))
    if name not in fitting:
        raise ValueError(
            f"{found.config.name} has {len(fitting)} tasks that {what}; name one with --task:"
            f" {', '.join(fitting)}"
        )
    return fitting[name]


def _asked(found: Checkpoint, task: Task, question: str) -> np.ndarray:
    """The question as its task shows it. Raises ValueError if it is too long."""
    spec = task.observations["question"]
    assert spec.kind is Kind.TEXT
    run = found.path.parent.parent
    encoder = layout_of(found.config, {task.name: task}, run).encoder
    for number, room, unit in (
        (len(encoder.encode(question)), spec.num_tokens, "tokens"),
        (len(question.encode()), spec.shape[0], "bytes"),
    ):
        if number > room:
            raise ValueError(
                f"the question has {number} {unit}, {task.name} has room for {room}; ask a shorter"
                " one"
            )
    return text_to_bytes([question], spec.shape[0])
