"""Which captions a sample gets: laws that hold for any scores, and what each choice does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.recaption.contract import CAPTIONS
from curate.recaption.mix import KEPT_DRAWN, KEPT_EITHER, KEPT_FAILED, KEPT_REFUSED, KEPT_SCORE, mix
from curate.recaption.settings import Mix

Caption = tuple[str | None, float | None, str | None]
"""The text, its score, and the check that refused it."""


def table(samples: list[list[Caption]]) -> pa.Table:
    """Judged captions: each sample's own first."""
    rows: list[dict[str, Any]] = []
    for sample, captions in enumerate(samples):
        for number, (text, score, check) in enumerate(captions, -1):
            rows.append({"uid": f"uid{sample}", "number": number, "caption": text, "score": score, "check": check,
                         "reason": f"by {check}" if check else None})  # fmt: skip
    return pa.Table.from_pylist(rows, CAPTIONS)


def chosen(found: pa.Table) -> list[list[str]]:
    """The chosen captions of each sample."""
    by: dict[str, list[str]] = {}
    for row in found.to_pylist():
        by.setdefault(row["uid"], []).extend([row["caption"]] if row["chosen"] else [])
    return list(by.values())


OWN, LOW, HIGH = ("own", 0.2, None), ("low", 0.1, None), ("high", 0.3, None)


@pytest.mark.parametrize(("choice", "ratio", "captions", "becomes", "reason"), [
    ("best", 0.5, [OWN, LOW, HIGH], ["high"], None),
    ("best", 0.5, [OWN, LOW, ("same", 0.2, None)], ["own"], KEPT_SCORE),
    ("best", 0.5, [OWN, LOW, ("high", 0.3, "refusal")], ["own"], KEPT_SCORE),
    ("best", 0.5, [OWN, (None, None, None), (None, None, None)], ["own"], KEPT_FAILED),
    ("best", 0.5, [(None, None, None), LOW, HIGH], ["high"], None),
    ("best", 0.5, [OWN, ("unscored", None, None), ("also", float("nan"), None)], ["own"], KEPT_SCORE),
    ("ratio", 1.0, [OWN, LOW, HIGH], ["high"], None),
    ("ratio", 0.0, [OWN, LOW, HIGH], ["own"], KEPT_DRAWN),
    ("ratio", 0.0, [(None, None, None), LOW, HIGH], ["high"], None),
    ("ratio", 1.0, [OWN, ("first", None, None), ("second", None, None)], ["first"], None),
    ("replace", 0.0, [OWN, LOW, HIGH], ["high"], None),
    ("replace", 0.0, [OWN, ("a", 0.9, "length"), ("b", 0.9, "refusal")], ["own"], KEPT_REFUSED),
    ("replace", 0.0, [OWN, ("a", 0.9, "length"), (None, None, None)], ["own"], KEPT_EITHER),
    ("both", 0.5, [OWN, LOW, HIGH], ["own", "low", "high"], None),
    ("both", 0.5, [OWN, LOW, ("high", 0.3, "length")], ["own", "low"], None),
    ("both", 0.5, [(None, None, None), (None, None, None), (None, None, None)], [], None),
])  # fmt: skip
def test_what_a_sample_gets(choice: Any, ratio: float, captions: list, becomes: list, reason: str | None) -> None:
    found = mix(table([captions]), Mix(choice=choice, ratio=ratio), 2, 0)
    assert chosen(found) == [becomes]
    assert found["reason"][0].as_py() == reason
    assert [f"by {check}" if check else None for _, _, check in captions[1:]] == found["reason"].to_pylist()[1:]


def test_the_weights_of_both_are_the_ratio() -> None:
    found = mix(table([[OWN, LOW, HIGH], [(None, None, None), LOW, HIGH]]), Mix(choice="both", ratio=0.6), 2, 0)
    assert found["weight"].to_pylist() == pytest.approx([0.4, 0.3, 0.3, None, 0.5, 0.5])


captions = st.tuples(st.sampled_from([None, "a", "b c"]), st.sampled_from([None, 0.1, 0.2, 0.3]),
                     st.sampled_from([None, None, "length"]))  # fmt: skip
own = st.sampled_from([OWN, ("unscored", None, None), (None, None, None)])
pools = st.lists(st.tuples(own, captions, captions).map(list), max_size=12)
mixes = st.builds(Mix, choice=st.sampled_from(["best", "ratio", "both", "replace"]), ratio=st.floats(0, 1))


@given(pools, mixes, st.integers(0, 3), st.randoms())
def test_laws(samples: list[list[Caption]], settings: Mix, seed: int, random: Any) -> None:
    before = table(samples)
    found = mix(before, settings, 2, seed).to_pylist()
    groups = [found[at : at + 3] for at in range(0, len(found), 3)]
    for group in groups:
        weights = [row["weight"] for row in group if row["chosen"]]
        there = group[0]["caption"] is not None or any(r["caption"] and not r["check"] for r in group[1:])
        assert sum(weights) == pytest.approx(1) if there else not weights
        assert sum(row["text"] for row in group) == bool(there)
        for row in group:
            assert not row["chosen"] or (row["caption"] is not None and row["check"] is None)
            assert row["chosen"] == (row["weight"] is not None) and row["text"] <= row["chosen"]
        only_own = [row["number"] for row in group if row["chosen"]] == [-1]
        assert only_own == (group[0]["reason"] is not None)
    order = list(range(len(groups)))
    random.shuffle(order)
    rows = [row for place in order for row in range(3 * place, 3 * place + 3)]
    again = mix(before.take(pa.array(rows, pa.int64())), settings, 2, seed).to_pylist()
    assert again == [row for place in order for row in groups[place]]


def test_the_ratio_is_exact_in_expectation_and_nested() -> None:
    before = table([[OWN, HIGH]] * 1 + [[OWN, HIGH] for _ in range(9999)])
    takes = {}
    for ratio in (0.1, 0.5, 0.75):
        found = mix(before, Mix(choice="ratio", ratio=ratio), 1, 7)
        takes[ratio] = found["chosen"].to_numpy(zero_copy_only=False)[1::2]
        assert takes[ratio].mean() == pytest.approx(ratio, abs=4 * np.sqrt(ratio * (1 - ratio) / 10_000))
    assert (takes[0.1] <= takes[0.5]).all() and (takes[0.5] <= takes[0.75]).all()
    other = mix(before, Mix(choice="ratio", ratio=0.5), 1, 8)["chosen"].to_numpy(zero_copy_only=False)[1::2]
    assert (other != takes[0.5]).mean() == pytest.approx(0.5, abs=0.03)


def test_the_text_of_both_follows_the_ratio_too() -> None:
    before = table([[OWN, HIGH] for _ in range(4000)])
    text = mix(before, Mix(choice="both", ratio=0.25), 1, 0)["text"].to_numpy(zero_copy_only=False)
    assert text[1::2].mean() == pytest.approx(0.25, abs=0.03)
