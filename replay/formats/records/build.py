"""Records as episodes: texts of one image or one document, each a step whose action is what is to
be written.

Shape letters: T records, H height, W width.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from gato.array_spec import ArraySpec
from gato.episode import HELD_OUT, BadEpisode, Episode, check_episode
from gato.task import TEXT, Task
from gato.text import text_to_bytes


def _rgb(image: Image.Image) -> Image.Image:
    """An image as people see it: turned as its file says, on white where it is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}: convert it to 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def fit_image(data: bytes, spec: ArraySpec, what: str) -> UInt8[np.ndarray, "H W 3"]:
    """The image of a file's bytes in the size of `spec`, in RGB: scaled as a whole, with black bars
    where its sides have another ratio. Raises BadEpisode if it is no image."""
    height, width, _ = spec.shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = _rgb(Image.open(io.BytesIO(data)))
    except UnidentifiedImageError as problem:
        raise BadEpisode(f"{what} is not an image that can be read; remove it") from problem
    except (OSError, SyntaxError, ValueError, Warning, Image.DecompressionBombError) as problem:
        raise BadEpisode(f"{what} is a damaged image ({problem}); remove it") from problem
    if image.size != (width, height):
        image = ImageOps.pad(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def image_files(value: Any, what: str) -> list[bytes]:
    """The bytes of one image file or of a list of them: bare, or in a struct with their path.
    Raises BadEpisode if one is missing, or outside of the file."""
    values = value if isinstance(value, list) else [value]
    files = [each.get("bytes") if isinstance(each, Mapping) else each for each in values]
    found = [data for data in files if isinstance(data, bytes)]
    if not found or len(found) < len(files):
        raise BadEpisode(
            f"{what}: an image is missing, or kept outside of the file; embed it first"
        )
    return found


def records_episode(
    task: Task,
    *,
    key: str,
    name: str,
    is_held_out: bool,
    what: str,
    answers: Sequence[str],
    images: UInt8[np.ndarray, "T H W 3"] | UInt8[np.ndarray, "1 H W 3"] | None = None,
    questions: Sequence[str] | None = None,
    info: Mapping[str, str],
) -> Episode:
    """An episode of T records.

    Args:
        task: That writes text, and shows an image if there are images, and a question if there are
            questions.
        name: Of the data set, for the episode's source.
        is_held_out: Whether it is kept for evaluations.
        what: Name of the episode in messages.
        images: One for each record, or one for all.

    Raises:
        BadEpisode: if there are not as many images and questions as answers, a text is empty, too
            long or no text, or there is no record.
    """
    number = len(answers)
    if not number:
        raise BadEpisode(f"{what} has no text")
    observations: dict[str, np.ndarray] = {}
    if questions is not None:
        if len(questions) != number:
            raise BadEpisode(f"{what} has {len(questions)} questions and {number} answers")
        observations["question"] = _texts(
            questions, task.observations["question"], "question", what, task
        )
    if images is not None:
        if len(images) not in (1, number):
            raise BadEpisode(
                f"{what} has {len(images)} images and {number} texts; each image needs a text of"
                " its own, or one image all of them"
            )
        observations["image"] = np.broadcast_to(images, (number, *images.shape[1:]))
    pays = 0.0 if task.family == TEXT else 1.0 / number
    episode = Episode(
        key=key,
        task=task.name,
        source=f"{HELD_OUT if is_held_out else 'file'}:{name}",
        observations=observations,
        actions=_texts(answers, task.action, "answer", what, task),
        # Every episode returns 1, so that filters by return treat all alike.
        rewards=np.full(number, pays, np.float32),
        terminated=True,
        truncated=False,
        seed=0,
        info=info,
    )
    check_episode(episode, task)
    return episode


def _texts(
    texts: Sequence[str], spec: ArraySpec, which: str, what: str, task: Task
) -> UInt8[np.ndarray, "T b"]:
    for text in texts:
        if not text.strip():
            raise BadEpisode(f"{what}: an empty {which}; remove it")
        try:
            size = len(text.encode())
        except UnicodeEncodeError as problem:
            raise BadEpisode(f"{what}: a {which} is not UTF-8: {problem.reason}") from problem
        if size > spec.shape[0]:
            raise BadEpisode(
                f"{what}: a {which} has {size} bytes, {task.name} has room for {spec.shape[0]}; add"
                f" --task '{task.name.partition('?')[0]}?{which}_tokens={-(-size // 4)}'"
            )
    return text_to_bytes(texts, spec.shape[0])
