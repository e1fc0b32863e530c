"""Refuse captions that say the same again and again (Holtzman et al., "Neural Text Degeneration", ICLR 2020)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.recaption.rowwise import RowCheck, share, spread
from curate.recaption.words import Words, ngrams, repeated, words_of


class Repetition(RowCheck):
    """Refuse loops, and captions much of which stood in them before.

    A loop is up to `max_period` words that come more than `max_in_a_row` times in a row. What stood before is
    counted in runs of `ngram` words, as Rae et al. (Gopher, 2021) do for pages: at most `max_repeated` of all runs
    of a caption, from `min_words` words on. In scripts without spaces every character is a word.
    """

    name: ClassVar = "repetition"
    max_in_a_row: int = Field(3, ge=1)
    max_period: int = Field(12, ge=1, le=64)
    ngram: int = Field(3, ge=1, le=8)
    max_repeated: float = Field(0.3, ge=0, le=1)
    min_words: int = Field(12, ge=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("caption",)

    def reasons(self, captions: pa.Table) -> pa.Array:
        words = words_of(captions["caption"])
        loops = pa.compute.coalesce(*[self._loops(words, period) for period in range(1, self.max_period + 1)])
        return pa.compute.coalesce(loops, self._repeats(words))

    def _loops(self, words: Words, period: int) -> pa.Array:
        """Where a run of equal words, `period` apart, is long enough: the loop, and how often it comes."""
        count = len(words.bounds) - 1
        codes, owner = words.codes, words.owner
        same = (codes[period:] == codes[:-period]) & (owner[period:] == owner[:-period])
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]])))
        begins, lengths = edges[::2], edges[1::2] - edges[::2]
        times = lengths // period + 1
        far = times > self.max_in_a_row
        begins, times = begins[far], times[far]
        texts, first = np.unique(owner[begins], return_index=True)
        lines = [
            f"'{words.text(begin, begin + period)[:60]}' {number} times in a row > {self.max_in_a_row}"
            for begin, number in zip(begins[first].tolist(), times[first].tolist(), strict=True)
        ]
        return spread(pa.array(lines, pa.string()), texts, count)

    def _repeats(self, words: Words) -> pa.Array:
        lengths = np.diff(words.bounds)
        hashes, _, owner = ngrams(words, self.ngram)
        runs = np.maximum(lengths - self.ngram + 1, 1)
        found = repeated(hashes, owner, len(lengths)) / runs
        places = np.flatnonzero((found > self.max_repeated) & (lengths >= self.min_words))
        line = pa.compute.binary_join_element_wise(
            "share of runs of words that came before ", share(found[places]), f" > {self.max_repeated:g}", ""
        )
        return spread(line, places, len(lengths))
