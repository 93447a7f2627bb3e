"""Bad records at the command line: one line each, status 2, nothing stored."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.envs.packages import require_extras
from cluster.control.build_run import data_notes, make_config
from cluster.runs.data import datasets
from tests.cluster.command import gato as command
from tests.replay.formats.test_records import files, questions, table

Gato = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gato(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Gato:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return partial(command, monkeypatch, capsys)


def refused(gato: Gato, *words: str) -> str:
    """The one line that a command ends with."""
    status, _, err = gato(*words)
    assert status == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(datasets.root().glob("*/about.json"))
    return err


def train_text_model(words: str) -> None:
    """Write small.model, which can write these words, into the working folder."""
    spm = pytest.importorskip("sentencepiece")
    Path("words").write_text("\n".join([words] * 50))
    spm.SentencePieceTrainer.train(
        input="words", model_prefix="small", vocab_size=24, hard_vocab_limit=False, minloglevel=2
    )


def test_a_missing_extra_is_one_line_with_its_command(
    gato: Gato, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    for module in ("replay.formats.records.questions", "actors.envs.packages"):
        monkeypatch.setattr(
            f"{module}.find_spec",
            lambda name: None if name in ("easy_vqa", "metaworld") else found(name),
        )
    assert "pip install -e '.[easy-vqa]' -c constraints.txt" in refused(gato, "import", "easy-vqa")
    said = refused(gato, "start", "breadth")
    assert "pip install -e '.[metaworld,easy-vqa]' -c constraints.txt" in said
    assert "metaworld, easy_vqa" in said
    require_extras(["metaworld/reach", "mujoco/hopper"])  # a single one is named where it is used


def test_images_and_texts_that_differ_in_number(gato: Gato, tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", images=[files(1, 2)], text=[["a", "b", "c"]])
    assert "2 images and 3 texts" in refused(gato, "import", "a.parquet")
    questions(tmp_path / "q")
    (tmp_path / "q" / "train" / "images" / "1.png").unlink()
    assert "asks about 2 images, images/ holds 1" in refused(gato, "import", "q")


def test_an_image_that_is_no_image(gato: Gato, tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", image=[{"bytes": b"GIF?", "path": ""}], text=["a"])
    assert "is not an image that can be read" in refused(gato, "import", "a.parquet")


def test_text_that_is_not_utf_8(gato: Gato, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xfcber alles")
    assert "a.txt is not UTF-8" in refused(gato, "import", "a.txt")
    bad = pa.array([b"\xfcber"], pa.binary()).view(pa.utf8())
    pq.write_table(pa.table({"text": bad}), tmp_path / "b.parquet")
    assert "is not UTF-8" in refused(gato, "import", "b.parquet")


def test_an_answer_outside_of_the_vocabulary(gato: Gato, tmp_path: Path) -> None:
    questions(tmp_path / "q", answers="maybe\n")
    assert "is not one of the 1 in answers.txt" in refused(gato, "import", "q")


def test_an_answer_that_the_text_model_cannot_write_stops_the_run_before_it_starts(
    gato: Gato, tmp_path: Path
) -> None:
    train_text_model("yes no red a dog cat is the")
    table(tmp_path / "a.parquet", image=files(1, 2), text=["a cat", "a dog 漢"])
    assert gato("import", "a.parquet")[0] == 0
    status, _, err = gato(
        "start", "clone", "--data", "a", "--text", "small.model", "--set",
        "model.context_tokens=128", "--set", "replay.mix.row_tokens=128",
    )  # fmt: skip
    assert status == 2
    assert "'a dog 漢' of captions/a has '漢'" in err
    assert err.count("\n") == 1
    assert not list((tmp_path / "runs").glob("*/run.json"))


def test_a_text_model_of_a_missing_package_is_one_line(
    gato: Gato, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.tasks.text_encoder.find_spec", lambda name: None)
    assert "pip install -e '.[mistral]'" in refused(gato, "start", "debug", "--text", "mistral")


def test_an_import_says_what_is_held_out_and_goes_on_where_it_was(
    gato: Gato, tmp_path: Path
) -> None:
    questions(tmp_path / "q")
    status, out, _ = gato("import", "q")
    assert status == 0
    assert "3 episodes of vqa/q, 4 records" in out
    assert "held out" in out
    assert "not read" not in out
    _, again, _ = gato("import", "q")
    assert "3 were there already" in again
    about = json.loads((datasets.root() / "q" / "about.json").read_text())
    assert set(about["alphabets"]["vqa/q"]["characters"]) == set("yesnored")


def test_a_folder_of_text_is_imported(gato: Gato, tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    words = " ".join(f"word{i}" for i in range(9000))
    (tmp_path / "books" / "a.txt").write_text(words)
    status, out, err = gato("import", "books")
    assert status == 0, err
    data = datasets.find("books")
    assert data.tasks["text/books"]["episodes"] == len(words) // (64 * 250) + 1
    assert "of text/books" in out
    assert data.alphabets["text/books"]["characters"].keys() == set(words)


def test_answers_that_are_cut_are_a_note(gato: Gato, tmp_path: Path) -> None:
    table(tmp_path / "a.parquet", image=files(1, 2), text=["b" * 200, "c"])
    gato("import", "a.parquet")
    config = make_config(
        "clone", name=None, tasks=None, data=["a"],
        settings=["model.context_tokens=128", "replay.mix.row_tokens=128"],
    )  # fmt: skip
    (note,) = data_notes(config)
    assert "the longest answer has 200 tokens and is cut after" in note
    assert "--task 'captions/a?answer_tokens=200'" in note


def test_questions_that_are_cut_are_a_note(gato: Gato, tmp_path: Path) -> None:
    asked = ["Is the shape " + "that is painted " * 5 + "red?", "red?"]
    table(tmp_path / "a.parquet", image=files(1, 2), question=asked, answer=["yes", "no"])
    gato("import", "a.parquet")
    config = make_config(
        "clone", name=None, tasks=None, data=["a"],
        settings=["model.context_tokens=128", "replay.mix.row_tokens=128"],
    )  # fmt: skip
    (note,) = data_notes(config)
    assert f"the longest question has {len(asked[0])}" in note
    assert f"--task 'vqa/a?question_tokens={len(asked[0])}'" in note


def test_an_accent_that_the_text_model_composes_is_no_unknown_character(
    gato: Gato, tmp_path: Path
) -> None:
    train_text_model("un café noir")
    table(tmp_path / "a.parquet", image=files(1, 2), text=["un cafe\u0301", "noir"])
    assert gato("import", "a.parquet")[0] == 0
    make_config(
        "clone", name=None, tasks=None, data=["a"], text="small.model",
        settings=["model.context_tokens=128", "replay.mix.row_tokens=128"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("vqa/x?image=20",), "image=20 of vqa/x is not a multiple of 16"),
        (("vqa/x?sticky=1",), "has no option 'sticky'"),
        (("text/",), "does not name recorded data"),
    ],
)
def test_a_name_that_is_no_task(gato: Gato, words: tuple[str], says: str) -> None:
    assert says in refused(gato, "start", "debug", "--tasks", *words)


def test_records_need_probabilities_which_an_inference_process_does_not_tell(
    gato: Gato, tmp_path: Path
) -> None:
    questions(tmp_path / "q")
    gato("import", "q")
    status, _, err = gato("start", "breadth", "--data", "q", "--set", "actors.inference=node")
    assert status == 2
    assert "set actors.inference=worker" in err


def test_captions_of_our_own_environments_are_a_data_set(gato: Gato) -> None:
    words = ("record", "atari/freeway", "--captions", "--episodes", "2", "--name", "seen")
    status, out, err = gato(*words)
    assert status == 0, err
    assert "2 episodes of captions/seen?answer_tokens=128, 128 records" in out
    assert "held out" in out
    assert "no sentences for mujoco/hopper" in gato("record", "mujoco/hopper", "--captions")[2]
