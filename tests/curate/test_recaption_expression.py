"""Conditions that choose candidates: what they mean, and what they cannot do."""

from __future__ import annotations

import ibis
import pyarrow as pa
import pytest

from curate.recaption.expression import parse_condition

ROWS = {
    "width": [10, 20, 30, None],
    "clip_score": [0.1, 0.2, 0.3, 0.4],
    "language": ["en", "de", None, "fr"],
    "clip_image": [[1.0, 0.0]] * 4,
}


@pytest.fixture(scope="module")
def rows() -> ibis.Table:
    return ibis.memtable(pa.table({**ROWS, "row": [0, 1, 2, 3]}))


@pytest.mark.parametrize(("condition", "found"), [
    ("clip_score < 0.2 and width >= 10", [0]),
    ("language is null", [2]),
    ("language is not null or width = 30", [0, 1, 2, 3]),
    ("not (language in ('en', 'fr'))", [1]),
    ("language not in ('en')", [1, 3]),
    ("width == 20", [1]),
    ("width <> 20", [0, 2]),
    ("width between 20 and 30", [1, 2]),
    ("language like 'f%'", [3]),
    ("-width * 2 + 5 < -30", [1, 2]),
    ("width / 4 > 5 or abs(clip_score - 0.4) < 0.01", [2, 3]),
    ("width % 20 = 10", [0, 2]),
    ("clip_score <= quantile(clip_score, 0.5)", [0, 1]),
    ("width < 25", [0, 1]),  # a null is no number below 25
])  # fmt: skip
def test_what_a_condition_means(rows: ibis.Table, condition: str, found: list[int]) -> None:
    kept = rows.filter(parse_condition(condition).on(rows)).to_pyarrow()
    assert sorted(kept["row"].to_pylist()) == found


@pytest.mark.parametrize("condition", [
    "read_text('/etc/passwd') = 'root'",
    "width in (select 1)",
    "exists (select * from read_csv('/etc/passwd'))",
    "1 = 1; drop table step_1",
    "width > 1 union select 2",
    "other.width > 1",
    "count(*) > 1",
    "*",
    "width",
    "",
    "width >",
    "width < 'ten'",
    "clip_image > 1",
    "quantile(width, 3) > 1",
    "quantile(width + 1, 0.5) > 1",
    "language like width",
    "cast(width as varchar) = '1'",
    "case when true then true end",
    "(" * 4000,
    "not " * 2000 + "true",
    "width > 1" + " or width > 1" * 2000,
])  # fmt: skip
def test_what_is_refused(rows: ibis.Table, condition: str) -> None:
    with pytest.raises(ValueError):
        parse_condition(condition).on(rows)


def test_the_columns_are_those_it_names() -> None:
    assert parse_condition("b > 1 and (a < quantile(c, 0.1) or a is null)").columns == ("b", "a", "c")
