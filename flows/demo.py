"""The demo: a web with known defects is crawled, downloaded and curated, and the result is proved by training."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curate.acquire.crawl import CrawlReport, crawl
from curate.acquire.download import DownloadLimits, DownloadReport, download
from curate.acquire.fetch import FetchLimits
from curate.curation import REPORT, SELECTION
from curate.demo.server import serve
from curate.demo.site import Site, evaluation, write_site
from curate.demo.truth import TruthScore, pool_urls, score_selection
from curate.pool import open_pool
from curate.report import write_report
from curate.storage import Folder
from flows.demo_recaption import recaption_demo
from flows.proof import EVIDENCE, Arm, prove
from trainer.scales import SCALES
from trainer.tasks.write import write_classification_task
from trainer.train import train

DEFECTS = "defects.json"
TASK = "which-object"
Curate = Callable[..., dict[str, Any]]
log = logging.getLogger("curate.demo")


@dataclasses.dataclass(frozen=True)
class DemoSize:
    """How large the demo is. `samples` are clean pairs; every arm sees `samples_seen` samples per seed."""

    samples: int = 3000
    test_items: int = 1500
    samples_seen: int = 38_400
    writer_samples: int = 32_000
    """Seen by the CoCa that writes new captions; 0: none are written."""
    seeds: tuple[int, ...] = (0, 1, 2)


def run_demo(folder: Path, curate: Curate, size: DemoSize | None = None) -> dict[str, Any]:
    """Run the whole line in `folder`; what an earlier run finished there is not done again.

    Args:
        curate: the curation flow, or a function with its parameters.

    Returns:
        What to print: per stage what it came to, the manifest, the evidence, the truth about the defects.
    """
    size = size or DemoSize()
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    site, crawled, downloaded = acquire(folder, size)
    scale = dataclasses.replace(SCALES["tiny"], samples_seen=size.samples_seen, save_steps=50)
    task = _write_task(folder, size)
    pool, out = folder / "pool", folder / "dataset"
    _say(began, "training the model on the raw pool; it will also judge which captions fit")
    scorer = train(str(pool), folder / "models" / "raw-0", scale=scale, seed=0)
    _say(began, "curating")
    manifest = curate(
        pool=str(pool),
        out=str(out),
        recipe=_write_recipe(folder),
        changes=(
            f"features.clip.model={scorer.checkpoint}",
            # A smaller web repeats itself less; the recipe's number is for the default size.
            f"near_duplicate_captions.boilerplate={max(5, round(38 * size.samples / DemoSize.samples))}",
        ),
        overwrite=True,
    )
    recaptioned = None
    if size.writer_samples:
        _say(began, "training a CoCa on what was kept, to write new captions for what clip_score dropped")
        recaptioned = recaption_demo(folder, scorer.checkpoint, site.truth, scale, size.writer_samples)
    _say(began, "training on raw and on curated, at equal compute")
    notes = ["The raw arm's first model is also the scorer: curation had no outside model to lean on."]
    arms = [Arm("raw", str(pool)), Arm("curated", str(out / "shards"))]
    evidence = prove(arms, task, folder / "models", scale, size.seeds, notes)
    evidence["chance"] = 1 / len(evaluation(1).classnames)
    truth = score_selection(pq.read_table(out / SELECTION), pool_urls(pool), pq.read_table(site.truth))
    dataset = Folder(str(out))
    dataset.write_json(EVIDENCE, evidence)
    dataset.write_json(DEFECTS, defects(truth))
    write_report(dataset, manifest, open_pool(str(pool)))
    _say(began, "done")
    return {
        "pairs": site.pairs,
        "crawl": dataclasses.asdict(crawled),
        "download": dataclasses.asdict(downloaded),
        "manifest": manifest,
        "recaption": recaptioned,
        "evidence": evidence,
        "defects": defects(truth),
        "report": str(out / REPORT),
        "seconds": round(time.monotonic() - began, 1),
    }


def acquire(folder: Path, size: DemoSize) -> tuple[Site, CrawlReport, DownloadReport]:
    """Make the mini-web, serve it on loopback, crawl its pages and download what they show."""
    began = time.monotonic()
    _say(began, "making a small web with planted defects")
    site = write_site(folder / "web", folder / "secret" / "truth.parquet", samples=size.samples)
    pairs = folder / "pairs.parquet"
    with serve(site.folder, _port(folder)) as origin:
        pages = folder / "pages.txt"
        pages.write_text("\n".join(site.page_urls(origin)) + "\n")
        _say(began, f"crawling {len(site.pages)} pages at {origin}")
        crawled = crawl([str(pages)], pairs, FetchLimits(allow_private=True))
        _say(began, f"downloading the images of {crawled.pairs} pairs with img2dataset")
        limits = DownloadLimits(allow_private=True, retries=1, retry_pause=0.5, samples_per_shard=1000)
        downloaded = download(pairs, folder / "pool", limits)
    return site, crawled, downloaded


def defects(truth: TruthScore) -> dict[str, Any]:
    """The truth about the planted defects as the report reads it."""
    return {
        "defects": [
            {
                "defect": score.defect,
                "planted": score.planted,
                "arrived": score.planted - score.at_download,
                "caught": score.caught,
                "missed": score.missed,
                "caught_at_download": score.at_download,
                "by": dict(score.by_filter),
            }
            for score in truth.defects
        ],
        "notes": ["A copy that was kept in the place of its original counts as caught; no filter is named for it."],
        "good_lost": {"count": truth.clean_lost, "of": truth.clean, "by": dict(truth.lost_by_filter)},
    }


def _port(folder: Path) -> int:
    """The port of an earlier run in this folder, so that its addresses and so its pool stay good; else a free one."""
    file = folder / "pages.txt"
    if not file.exists():
        return 0
    return int(file.read_text().split("/")[2].rpartition(":")[2])


def _write_recipe(folder: Path) -> str:
    file = folder / "recipe.yaml"
    file.write_text((files("curate") / "demo" / "recipe.yaml").read_text())
    return str(file)


def _write_task(folder: Path, size: DemoSize) -> Path:
    task = folder / TASK
    wanted = json.dumps(size.test_items)
    marker = task / ".items"
    if not marker.exists() or marker.read_text() != wanted:
        found = evaluation(size.test_items)
        write_classification_task(task, found.examples, found.classnames, found.templates)
        marker.write_text(wanted)
    return task


def _say(began: float, what: str) -> None:
    log.info("[%5.1f s] %s", time.monotonic() - began, what)
