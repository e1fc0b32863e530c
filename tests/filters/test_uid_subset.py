"""A subset is a sorted array of pairs of numbers; the filter keeps what it lists."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from filters._uids import UID, listed, parse_uids, sort_uids
from filters.uid_subset import UidSubset
from tests.filters.conftest import Judge

A, B, C = "0000000000000001000000000000000f", "ffffffffffffffff0000000000000000", "ffffffffffffffff0000000000000001"
HEX = st.text("0123456789abcdef", min_size=32, max_size=32)


def subset(path: Path, *uids: str) -> str:
    pairs = [(int(uid[:16], 16), int(uid[16:], 16)) for uid in sorted(uids)]
    np.save(path, np.array(pairs, UID))
    return str(path)


def test_only_what_is_listed_stays(tmp_path: Path, judge: Judge) -> None:
    file = subset(tmp_path / "subset.npy", A, C)
    dropped = judge(UidSubset(file=file), [{"uid": uid} for uid in (A, B, C, "photo-17")])
    absent = "not among the 2 uids of subset.npy"
    assert dropped == {B: (absent, None), "photo-17": (f"{absent}: its uid is not 32 hex digits", None)}


def test_an_empty_list_keeps_nothing(tmp_path: Path, judge: Judge) -> None:
    assert set(judge(UidSubset(file=subset(tmp_path / "none.npy")), [{"uid": A}])) == {A}


@settings(deadline=None)
@given(st.sets(HEX, max_size=40), st.sets(HEX, max_size=40))
def test_the_search_finds_what_a_set_finds(inside: set[str], others: set[str]) -> None:
    listing = sort_uids(parse_uids(pa.array(sorted(inside), pa.string()))[0])
    asked = sorted(inside | others)
    random.Random(0).shuffle(asked)
    found = listed(listing, parse_uids(pa.array(asked, pa.string()))[0])
    assert found.tolist() == [uid in inside for uid in asked]


@given(st.lists(HEX))
def test_uids_are_the_numbers_that_datacomp_writes(uids: list[str]) -> None:
    pairs, valid = parse_uids(pa.array(uids, pa.string()))
    assert valid.all() and pairs.dtype == UID
    assert pairs.tolist() == [(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids]
    assert sort_uids(pairs).tolist() == np.sort(pairs).tolist()


def test_what_is_no_uid_is_told() -> None:
    uids = pa.array([A, None, "", A[:-1], A + "0", "g" * 32, "é" * 16, A.upper()], pa.string())
    assert parse_uids(uids)[1].tolist() == [True, False, False, False, False, False, False, True]


def test_another_file_is_another_filter(tmp_path: Path) -> None:
    file = subset(tmp_path / "subset.npy", A)
    first = UidSubset(file=file)
    subset(tmp_path / "subset.npy", B)
    assert UidSubset(file=file).sha256 != first.sha256
    with pytest.raises(ValidationError, match="is not the one whose sha256 is"):
        UidSubset.model_validate(first.model_dump())


@pytest.mark.parametrize("kind", ["missing", "text", "floats", "unsorted", "pickled"])
def test_a_file_that_is_no_subset_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "subset.npy"
    if kind == "text":
        path.write_text("uid\n" + A)
    elif kind == "floats":
        np.save(path, np.zeros(3))
    elif kind == "unsorted":
        np.save(path, np.array([(2, 0), (1, 0)], UID))
    elif kind == "pickled":
        np.save(path, np.array([{"uid": A}], object), allow_pickle=True)
    said = {"missing": "no file", "floats": "not a subset of uids", "unsorted": "not sorted"}.get(
        kind, "cannot be read"
    )
    with pytest.raises(ValidationError, match=said):
        UidSubset(file=str(path))
