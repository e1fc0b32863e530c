"""Refuse text that gives orders, links or markup: what an image says must not become what a program does."""

from __future__ import annotations

from typing import Annotated, ClassVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field

from curate.recaption.patterns import check_kinds, check_patterns, read_patterns
from curate.recaption.rowwise import RowCheck, matched, plain_quotes, spread, text
from filters._shingles import normalised

ECHO = "echo"


class Injection(RowCheck):
    """Refuse links, markup, code, tokens of a chat, orders to a model, hidden characters, and a repeated prompt.

    A caption is a plain sentence about an image, so none of these is missed, whoever wrote it: a model that was
    told by text in the image to write them, or one that read them from it. Which of the kinds count is `kinds`;
    `also` are more patterns, in RE2's syntax. A caption echoes its prompt where it holds all of it, `echo_words`
    words or more.
    """

    name: ClassVar = "injection"
    kinds: Annotated[tuple[str, ...], AfterValidator(lambda named: check_kinds("injection", named, (ECHO,)))] = (
        *read_patterns("injection"),
        ECHO,
    )
    also: Annotated[tuple[str, ...], AfterValidator(check_patterns)] = ()
    echo_words: int = Field(4, ge=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("caption", "prompt")

    def reasons(self, captions: pa.Table) -> pa.Array:
        raw, known = text(captions["caption"]), read_patterns("injection")
        said = plain_quotes(raw)
        found = [matched(raw if kind == "code" else said, known[kind], kind) for kind in self.kinds if kind != ECHO]
        found += [matched(said, pattern, "matches") for pattern in self.also]
        found += [self._echoes(captions)] if ECHO in self.kinds else []
        return pc.coalesce(pa.nulls(len(said), pa.string()), *found)

    def _echoes(self, captions: pa.Table) -> pa.Array:
        """`repeats its prompt` where the caption holds it, or its first sentence."""
        prompts = text(captions["prompt"])
        first = pc.struct_field(pc.extract_regex(prompts, r"^(?P<first>[^.!?:\n]*)"), "first")
        asked = pa.table(
            {"caption": normalised(text(captions["caption"])), "prompt": normalised(pc.fill_null(first, ""))}
        )
        query = "SELECT contains(caption, prompt) AND len(string_split(prompt, ' ')) >= ? AS echo FROM asked"
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.register("asked", asked)
            echo = connection.execute(query, [self.echo_words]).to_arrow_table()["echo"]
        places = pc.indices_nonzero(echo).to_numpy()
        short = pc.utf8_slice_codeunits(prompts.take(pa.array(places)), 0, 60)
        return spread(pc.binary_join_element_wise("repeats its prompt: '", short, "'", ""), places, len(captions))
