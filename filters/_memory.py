"""What a filter remembers of the samples it has judged, so that later ones are compared with them.

A filter that remembers gives, beside its verdicts, columns about the samples that it judged: a `Run` of rows. Another
call gets the runs of all before it and looks up in them the few rows that new samples could be compared with. Runs are
arrays, sorted by what they are looked up by, that may lie on disk.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from filters._columns import PLACES, Column, Keys, Near, Tally, Texts, Values
from filters._groups import runs
from filters._hamming import Pairs
from filters.contract import PoolFilter

MOST_ROWS = 1 << 20
"""Rows of a run; a lookup costs something for each run, and putting runs together holds memory for their rows."""
Kind = TypeVar("Kind", bound=Column)


@dataclass(frozen=True)
class Run:
    """Columns about rows `first` to `first + rows` of all that a filter remembers."""

    first: int
    rows: int
    columns: Mapping[str, Column]

    def column(self, name: str, kind: type[Kind]) -> Kind:
        found = self.columns[name]
        assert isinstance(found, kind)
        return found


def merged(parts: list[Run]) -> Run:
    """Runs that follow each other as one."""
    first = parts[0].first
    firsts = [part.first - first for part in parts]
    columns = {
        name: type(column).merged([part.columns[name] for part in parts], firsts)
        for name, column in parts[0].columns.items()
    }
    return Run(first, sum(part.rows for part in parts), columns)


@dataclass(frozen=True)
class Past:
    """The runs so far, in the order of their rows: an earlier row is to be preferred."""

    runs: tuple[Run, ...] = ()

    @property
    def rows(self) -> int:
        return self.runs[-1].first + self.runs[-1].rows if self.runs else 0

    def ends(self, name: str, keys: np.ndarray, first: int, last: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The `first` and the `last` of the rows that have each of some distinct keys, uint64 (n,).

        Returns places in `keys` and rows, int64 (found,) each, sorted by both.
        """
        order = np.argsort(keys)
        query, row = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for run in self.runs:
            place, found = run.column(name, Keys).ends(keys[order], first, last)
            query.append(order[place])
            row.append(found + run.first)
        places, rows = np.concatenate(query), np.concatenate(row)
        by_both = np.lexsort((rows, places))
        places, rows = places[by_both], rows[by_both]
        nth, count = runs(places)
        ends = (nth < first) | (nth >= count - last)
        return places[ends], rows[ends]

    def near(self, name: str, queries: np.ndarray, distance: int) -> Iterator[Pairs]:
        """Hashes near some others, uint64 (n,): places in `queries`, row x PLACES + view, and bits that differ."""
        for run in self.runs if len(queries) else ():
            for query, place, bits in run.column(name, Near).table(distance).near(queries):
                yield query, place + run.first * PLACES, bits

    def values(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The values of some rows, ascending (n,): (n, ...)."""
        return np.concatenate([run.column(name, Values).parts[0][mine] for run, mine in self._split(rows)])

    def texts(self, name: str, rows: np.ndarray) -> pa.Array:
        """The texts of some rows, ascending (n,)."""
        parts = [run.column(name, Texts).take(mine) for run, mine in self._split(rows)]
        return pa.concat_arrays([pa.array([], pa.large_string()), *parts])

    def tally(self, name: str, keys: np.ndarray, width: int) -> np.ndarray:
        """What was counted for each of some keys, int64 (n,): counts, added up, then maxima: int64 (n, width)."""
        total = np.zeros((len(keys), width), np.int64)
        for run in self.runs:
            Tally.add(total, run.column(name, Tally).of_keys(keys))
        return total

    def _split(self, rows: np.ndarray) -> Iterator[tuple[Run, np.ndarray]]:
        """Each run, and which of its own rows are asked for."""
        assert self.runs, "nothing is remembered yet"
        cuts = np.searchsorted(rows, [run.first for run in self.runs[1:]])
        for run, mine in zip(self.runs, np.split(rows, cuts), strict=True):
            yield run, mine - run.first


class Decision(NamedTuple):
    """The verdicts on new samples, and what is to be remembered of them."""

    verdicts: ir.Table | pa.Table
    looked_at: int
    """Earlier samples that new ones were compared with."""
    remember: Callable[[], Iterable[Run]]
    """Gives the runs of new rows, worked out when it is asked for, one after the other."""


class RememberingFilter(PoolFilter):
    """A pool filter that can compare new samples with all that it has judged before.

    `drops_after` gives the verdicts that `drops` would give on the earlier samples and the new ones together, with the
    earlier ones as earlier generations; so what it says of the earlier ones is what it said before.
    """

    @abstractmethod
    def drops_after(self, t: ir.Table, past: Past) -> Decision:
        """Judge new samples after those of the past; `t` as for `drops`."""
