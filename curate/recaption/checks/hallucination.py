"""Refuse captions that fit their image better with one of the things they name left out or replaced."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.recaption.rowwise import RowCheck, share, spread, text


class Hallucination(RowCheck):
    """Refuse a caption if one of the things it names has a `phrase_score` below `min_phrase_score`.

    The score compares the caption with the same without that thing and with other things in its place: below 0, one
    of those fits the image better (`curate.recaption.scores`). Captions without a score, or that name nothing, pass.
    What it catches at which price: docs/recaption_checks.md.
    """

    name: ClassVar = "hallucination"
    min_phrase_score: float = Field(-0.4)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("phrase", "phrase_score")

    def reasons(self, captions: pa.Table) -> pa.Array:
        scores = captions["phrase_score"].combine_chunks()
        low = pc.less(scores, pa.scalar(self.min_phrase_score, pa.float32())).fill_null(False)
        places = pc.indices_nonzero(low).to_numpy()
        phrase = pc.utf8_slice_codeunits(text(captions["phrase"]).take(pa.array(places)), 0, 60)
        value = share(scores.take(pa.array(places)).to_numpy())
        line = pc.binary_join_element_wise(
            "'", phrase, "' fits the image less than other things do: ", value, f" < {self.min_phrase_score:g}", ""
        )
        return spread(line, places, len(captions))
