"""Records of damaged archives: what is read ahead and what is read record by record is the same."""

from __future__ import annotations

import io
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.acquire import warc_records
from curate.acquire.warc_records import read_records
from tests.curate.test_acquire_archives import numbered, write_warc


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_warc(tmp_path_factory.mktemp("archive") / "a.warc.gz", numbered(5)).read_bytes()


def contents(data: bytes) -> tuple[list[bytes | str], Counter[str]]:
    failures: Counter[str] = Counter()
    return [content for _, content in read_records("a", io.BytesIO(data), failures, 10_000)], failures


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damage_anywhere_costs_the_same_both_ways(archive: bytes, data: st.DataObject) -> None:
    damaged = bytearray(archive)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(archive) - 1))
        junk = data.draw(st.sampled_from([b"", b"\x00", b"\xff" * 8, b"\x1f\x8b\x08", b"WARC/1.0\r\n"]))
        damaged[place : place + data.draw(st.sampled_from([0, 1, 8, 300, 10_000]))] = junk
    found = contents(bytes(damaged))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warc_records, "_ahead", lambda stream, max_bytes: iter([None]))
        assert contents(bytes(damaged)) == found


def test_a_whole_archive_is_read_ahead_only(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warc_records, "_past_breaks", None)
    found, failures = contents(archive)
    assert (len([content for content in found if isinstance(content, bytes)]), failures) == (5, {})


def test_what_holds_too_much_is_not_read(archive: bytes) -> None:
    told = read_records("a", io.BytesIO(archive), Counter(), 100)
    assert {content for _, content in told} == {"too_large"}


def test_a_reader_that_stops_leaves_no_thread(tmp_path: Path) -> None:
    path = write_warc(tmp_path / "a.warc.gz", numbered(300))
    before = threading.active_count()
    with path.open("rb") as stream:
        records = read_records("a", stream, Counter(), 10_000)
        next(records)
        records.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_plain_archive_that_was_cut_off_is_counted_once_wherever_that_was(tmp_path: Path) -> None:
    data = write_warc(tmp_path / "a.warc", numbered(2), packed=False).read_bytes()
    last, lines = data.rfind(b"WARC/1.0"), 0
    for cut in range(last - 6, len(data)):
        found, failures = contents(data[:cut])
        told = sum(failures.values()) + sum(content == "broken_record" for content in found)
        if data[:cut].endswith(b"\r\n\r\n"):  # a record's end, or that of its headers
            lines += told == 0
        else:
            assert told == 1, cut - last
    assert lines <= 4
    assert contents(data)[1] == {}
    assert contents(data.replace(b"\r\n\r\nWARC", b"\n\nWARC")[:-4] + b"\n\n")[1] == {}
