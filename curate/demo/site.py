"""Builds the mini-web: a folder of pages and image files to serve, and the truth about it, kept apart."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from PIL import Image

from curate.demo.files import encode, write_images
from curate.demo.pages import page_html
from curate.demo.plan import SHARES, Planned, make_plan, object_names
from curate.demo.scenes import make_scene, render
from curate.demo.shapes import SHAPES
from curate.errors import RequestError
from curate.storage import Folder

_PER_PAGE = 12
FORBIDDEN = "/members/"  # the folder that robots.txt asks crawlers to leave alone
_ROBOTS = f"User-agent: *\nDisallow: {FORBIDDEN}\n"

TRUTH_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), False),  # URL path of the image; the host and port change from run to run
        pa.field("caption", pa.string(), False),  # as written on the page
        pa.field("true_caption", pa.string(), False),
        pa.field("objects", pa.list_(pa.string()), False),
        pa.field("label", pa.string(), False),  # the main object
        pa.field("language", pa.string(), False),  # of the caption
        pa.field("defect", pa.string(), False),
        pa.field("copy_of", pa.string()),  # path of the original, for copies
        pa.field("width", pa.int32(), False),  # pixels of the scene before any defect
        pa.field("height", pa.int32(), False),
        pa.field("bytes", pa.int64(), False),  # size of the file, 0 for a dead link
        pa.field("page", pa.string(), False),  # URL path of the page
    ]
)


@dataclass(frozen=True, slots=True)
class Site:
    """A generated mini-web. `pages` are URL paths in order; one of them is forbidden by robots.txt."""

    folder: Path
    truth: Path
    pages: tuple[str, ...]
    pairs: int

    def page_urls(self, origin: str) -> list[str]:
        """The pages' addresses on a server at `origin`, such as "http://127.0.0.1:8000"."""
        return [origin.rstrip("/") + page for page in self.pages]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A zero-shot task on scenes that the mini-web does not hold."""

    classnames: tuple[str, ...]
    templates: tuple[str, ...]  # with {c} for the class name
    examples: tuple[tuple[bytes, int], ...]  # JPEG bytes and the index of the class


TEMPLATES = ("a photo of a {c}", "a picture of a {c}", "this picture shows a {c}", "here you can see a {c}")


def write_site(
    folder: Path,
    truth: Path,
    *,
    samples: int = 3000,
    seed: int = 0,
    shares: Mapping[str, float] = SHARES,
    workers: int | None = None,
) -> Site:
    """Writes the mini-web into `folder` (replaced if it is one of ours) and its truth to a Parquet file.

    `samples` counts the clean pairs; the defects come on top, each with its share of all pairs. The same
    arguments give the same bytes. `workers` are processes, default: one per core. Raises RequestError for bad
    arguments, a truth file inside the served folder, or a folder with other content.
    """
    if truth.resolve().is_relative_to(folder.resolve()):
        raise RequestError(f"truth: {truth} lies in the folder that is served; the truth must stay secret")
    plan = make_plan(seed, samples, shares)
    _clear(folder)
    sizes = write_images(plan, folder, workers or os.cpu_count() or 1)
    pages = _write_pages(plan, folder, seed)
    _write_truth(plan, sizes, truth)
    return Site(folder, truth, (*pages, f"{FORBIDDEN}list.html"), len(plan))


def _clear(folder: Path) -> None:
    marker = folder / ".mini-web"
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise RequestError(f"{folder}: is not empty and was not made by the demo; name another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _page_path(number: int) -> str:
    return f"/pages/p{number // _PER_PAGE:05d}.html"


def _write_pages(plan: list[Planned], folder: Path, seed: int) -> list[str]:
    (folder / "pages").mkdir()
    (folder / FORBIDDEN.strip("/")).mkdir()
    groups = [plan[start : start + _PER_PAGE] for start in range(0, len(plan), _PER_PAGE)]
    for page, items in enumerate(groups):
        (folder / _page_path(items[0].number).lstrip("/")).write_bytes(page_html(items, page, len(groups), seed))
    (folder / "members/list.html").write_text('<img src="/logo.png" alt="a picture only for our members">')
    (folder / "robots.txt").write_text(_ROBOTS)
    (folder / "about.html").write_text("<title>About</title><p>A small web that was made for a test.")
    (folder / "logo.png").write_bytes(encode(Image.new("RGB", (120, 40), (40, 90, 160)), "png", 0))
    return [_page_path(items[0].number) for items in groups]


def _write_truth(plan: list[Planned], sizes: list[int], truth: Path) -> None:
    rows = [
        {
            "path": item.path,
            "caption": item.caption,
            "true_caption": item.true_caption,
            "objects": object_names(item.scene),
            "label": item.scene.label,
            "language": item.language,
            "defect": item.defect,
            "copy_of": plan[item.copy_of].path if item.copy_of >= 0 else None,
            "width": item.scene.width,
            "height": item.scene.height,
            "bytes": size,
            "page": _page_path(item.number),
        }
        for item, size in zip(plan, sizes, strict=True)
    ]
    Folder(str(truth.parent)).write_parquet(truth.name, pa.Table.from_pylist(rows, TRUTH_SCHEMA))


def evaluation(count: int = 1500, *, seed: int = 1) -> Evaluation:
    """`count` scenes with one object each, of another seed than the mini-web's: which object is it?

    `seed` must differ from the mini-web's, or the test pictures would be training pictures.
    """
    return Evaluation(SHAPES, TEMPLATES, tuple(_examples(count, seed)))


def _examples(count: int, seed: int) -> Iterator[tuple[bytes, int]]:
    for number in range(count):
        # Smaller pictures than the mini-web's: a test at 32×32 pixels needs no more, and they render faster.
        scene = make_scene(2**32 + seed, number, single=True, sides=(96, 144))
        yield encode(render(scene), "jpg", 88), SHAPES.index(scene.label)
