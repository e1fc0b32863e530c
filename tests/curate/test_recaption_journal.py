"""The journal of answers: nothing that was written is lost, nothing torn is believed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.recaption.journal import Journal, Journals, Said, read_journal
from curate.storage import Folder

FIRST, SECOND = Said("a red car", None, 10, 5), Said(None, "image cannot be decoded")
LATER = Said(None, "server is down", final=False)


def written(path: Path, *lines: tuple[str, Said]) -> Path:
    journal = Journal(path)
    for id, said in lines:
        journal.add(id, said)
    journal.close()
    return path


def test_answers_come_back(tmp_path: Path) -> None:
    path = written(tmp_path / "a" / "00000.jsonl", ("1", FIRST), ("2", SECOND), ("3", LATER))
    assert read_journal(path)[0] == {"1": FIRST, "2": SECOND, "3": LATER}


def test_a_final_answer_takes_the_place_of_one_that_was_not_and_never_the_other_way(tmp_path: Path) -> None:
    path = written(tmp_path / "j", ("1", LATER), ("1", FIRST), ("2", SECOND), ("2", LATER))
    assert read_journal(path)[0] == {"1": FIRST, "2": SECOND}


@settings(max_examples=25)
@given(st.integers(0, 400))
def test_a_torn_end_loses_the_torn_line_alone(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder) / "j", ("1", FIRST), ("2", SECOND), ("3", FIRST))
        data = path.read_bytes()
        path.write_bytes(data[: min(cut, len(data))])
        whole = data[:cut].count(b"\n")
        written(path, ("4", SECOND))
        assert list(read_journal(path)[0]) == [*["1", "2", "3"][:whole], "4"]


@pytest.mark.parametrize("line", [
    b"\xff\xfe\n", b"[]\n", b"{}\n", b"null\n", b'{"id": 1}\n', b"\n",
    b'{"id":"1","caption":null,"error":null,"in":0,"out":0,"final":true}\n',
    b'{"id":"1","caption":["x"],"error":null,"in":0,"out":0,"final":true}\n',
])  # fmt: skip
def test_a_damaged_line_is_left_out(tmp_path: Path, line: bytes) -> None:
    path = written(tmp_path / "j", ("0", FIRST))
    path.write_bytes(line + path.read_bytes() + line)
    assert read_journal(path)[0] == {"0": FIRST}


def _write_and_die(path: Path) -> None:
    journal = Journal(path)
    for number in range(100):
        journal.add(str(number), FIRST)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_added_outlives_the_process(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(tmp_path / "j",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and len(read_journal(tmp_path / "j")[0]) == 100


def test_a_remote_journal_is_written_here_and_copied_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_SPOOL", str(tmp_path / "spool"))
    journals = Journals(Folder("memory://bucket/captions"))
    journal = journals.open("a/00000.tar")
    journal.add("1", FIRST)
    journals.done("a/00000.tar", journal)
    lost = journals.open("a/00000.tar")  # a run that is killed before it copies
    lost.add("2", SECOND)
    lost.close()
    assert journals.known("a/00000.tar") == {"1": FIRST, "2": SECOND}
    monkeypatch.setenv("CURATE_SPOOL", str(tmp_path / "another machine"))
    assert journals.known("a/00000.tar") == {"1": FIRST}
