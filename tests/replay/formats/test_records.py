"""Importers of records: Parquet with text or images and text, plain text, questions in a folder."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from actors.tasks.resolve import resolve_task
from gato.episode import Episode, is_held_out
from gato.task import Task
from gato.text import bytes_to_text
from replay.formats.detect import read_source
from replay.formats.reader import ImportOptions, Reading, nothing_known
from replay.formats.records import passages as of_passages
from replay.formats.records.passages import cut_passages
from replay.formats.records.split import FEW, Split, is_nth, is_test_name

OPTIONS = ImportOptions(name="mine", find_task=resolve_task)


def png(colour: int, size: tuple[int, int] = (64, 64)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (colour, 0, 0)).save(out, "PNG")
    return out.getvalue()


def table(file: Path, **columns: list[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return file


def reading(source: Path | str, task: Task | None = None) -> Reading:
    return read_source(str(source), {}, task, known=nothing_known, options=OPTIONS)


def texts(episode: Episode, name: str = "") -> list[str]:
    rows = episode.observations[name] if name else episode.actions
    return [bytes_to_text(row) for row in rows]


def files(*colours: int) -> list[dict[str, Any]]:
    """Images as the `datasets` library writes them."""
    return [{"bytes": png(colour), "path": f"{colour}.png"} for colour in colours]


def test_images_with_a_text_are_captions(tmp_path: Path) -> None:
    table(tmp_path / "cc" / "train-0.parquet", images=files(1, 2), text=["a cat", "a dog"])
    table(tmp_path / "cc" / "test-0.parquet", images=files(3), text=["an owl"])
    found = list(read := reading(tmp_path / "cc"))
    assert read.report.task == "captions/mine"
    assert [texts(e) for e in found] == [["an owl"], ["a cat"], ["a dog"]]
    assert [is_held_out(e.source) for e in found] == [True, False, False]
    assert [int(e.observations["image"][0, 0, 0, 0]) for e in found] == [3, 1, 2]
    assert len({e.key for e in found}) == 3


def test_a_question_and_its_answer_in_one_text_are_told_apart(tmp_path: Path) -> None:
    asked = {
        "Q: What is it? A: a cat": ("What is it?", "a cat"),
        "Q: Is it (A: or B:) red?\nA: no": ("Is it (A: or B:) red?", "no"),
        "Question: Is this the USA: yes or no? Answer: yes": ("Is this the USA: yes or no?", "yes"),
        "Q: Which is right, A: cat or B: dog? A: cat": (
            "Which is right, A: cat or B: dog?",
            "cat",
        ),
    }
    file = table(tmp_path / "ok-vqa.parquet", images=files(1, 2, 3, 4), text=list(asked))
    found = list(read := reading(file))
    assert read.report.task == "vqa/mine"
    told = [(texts(episode, "question")[0].strip(), texts(episode)[0]) for episode in found]
    assert told == list(asked.values())


def test_columns_of_questions_and_answers_may_be_lists_and_votes(tmp_path: Path) -> None:
    file = table(
        tmp_path / "a.parquet",
        image=files(1, 2),
        question=[["one?", "two?"], ["three?"]],
        answers=[["yes", "no"], ["red"]],
    )
    first, second = reading(file)
    assert (texts(first, "question"), texts(first)) == (["one?", "two?"], ["yes", "no"])
    assert first.observations["image"].shape == (2, 64, 64, 3)
    assert first.episode_return == pytest.approx(second.episode_return) == pytest.approx(1.0)
    votes = [[{"answer": "red"}, {"answer": "blue"}, {"answer": "blue"}]]
    file = table(tmp_path / "b.parquet", image=files(1), question=["colour?"], answers=votes)
    assert [texts(e) for e in reading(file)] == [["blue"]]
    people = [["Yes", "yes", "no", "no", "yes "], []]
    file = table(tmp_path / "c.parquet", image=files(1, 2), question=["a?", "b?"], answers=people)
    read = reading(file)
    assert [texts(e) for e in read] == [["Yes"]]
    assert any("answers is empty" in reason for reason in read.report.rejected)


def test_a_column_of_text_alone_is_cut_into_passages(tmp_path: Path) -> None:
    long = " ".join(str(i) for i in range(300))
    file = table(tmp_path / "wikipedia.parquet", id=["1", "2"], text=["short", long])
    short, cut = (read := reading(file))
    assert read.report.task == "text/mine"
    assert (texts(short), "".join(texts(cut))) == (["short"], long)
    assert max(len(t.encode()) for t in texts(cut)) <= 256
    assert any("not read: id" in note for note in read.report.notes)


@given(st.text(alphabet="ab é漢\n", max_size=60), st.integers(4, 20))
def test_passages_lose_nothing_but_white_space(text: str, room: int) -> None:
    passages = list(cut_passages([text], room))
    assert list(cut_passages(text, room)) == passages  # one character at a time
    assert all(len(passage.encode()) <= room and passage.strip() for passage in passages)
    assert "".join("".join(passages).split()) == "".join(text.split())


def test_text_files_are_read_and_one_episode_in_twenty_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    words = " ".join(f"word{i}" for i in range(100_000))
    (tmp_path / "books" / "one.txt").write_text("\ufeff" + words, encoding="utf-8")
    found = list(reading(tmp_path / "books"))
    assert " ".join("".join("".join(texts(e)) for e in found).split()) == words
    held = [is_held_out(e.source) for e in found]
    assert 0 < sum(held) <= len(found) / 5


def test_a_character_that_no_passage_has_room_for() -> None:
    with pytest.raises(ValueError, match="text_tokens=4 or more"):
        list(cut_passages(["a€b"], 2))


def test_a_large_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_passages, "BLOCK_BYTES", 7)
    text = "\ufeff" + "héllo wörld 漢字 " * 50
    (tmp_path / "a.txt").write_text(text)
    found = list(reading(tmp_path / "a.txt"))
    assert "".join("".join(texts(e)) for e in found).split() == text[1:].split()
    data = text.encode()[:100] + b"\xff" + text.encode()
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(ValueError, match=r"is not UTF-8: .* at byte 100;"):
        reading(tmp_path / "a.txt")


def sides(source: Path) -> tuple[set[bytes], set[bytes]]:
    """What is held out and what is trained on: images, or else texts."""
    held, trained = set[bytes](), set[bytes]()
    for episode in reading(source):
        shown = episode.observations.get("image", episode.actions)
        (held if is_held_out(episode.source) else trained).add(shown[0].tobytes())
    return held, trained


def test_an_image_is_on_one_side_with_all_its_questions(tmp_path: Path) -> None:
    """One row a question, as VQAv2 has them."""
    images = [one for one in files(*range(0, 240, 4)) for _ in range(5)]
    asked = [f"{i}?" for i in range(len(images))]
    file = table(tmp_path / "a.parquet", image=images, question=asked, answer=["yes"] * len(images))
    held, trained = sides(file)
    assert held
    assert not held & trained


def test_other_shards_of_the_same_data_hold_out_the_same(tmp_path: Path) -> None:
    said = [f"text number {i}" for i in range(FEW + 100)]
    found: list[set[bytes]] = []
    for number in (1, 2, 3):
        for shard in range(number):
            table(tmp_path / f"{number}" / f"train-{shard}.parquet", text=said[shard::number])
        held, trained = sides(tmp_path / f"{number}")
        assert not held & trained
        found.append(held)
    assert found[0] == found[1] == found[2]
    assert 10 < len(found[0]) < 50


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_many_small_files_hold_something_out(rows: int, tmp_path: Path) -> None:
    for number in range(40):
        said = [f"file {number}, text {i}" for i in range(rows)]
        table(tmp_path / "tables" / f"{number}.parquet", text=said)
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{number}.txt").write_text("\n".join(said))
    for folder in ("tables", "texts"):
        held, trained = sides(tmp_path / folder)
        assert 0 < len(held) < len(trained)


def test_a_test_split_may_lie_deeper(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "books" / split / "en").mkdir(parents=True)
        (tmp_path / "books" / split / "en" / f"{split}ed.txt").write_text(f"of {split}")
    held = {texts(e)[0]: is_held_out(e.source) for e in reading(tmp_path / "books")}
    assert held == {"of train": False, "of test": True}


@pytest.mark.parametrize("total", [1, 2, 5, FEW])
def test_of_few_at_least_one_is_held_out_and_never_all(total: int) -> None:
    for first in (0, 1, 20):
        numbers = [first + 20 * index for index in range(total)]
        held = sum(map(Split(numbers).holds_out, numbers))
        assert held == (0 if total == 1 else 1)
    assert sum(map(Split().holds_out, range(2000))) == 100


@pytest.mark.parametrize("total", [1, 2, 5, 11, 40])
def test_a_split_is_held_out_of_any_data_but_a_single_episode(total: int) -> None:
    held = sum(is_nth(index, total) for index in range(total))
    assert held == (0 if total == 1 else -(-max(total - 10, 1) // 20))


@pytest.mark.parametrize(
    ("name", "is_test"),
    [("test-00000-of-00001-ab12", True), ("val2014", True), ("validation", True), ("dev_0", True),
     ("train-00000", False), ("contest", False), ("evaluated", False)],
)  # fmt: skip
def test_a_test_split_is_known_by_its_name(name: str, is_test: bool) -> None:
    assert is_test_name(name) == is_test


def questions(folder: Path, *, answers: str = "yes\nno\nred\n") -> Path:
    """A folder as easy-vqa has it: two images to learn from and one that is held out."""
    rows = {
        "train": [("red?", "yes", 0), ("colour?", "red", 1), ("blue?", "no", 0)],
        "test": [("red?", "yes", 7)],
    }
    for split, asked in rows.items():
        (folder / split / "images").mkdir(parents=True)
        (folder / split / "questions.json").write_text(json.dumps(asked))
        for number in {number for _, _, number in asked}:
            (folder / split / "images" / f"{number}.png").write_bytes(png(number))
    (folder / "answers.txt").write_text(answers)
    return folder


def test_an_episode_has_all_questions_about_its_image(tmp_path: Path) -> None:
    first, second, held = (read := reading(questions(tmp_path / "q")))
    assert read.report.task == "vqa/mine"
    assert (texts(first, "question"), texts(first)) == (["red?", "blue?"], ["yes", "no"])
    assert texts(second) == ["red"]
    assert (is_held_out(held.source), is_held_out(first.source)) == (True, False)
    assert (held.observations["image"][..., 0] == 7).all()


def test_a_folder_of_questions_without_a_test_split_holds_some_out(tmp_path: Path) -> None:
    shutil.rmtree(questions(tmp_path / "q") / "test")
    read = reading(tmp_path / "q")
    held = [is_held_out(e.source) for e in read]
    assert sorted(held) == [False, True]
    assert any("one image in 20 held out" in note for note in read.report.notes)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> dict[str, Any]:
    out = io.BytesIO()
    image.save(out, form, **options)
    return {"bytes": out.getvalue(), "path": ""}


def test_images_are_as_people_see_them(tmp_path: Path) -> None:
    """16 bits, turned by EXIF, and transparent."""
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    corner = np.zeros((64, 64, 3), np.uint8)
    corner[:32, :32] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    shape = np.zeros((64, 64, 4), np.uint8)
    shape[:32, :, 3] = 255  # black above, nothing below
    images = [
        encoded(Image.fromarray(deep)),
        encoded(Image.fromarray(corner), "JPEG", exif=turned, quality=95),
        encoded(Image.fromarray(shape)),
        encoded(Image.fromarray(shape).convert("LA")),
        encoded(Image.fromarray(np.zeros((64, 64), np.float32)), "TIFF"),
    ]
    file = table(tmp_path / "a.parquet", image=images, text=["a", "b", "c", "d", "e"])
    read = reading(file)
    deep_, right, seen, grey = (episode.observations["image"][0] for episode in read)
    np.testing.assert_array_equal(deep_[..., 0], deep >> 8)
    assert right[:20, 44:].min() > 200
    assert right[:20, :20].max() < 50
    for image in (seen, grey):
        assert (image[:32] == 0).all()
        assert (image[32:] == 255).all()
    assert any("convert it to 8 bits" in reason for reason in read.report.rejected)


def test_images_of_other_sizes_are_scaled_as_a_whole(tmp_path: Path) -> None:
    file = table(
        tmp_path / "a.parquet",
        image=[{"bytes": png(200, (128, 64)), "path": ""}],
        text=["a wide one"],
    )
    (episode,) = reading(file, resolve_task("captions/mine?image=32"))
    red = episode.observations["image"][0, ..., 0]
    assert red.shape == (32, 32)
    np.testing.assert_array_equal(red[8:24], 200)
    np.testing.assert_array_equal(red[:7], 0)


BAD = {
    "counts of images and texts": (
        {"images": [files(1, 2), files(3)], "text": [["a", "b", "c"], ["d"]]},
        "2 images and 3 texts",
    ),
    "counts of questions and answers": (
        {"image": files(1, 2), "question": [["a?"], ["b?"]], "answer": [["c", "d"], ["e"]]},
        "1 questions and 2 answers",
    ),
    "no image": (
        {"image": [{"bytes": b"no image", "path": ""}, *files(1)], "text": ["a", "b"]},
        "not an image",
    ),
    "a damaged image": (
        {"image": [{"bytes": png(1)[:60], "path": ""}, *files(1)], "text": ["a", "b"]},
        "damaged image",
    ),
    "an image elsewhere": (
        {"image": [{"bytes": None, "path": "a.png"}, *files(1)], "text": ["a", "b"]},
        "kept outside of the file",
    ),
    "an empty text": ({"image": files(1, 2), "text": [" ", "b"]}, "an empty answer"),
    "a long text": ({"image": files(1, 2), "text": ["a" * 900, "b"]}, "answer_tokens=225"),
    "missing text": ({"image": files(1, 2), "text": [None, "b"]}, "text is not text"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_refused_by_name_and_the_others_are_read(name: str, tmp_path: Path) -> None:
    columns, reason = BAD[name]
    read = reading(table(tmp_path / "a.parquet", **columns))
    assert len(list(read)) == 1
    (said,) = read.report.rejected
    assert reason in said
    assert "\n" not in said


def test_an_answer_outside_of_the_vocabulary_is_refused(tmp_path: Path) -> None:
    read = reading(questions(tmp_path / "q", answers="yes\nno\n"))
    assert [texts(e) for e in read] == [["yes", "no"], ["yes"]]
    (said,) = read.report.rejected
    assert "the answer 'red' is not one of the 2 in answers.txt" in said


@pytest.mark.parametrize("is_missing", [True, False])
def test_questions_and_images_of_other_numbers_are_refused_at_once(
    tmp_path: Path, is_missing: bool
) -> None:
    folder = questions(tmp_path / "q") / "train" / "images"
    if is_missing:
        (folder / "1.png").unlink()
    else:
        (folder / "9.png").write_bytes(png(9))
    with pytest.raises(ValueError, match=r"asks about 2 images, images/ holds [13]"):
        reading(tmp_path / "q")


def test_text_that_is_not_utf_8_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("grüße".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8: .* at byte 2; convert it"):
        reading(tmp_path / "a.txt")


def test_an_empty_shard_is_named_not_left_out(tmp_path: Path) -> None:
    table(tmp_path / "books" / "train-00000-of-00002.parquet", text=["a", "b"])
    (tmp_path / "books" / "train-00001-of-00002.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"train-00001-of-00002.parquet is damaged"):
        reading(tmp_path / "books")
