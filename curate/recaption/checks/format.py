"""Refuse what is no plain sentence: labels before the caption, markdown, lists, signs only, an end in the middle."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field

from curate.recaption.patterns import check_kinds, read_patterns
from curate.recaption.rowwise import RowCheck, matched, plain_quotes, share, spread, text

_ENDS = r"[.!?\x{2026}\x{3002}\x{FF01}\x{FF1F}]['\"”’»)\]]*\s*$"
_ENDS_IN = r"\b(?:a|an|the|and|or|of|its|their|with a|such as|(?:and|which|that|there) (?:it |they )?(?:is|are))\s*$"
_HANGING = rf"{_ENDS_IN}|[,;:(–—-]\s*$"
_SENTENCE = r"\p{Ll}{3}[.!?]['\"”’»)\]]*\s+[\p{Lu}\"“]"


class Format(RowCheck):
    """Refuse labels ("Caption:", "Sure! Here is"), markdown, lists, hardly a letter, and captions that break off.

    A caption breaks off where it ends in an article, a conjunction or a comma, or where it is of several sentences,
    `paragraph_words` words or more, and the last one has no end: what a limit of tokens leaves of a paragraph.
    `min_letters` is of the characters that are not white space. `kinds` are those of the first three that count.
    """

    name: ClassVar = "format"
    kinds: Annotated[tuple[str, ...], AfterValidator(lambda named: check_kinds("format", named))] = tuple(
        read_patterns("format")
    )
    min_letters: float = Field(0.5, ge=0, le=1)
    unfinished: bool = True
    paragraph_words: int = Field(20, ge=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("caption", "caption_words", "caption_alpha")

    def reasons(self, captions: pa.Table) -> pa.Array:
        said, known = plain_quotes(text(captions["caption"])), read_patterns("format")
        found = [self._signs(captions["caption_alpha"].combine_chunks())]
        found += [matched(said, known[kind], kind) for kind in self.kinds]
        found += [self._broken(said, captions["caption_words"].combine_chunks())] if self.unfinished else []
        return pc.coalesce(*found)

    def _signs(self, letters: pa.Array) -> pa.Array:
        few = pc.less(letters, pa.scalar(self.min_letters, pa.float32())).fill_null(False)
        places = pc.indices_nonzero(few).to_numpy()
        value = share(letters.take(pa.array(places)).to_numpy(zero_copy_only=False))
        line = pc.binary_join_element_wise("share of letters ", value, f" < {self.min_letters:g}", "")
        return spread(line, places, len(letters))

    def _broken(self, said: pa.Array, words: pa.Array) -> pa.Array:
        hanging = pc.match_substring_regex(said, _HANGING, ignore_case=True)
        several = pc.and_(pc.match_substring_regex(said, _SENTENCE), pc.greater_equal(words, self.paragraph_words))
        endless = pc.and_(several, pc.invert(pc.match_substring_regex(said, _ENDS)))
        places = pc.indices_nonzero(pc.or_(hanging, endless)).to_numpy()
        end = pc.utf8_slice_codeunits(pc.utf8_trim_whitespace(said.take(pa.array(places))), -30, None)
        return spread(pc.binary_join_element_wise("breaks off: '", end, "'", ""), places, len(said))
