"""Runs checks over captions, and says which there are."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

import curate.recaption.checks
from curate.errors import RequestError
from curate.plugins import find_class
from curate.recaption.contract import REFUSED, Check

ORIGINAL = -1
"""`number` of a sample's own caption."""
DEFAULT: tuple[str | dict[str, Any], ...] = (
    "length",
    "refusal",
    "injection",
    "format",
    "language",
    "repetition",
    "collapse",
    "agreement",
    "hallucination",
    "near_copies",
)
"""The checks of a run that names none. Those that need a score pass what has none."""


def check_names() -> list[str]:
    """The checks that come with curate: the files of `curate/recaption/checks/`."""
    found = (module.name for module in pkgutil.iter_modules(curate.recaption.checks.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def load_checks(steps: Sequence[str | Mapping[str, Any]] = DEFAULT, field: str = "checks") -> tuple[Check, ...]:
    """Checks as settings name them: `refusal`, `{length: {max_words: 40}}`, or `{my_module:MyCheck: {...}}`.

    Raises:
        RequestError: there is none of that name, or it has no such parameter; names the place in `field`.
    """
    return tuple(_check(step, f"{field}[{place}]") for place, step in enumerate(steps))


def _check(step: str | Mapping[str, Any], field: str) -> Check:
    if not isinstance(step, str) and (not isinstance(step, Mapping) or len(step) != 1):
        raise RequestError(f"{field}: write a check's name, or one name with its parameters")
    name, parameters = (step, None) if isinstance(step, str) else next(iter(step.items()))
    found = find_class(str(name), curate.recaption.checks.__name__, check_names(), Check, field)
    try:
        return found.model_validate(parameters or {})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([field, str(name), *map(str, first["loc"])])
        raise RequestError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error


def columns_read(checks: Sequence[Check]) -> list[str]:
    """The columns that checks need, each once, sorted."""
    return sorted({column for check in checks for column in check.reads})


def run_checks(captions: pa.Table, checks: Sequence[Check]) -> pa.Table:
    """Judge the written captions that are there; originals and failed ones are left alone.

    A check is shown the captions that all before it let pass, in order of uid and number, and of those only the
    columns it reads; the first that refuses a caption owns the reason.

    Args:
        captions: `CAPTIONS` with what `measure_captions` added.

    Returns:
        The same table, rows in the same order, with `check` and `reason` filled in.

    Raises:
        ValueError: a check returns something else than a `REFUSED` table of rows that it was given.
    """
    check = np.full(len(captions), None, object)
    reason = np.full(len(captions), None, object)
    alive = _written(captions)
    for judge in checks:
        if not len(alive):
            break
        refused = judge.refuses(captions.select(list(judge.reads)).take(pa.array(alive)))
        rows = _rows(judge, refused, len(alive))
        check[alive[rows]] = judge.name
        reason[alive[rows]] = refused["reason"].to_pylist()
        alive = np.delete(alive, rows)
    for name, values in (("check", check), ("reason", reason)):
        captions = captions.set_column(captions.column_names.index(name), name, pa.array(values, pa.string()))
    return captions


def _written(captions: pa.Table) -> np.ndarray:
    """The places of written captions, by uid and number: int64 (n,)."""
    ids = captions.select(["uid", "number"]).append_column("place", pa.array(np.arange(len(captions))))
    there = pa.compute.and_(captions["caption"].is_valid(), pa.compute.greater(captions["number"], ORIGINAL))
    ordered = ids.filter(there).sort_by([("uid", "ascending"), ("number", "ascending"), ("place", "ascending")])
    return ordered["place"].to_numpy()


def _rows(judge: Check, refused: pa.Table, count: int) -> np.ndarray:
    if refused.schema != REFUSED:
        raise ValueError(f"check {judge.name}: returned columns {refused.schema.names}, not {REFUSED.names}")
    rows = refused["row"].to_numpy()
    if len(np.unique(rows)) < len(rows) or (len(rows) and not 0 <= rows.min() <= rows.max() < count):
        raise ValueError(f"check {judge.name}: a row it refuses is not one of the {count} it was given, or comes twice")
    return rows
