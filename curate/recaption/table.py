"""The captions of the candidates as a table: each sample's own, then what was written for it, in pool order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from curate.measure import ERROR, read_features
from curate.recaption.ask import ShardWork, questions
from curate.recaption.contract import CAPTIONS
from curate.recaption.journal import Journals, Said
from curate.recaption.settings import Settings

ORIGINAL = "original"
NOT_ASKED = Said(None, "not asked yet", final=False)


def caption_table(work: Sequence[ShardWork], settings: Settings, journals: Journals) -> tuple[pa.Table, int]:
    """All captions of the candidates, `CAPTIONS` without what judging fills in, and how many requests failed for a
    reason that another run may not meet.

    A sample has `samples_per_image` + 1 rows, its own caption first, whatever became of the others.
    """
    again, parts = 0, [CAPTIONS.empty_table()]
    for shard in work:
        said = journals.known(shard.task.shard.name)
        columns: dict[str, list[Any]] = {name: [] for name in CAPTIONS.names}
        for row in _rows(shard, settings, said):
            again += not row.pop("final", True)
            for name, column in columns.items():
                column.append(row.get(name))
        parts.append(pa.table(columns, CAPTIONS))
    return pa.concat_tables(parts).combine_chunks(), again


def _rows(work: ShardWork, settings: Settings, known: dict[str, Said]) -> Iterator[dict[str, Any]]:
    own = read_features(work.task, ["uid", "key", "caption", ERROR]).take(pa.array(work.rows))
    asked, count = questions(work, settings), settings.samples_per_image
    source, model = settings.backend_name, settings.backend.model_name
    for place, sample in enumerate(own.to_pylist()):
        same = {"uid": sample["uid"], "shard": work.task.shard.name, "key": sample["key"]}
        yield same | {"number": -1, "source": ORIGINAL, "caption": sample["caption"],
                      "error": sample[ERROR] if sample["caption"] is None else None}  # fmt: skip
        for question in asked[place * count : (place + 1) * count]:
            said = known.get(question.id, NOT_ASKED)
            yield same | {
                "number": question.number,
                "source": source,
                "caption": said.caption,
                "error": said.error,
                "final": said.final or said.caption is not None,
                "model": model,
                "prompt": question.prompt,
                "seed": question.seed,
                "tokens_in": said.tokens_in,
                "tokens_out": said.tokens_out,
                "cost": settings.backend.cost(said.tokens_in, said.tokens_out),
            }
