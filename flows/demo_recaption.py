"""New captions in the demo: a CoCa learns from what was kept, and describes what `clip_score` dropped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.demo.truth import Sample, pool_urls
from curate.engines import open_engine
from curate.pool import open_pool
from curate.recaption.run import recaption_pool
from curate.recaption.settings import parse_settings
from curate.recaption.write import read_captions
from curate.storage import Folder
from trainer.scales import Scale
from trainer.train import train

RECAPTIONED = "recaptioned"


def recaption_demo(folder: Path, scorer: Path, truth: Path, scale: Scale, samples_seen: int) -> dict[str, Any]:
    """Write `folder/recaptioned`: the pool, where a new caption fits the image better than one that was dropped.

    Args:
        scorer: the checkpoint that judged the captions, and judges the new ones.
        truth: which objects each image shows; only what is told of the result comes from it.
        samples_seen: of the CoCa's training.
    """
    writer = train(
        folder / "dataset" / "shards", folder / "models" / "writer", family="coca",
        scale=dataclasses.replace(scale, samples_seen=samples_seen),
    )  # fmt: skip
    settings = parse_settings(
        {
            "dropped": {"of": str(folder / "dataset"), "by": "clip_score"},
            "features": {"clip": {"model": str(scorer)}},
            "backend": {"coca": {"model": str(writer.checkpoint), "temperature": 0.7, "top_p": 0.9}},
            "samples_per_image": 2,
            "checks": ["length", "refusal", "repetition"],
        }
    )
    out = Folder(str(folder / RECAPTIONED))
    engine = open_engine("local")
    try:
        manifest = recaption_pool(open_pool(str(folder / "pool")), settings, out, engine, overwrite=True)
    finally:
        engine.close()
    table = read_captions(out)
    new = table.filter(pc.and_(table["text"], pc.greater_equal(table["number"], 0))).to_pylist()
    renamed = pa.array([row["uid"] for row in new], pa.string())
    own = table.filter(pc.and_(pc.less(table["number"], 0), pc.is_in(table["uid"], renamed))).to_pylist()
    urls, objects = pool_urls(folder / "pool"), _objects(truth)
    return {
        "counts": manifest["counts"],
        "names_an_object": {"before": _right(own, urls, objects), "now": _right(new, urls, objects)},
    }


def _objects(truth: Path) -> dict[str, set[str]]:
    """The kinds of objects on each image, by its path."""
    rows = pq.read_table(truth, columns=["path", "objects"]).to_pylist()
    return {row["path"]: {words.split()[-1].removesuffix("s") for words in row["objects"]} for row in rows}


def _right(
    rows: Sequence[Mapping[str, Any]], urls: Mapping[Sample, str], objects: Mapping[str, set[str]]
) -> float | None:
    """The share of captions that name an object which the image shows."""
    found = [any(kind in row["caption"].lower() for kind in objects[urlsplit(urls[_sample(row)]).path]) for row in rows]
    return sum(found) / len(found) if found else None


def _sample(row: Mapping[str, Any]) -> Sample:
    return row["shard"].removesuffix(".tar"), row["key"]
