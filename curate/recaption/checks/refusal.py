"""Refuse answers in which a model refuses: "I'm sorry, but I can't", "as an AI", "no image provided"."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator

from curate.recaption.patterns import START, check_kinds, check_patterns, read_patterns
from curate.recaption.rowwise import RowCheck, matched, plain_quotes, text


class Refusal(RowCheck):
    """Patterns by language, each at the start of a sentence (`curate/recaption/patterns/refusal.txt`).

    `languages` are those whose patterns count, all unless named. `also` are more patterns, in RE2's syntax.
    """

    name: ClassVar = "refusal"
    languages: Annotated[tuple[str, ...], AfterValidator(lambda named: check_kinds("refusal", named))] = tuple(
        read_patterns("refusal")
    )
    also: Annotated[tuple[str, ...], AfterValidator(check_patterns)] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        return ("caption",)

    def reasons(self, captions: pa.Table) -> pa.Array:
        said = plain_quotes(text(captions["caption"]))
        known = read_patterns("refusal")
        patterns = [*(f"{START}(?:{known[language]})" for language in self.languages), *self.also]
        return pc.coalesce(pa.nulls(len(said), pa.string()), *(matched(said, one, "refuses") for one in patterns))
