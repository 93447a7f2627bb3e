"""Lines keep their numbers and their order, whatever stops their writer or spoils their file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.journal.codec import encode
from cluster.journal.journal_file import JournalFile
from cluster.journal.records import Event
from cluster.journal.segment_writer import SegmentWriter
from cluster.journal.segments import Line, SegmentReader, pack, unpack


def all_lines(folder: Path, after: int = 0) -> list[Line]:
    reader = SegmentReader(folder)
    lines: list[Line] = []
    while found := reader.read(after, count=7):
        lines += found
        after = lines[-1].number
    reader.close()
    return lines


def expected(first: int, last: int) -> list[Line]:
    return [Line(number, f"text {number}") for number in range(first, last + 1)]


def fill(lines: SegmentWriter, first: int, last: int) -> None:
    for number in range(first, last + 1):
        assert lines.append(f"text {number}") == number


@given(number=st.integers(1, 10**15), text=st.text().filter(lambda text: "\n" not in text))
def test_a_line_comes_back_from_its_bytes(number: int, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert unpack(pack(number, text)) == (number, text)


@given(at=st.integers(0, 200), bit=st.integers(0, 7))
def test_no_line_with_a_bit_that_flipped_is_taken(at: int, bit: int) -> None:
    line = bytearray(pack(41, "what happened at step 300"))
    line[at % len(line)] ^= 1 << bit
    assert unpack(bytes(line)) is None


def test_lines_go_on_where_they_ended_and_are_read_from_any_number(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path) as lines:
        assert (lines.first, lines.last) == (1, 0)
        fill(lines, 1, 20)
    with SegmentWriter(tmp_path) as lines:
        fill(lines, 21, 30)
    for after in (0, 1, 13, 29, 30, 99):
        assert all_lines(tmp_path, after) == expected(after + 1, 30)


@pytest.mark.parametrize(
    "torn", [b"31", b"31 0000", b"31 00000000 text", b"31 00000000 text\n", b"\0" * 99]
)
def test_a_line_that_was_not_written_to_its_end_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    with SegmentWriter(tmp_path) as lines:
        fill(lines, 1, 30)
    reader = SegmentReader(tmp_path)
    file = tmp_path / "000000000001.log"
    with file.open("ab") as out:
        out.write(torn)
    assert reader.read(0) == expected(1, 30)
    assert reader.read(30) == []
    with SegmentWriter(tmp_path) as lines:
        fill(lines, 31, 33)
    assert all_lines(tmp_path) == expected(1, 33)
    if not torn.endswith(b"\n"):
        assert reader.read(30) == expected(31, 33), "a reader that saw the torn line goes on"


def test_a_damaged_line_is_left_out_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path) as lines:
        fill(lines, 1, 9)
    file = tmp_path / "000000000001.log"
    file.write_bytes(file.read_bytes().replace(b"text 5", b"tEXt 5"))
    with SegmentWriter(tmp_path) as lines:
        assert lines.append("text 10") == 10
    assert all_lines(tmp_path) == expected(1, 4) + expected(6, 10)


def test_the_oldest_lines_go_when_there_are_too_many(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, max_entries=80) as lines:
        fill(lines, 1, 1000)
        assert 60 <= lines.last - lines.first + 1 <= 80
        first = lines.first
    assert all_lines(tmp_path) == expected(first, 1000)
    with SegmentWriter(tmp_path, max_entries=80) as lines:
        assert (lines.first, lines.last) == (first, 1000)


def test_the_oldest_lines_go_when_they_are_too_long(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, max_bytes=80_000) as lines:
        for number in range(1, 501):
            assert lines.append("x" * 999) == number
    assert 60_000 < sum(file.stat().st_size for file in tmp_path.glob("*.log")) <= 80_000
    assert all_lines(tmp_path)[-1].number == 500


def test_a_segment_without_a_line_keeps_its_number(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path) as lines:
        fill(lines, 1, 9)
    (tmp_path / "000000000010.log").touch()
    with SegmentWriter(tmp_path) as lines:
        assert lines.append("text 10") == 10
    assert all_lines(tmp_path) == expected(1, 10)


def test_a_reader_beside_the_writer_sees_each_line_once(tmp_path: Path) -> None:
    lines = SegmentWriter(tmp_path, max_entries=100_000, max_bytes=100_000 * 8)
    writing = threading.Thread(target=fill, args=(lines, 1, 20_000))
    reader, seen = SegmentReader(tmp_path), list[Line]()
    writing.start()
    while len(seen) < 20_000:
        seen += reader.read(seen[-1].number if seen else 0)
    writing.join()
    assert len(list(tmp_path.glob("*.log"))) > 3
    lines.close()
    assert seen == expected(1, 20_000)


def test_what_was_appended_outlives_kill_nine(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from itertools import count\n"
        "from cluster.journal.segment_writer import SegmentWriter\n"
        "lines = SegmentWriter(Path(sys.argv[1]), max_entries=4000)\n"
        "for n in count(1): lines.append(f'text {n}'); print(n, flush=True)"
    )
    for _ in range(2):
        first = all_lines(tmp_path)[-1].number + 1 if all_lines(tmp_path) else 1
        run = [sys.executable, "-c", code.replace("count(1)", f"count({first})"), str(tmp_path)]
        with subprocess.Popen(run, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(3000):
                writer.stdout.readline()
            os.kill(writer.pid, signal.SIGKILL)
            *_, said, _ = [b"0", *writer.stdout.read().split(b"\n")]
        found = all_lines(tmp_path)
        assert found[-1].number >= int(said)
        assert found == expected(found[0].number, found[-1].number)


def test_two_processes_never_write_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.journal.file_lock.LOCK_WAIT_S", 0.05)
    with SegmentWriter(tmp_path), pytest.raises(ValueError, match="stop that run first"):
        SegmentWriter(tmp_path)
    with SegmentWriter(tmp_path) as lines:
        fill(lines, 1, 1)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write the journal in .*file"):
        SegmentWriter(tmp_path / "file" / "journal")


def test_all_of_a_long_journal_is_read(tmp_path: Path) -> None:
    """One `read` stops after some megabytes, however many entries it is asked for."""
    with SegmentWriter(tmp_path) as lines:
        for number in range(60):
            lines.append(encode(Event(kind="noted", text=f"{number}" * 50_000), time_s=1.0))
    journal = JournalFile(tmp_path)
    assert len(journal.read(count=1000)) < 60
    texts = [entry.record.text for entry in journal.read_all() if isinstance(entry.record, Event)]
    assert [int(text[: len(text) // 50_000]) for text in texts] == list(range(60))
