from __future__ import annotations

import hashlib

import pytest
from pydantic import ValidationError

from filters.fold import Fold
from tests.filters.conftest import Judge

ROWS = [{"uid": str(n), "sha256": hashlib.sha256(str(n).encode()).hexdigest()} for n in range(300)]


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_the_folds_part_the_pool(judge: Judge, folds: int) -> None:
    kept = [{r["uid"] for r in ROWS} - set(judge(Fold(fold=n, folds=folds), ROWS)) for n in range(folds)]
    assert sum(map(len, kept)) == len(set.union(*kept)) == len(ROWS)
    assert all(0.6 < len(part) * folds / len(ROWS) < 1.5 for part in kept)


def test_which_half_a_sample_is_in(judge: Judge) -> None:
    rows = [{"uid": "a", "sha256": "7fffffff" + "f" * 56}, {"uid": "b", "sha256": "8" + "0" * 63}]
    assert judge(Fold(fold=0), rows) == {"b": ("sha256 outside fold 0 of 2", None)}
    assert set(judge(Fold(fold=1), rows)) == {"a"}
    assert judge(Fold(fold=1, leave_out=True), rows) == {"b": ("sha256 in fold 1 of 2", None)}


def test_a_fold_that_is_not_there() -> None:
    with pytest.raises(ValidationError, match="from 0 to 1"):
        Fold(fold=2)
