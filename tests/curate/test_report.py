"""The report of a dataset: read as a browser and as an attacker would."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.cli import run
from curate.pool import open_pool
from curate.report import write_report
from curate.report.histograms import charts_of
from curate.report.ledger import read_ledger, uid_hash
from curate.report.measured import open_measured, steps_of
from curate.report.reasons import OTHER, PATTERNS, Groups
from curate.storage import Folder
from tests.conftest import Pair, encoded, messy_pairs, pair, photo, write_pool

HOSTILE = "<script>alert(1)</script> a caption with \"quotes' & <img src=http://evil.example/x.png onerror=alert(2)>"
RECIPE = """
name: "<b>bold</b> recipe"
filters:
  - image_size: {min_side: 64}
  - aspect_ratio
  - image_quality
  - caption_rules
  - language: {min_probability: 0.2}
  - exact_duplicates
  - near_duplicate_captions: {boilerplate: 5, max_copies: null}
  - near_duplicate_images: {max_distance: 8}
"""


class Page(HTMLParser):
    """What a browser would make of a page: its elements, the text of each kind, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        data = data.replace("\xa0", " ")
        if "style" in self.open:
            return
        self.text += data + " "
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data.strip()

    def loads(self) -> list[str]:
        wanted = ("src", "href", "srcset", "data", "poster", "action", "xlink:href")
        return [value or "" for _, attrs in self.elements for name, value in attrs.items() if name in wanted]

    def row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row and row[0] == first)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = [*messy_pairs(), *(pair(200 + n, "click here to enlarge the picture now") for n in range(6))]
    pairs += [pair(300 + n, HOSTILE) for n in range(3)]
    pairs.append(Pair("<i>key</i>", encoded(photo(310, (30, 30))), HOSTILE + " small"))
    return write_pool(tmp_path_factory.mktemp("report") / "pool", pairs, per_shard=20)


@pytest.fixture(scope="module")
def out(pool: Path) -> Path:
    recipe = pool.parent / "recipe.yaml"
    recipe.write_text(RECIPE)
    assert run(["filter", str(pool), str(pool.parent / "out"), "-r", str(recipe), "--workers", "1"]) == 0
    return pool.parent / "out"


@pytest.fixture
def mine(out: Path, tmp_path: Path) -> Path:
    """A copy of the dataset that a test may change."""
    return Path(shutil.copytree(out, tmp_path / "mine"))


def page(out: Path) -> Page:
    return Page((out / "report.html").read_text())


def manifest_of(out: Path) -> dict:
    return json.loads((out / "manifest.json").read_text())


def without_run(text: str) -> str:
    start = text.index('<div id="run">')
    return text[:start] + text[text.index("</table>", start) :]


def test_it_loads_nothing_and_runs_nothing(out: Path) -> None:
    found = page(out)
    assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in found.loads())
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "iframe", "object", "embed", "link", "form", "base", "b-old"}
    assert not [name for _, attrs in found.elements for name in attrs if name.startswith("on")]
    css = re.findall(r"<style>(.*?)</style>", (out / "report.html").read_text(), re.DOTALL)
    assert len(css) == 1 and "url(" not in css[0] and "@import" not in css[0]
    assert any(attrs.get("http-equiv") == "Content-Security-Policy" for _, attrs in found.elements)


def test_foreign_text_is_shown_as_text(out: Path) -> None:
    found = page(out)
    assert "<script>alert(1)</script> a caption" in found.text
    assert "<b>bold</b> recipe" in found.text
    assert all("evil" not in (attrs.get("src") or "") for _, attrs in found.elements)
    assert [attrs["title"] for tag, attrs in found.elements if attrs.get("title") == "key <i>key</i>"]


def test_the_numbers_are_the_manifests(out: Path) -> None:
    found, manifest = page(out), manifest_of(out)
    selection = manifest["selection"]
    assert f"Kept {selection['kept']} of {selection['rows']} samples" in found.text
    most = max(manifest["funnel"], key=lambda step: step["dropped"])
    assert f"{most['filter']} dropped the most: {most['dropped']}" in found.text
    for step in manifest["funnel"]:
        row = found.row(step["filter"])
        assert row[2] == str(step["in"]) and row[3] == str(step["dropped"] or "–") and row[5] == str(step["out"])
    assert manifest["recipe_hash"] in found.text and manifest["pool_fingerprint"] in found.text
    assert found.row("python")[1] == manifest["versions"]["python"]
    assert found.row("00000.tar")[1] == str(manifest["shards"][0]["samples"])


def test_warnings_are_shown(out: Path, pool: Path, mine: Path) -> None:
    write_report(
        Folder(str(mine)), manifest_of(out) | {"warnings": ["image_size dropped 9 of 9 samples"]}, open_pool(str(pool))
    )
    assert "image_size dropped 9 of 9 samples" in page(mine).text


def test_reasons_are_grouped_and_their_counts_add_up(out: Path) -> None:
    table = pq.read_table(out / "selection.parquet").to_pylist()
    ledger = read_ledger(str(out / "selection.parquet"), 6, 12)
    for name, groups in ledger.reasons.items():
        assert sum(n for _, n in groups) == sum(row["filter"] == name for row in table)
    assert ("boilerplate: 6 samples >= 5 share the caption '…'", 6) in ledger.reasons["near_duplicate_captions"]
    assert [text for text, _ in ledger.reasons["image_size"]] == ["30–40x30 pixels: shorter side < 64"]


def test_reasons_without_end_are_counted_together() -> None:
    groups = Groups()
    words = [f"{'abcdefghij'[n // 100]}{'abcdefghij'[n // 10 % 10]}{'abcdefghij'[n % 10]}" for n in range(1000)]
    codes, patterns = groups.add(pa.array(words))
    groups.add(pa.array([None, "value -3 < 5", "value 2.5 < 5", "value 4 < 5 is 'quoted 7'"]))
    top = groups.top()
    assert sum(n for _, n in top) == 1004 and len(top) <= PATTERNS + 1
    assert top[0][0] == OTHER and len(codes) == 1000 and patterns.count(OTHER) == 1000 - PATTERNS
    small = Groups()
    small.add(pa.array(["value -3 < 5", "value 2.5 < 5"]))
    assert small.top() == [("value -3–2.5 < 5", 2)]


def test_examples_are_of_the_filter_and_of_every_reason(out: Path) -> None:
    ledger = read_ledger(str(out / "selection.parquet"), 6, 12)
    rows = {row["uid"]: row for row in pq.read_table(out / "selection.parquet").to_pylist()}
    assert len(ledger.examples[""]) == 12
    for name, examples in ledger.examples.items():
        assert all((rows[v.uid]["filter"] or "") == name and rows[v.uid]["key"] == v.key for v in examples)
    unreadable = {verdict.reason for verdict in ledger.examples["unreadable"]}
    assert len(unreadable) >= 5, "one of each reason comes before a second of any"
    duplicates = ledger.examples["near_duplicate_images"] + ledger.examples["exact_duplicates"]
    assert duplicates and all(ledger.survivors[v.duplicate_of].kept for v in duplicates)


def test_examples_do_not_depend_on_order_or_batches(out: Path, tmp_path: Path) -> None:
    table = pq.read_table(out / "selection.parquet")
    by_shard = table.sort_by([("shard", "descending")])
    pq.write_table(by_shard, tmp_path / "other.parquet", row_group_size=3)
    first = read_ledger(str(out / "selection.parquet"), 3, 5)
    second = read_ledger(str(tmp_path / "other.parquet"), 3, 5)
    for name in first.examples:
        assert {v.uid for v in first.examples[name]} == {v.uid for v in second.examples[name]}
    assert first.reasons == second.reasons
    uids = pa.array(["b", "", "a", "b" * 200])
    assert uid_hash(uids).tolist() == uid_hash(pa.array(["x", *uids.to_pylist()]).slice(1)).tolist()
    assert len(set(uid_hash(uids).tolist())) == 4


def test_the_dropped_stands_beside_its_survivor(out: Path) -> None:
    text = (out / "report.html").read_text()
    pairs = re.findall(r'<figure class="sample pair">.*?</figure>', text, re.DOTALL)
    copy = next(found for found in pairs if "an exact copy of the first picture in town" in found)
    assert "a quiet picture number 0 of the old town" in copy
    assert copy.count("data:image/jpeg") == 2
    assert "same image file as a kept sample" in copy


def test_thumbnails_are_small_jpegs_and_broken_images_are_not_there(out: Path) -> None:
    found = page(out)
    sources = [attrs["src"] or "" for tag, attrs in found.elements if tag == "img"]
    assert len(sources) > 20
    for source in sources:
        image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert image.format == "JPEG" and max(image.size) <= 112
    text = (out / "report.html").read_text()
    broken = next(
        f for f in re.findall(r"<figure class=\"sample\">.*?</figure>", text, re.DOTALL) if "cut off in transit" in f
    )
    assert "no image" in broken and "<img" not in broken
    assert (out / "report.html").stat().st_size < 3_000_000


def test_the_same_dataset_gives_the_same_bytes(out: Path, pool: Path, mine: Path) -> None:
    manifest = manifest_of(out)
    measure = manifest["measure"] | {
        "seconds": 99.0,
        "shards_measured": 0,
        "images_decoded": 0,
        "features_measured": [],
    }
    funnel = [step | {"seconds": step["seconds"] + n} for n, step in enumerate(manifest["funnel"])]
    later = manifest | {"seconds": {"measure": 5.0, "select": 6.0, "write": 7.0}, "measure": measure, "funnel": funnel}
    write_report(Folder(str(mine)), later, open_pool(str(pool)))
    before, after = (out / "report.html").read_text(), (mine / "report.html").read_text()
    assert before != after and without_run(before) == without_run(after)


def test_histograms_count_every_readable_sample_once(out: Path, pool: Path) -> None:
    manifest, table = manifest_of(out), pq.read_table(out / "selection.parquet")
    titles = re.findall(
        r"<title>[^:<]*: (\d+) kept, (\d+) dropped here, (\d+) dropped by other", (out / "report.html").read_text()
    )
    charts = charts_of(steps_of(manifest), open_measured(manifest, open_pool(str(pool))).columns)
    known = {
        "shorter side, pixels",
        "aspect ratio, longer side to shorter",
        "brightness",
        "sharpness",
        "language probability",
    }
    assert known <= {chart.label for chart in charts}
    assert len({(chart.filter, chart.label) for chart in charts}) == len(charts)
    kept = manifest["selection"]["kept"]
    assert sum(int(kept_here) for kept_here, _, _ in titles) == kept * len(charts)
    here = {name: table["filter"].to_pylist().count(name) for name in {chart.filter for chart in charts}}
    assert sum(int(dropped) for _, dropped, _ in titles) == sum(here[chart.filter] for chart in charts)


def test_thresholds_part_kept_from_dropped(out: Path) -> None:
    text = (out / "report.html").read_text()
    article = next(a for a in re.findall(r"<article.*?</article>", text, re.DOTALL) if "<h3>aspect_ratio</h3>" in a)
    limit = float(re.search(r'class="line \w+" style="left:([\d.]+)%[^>]*><span>max 3<', article).group(1))  # type: ignore[union-attr]
    bars = re.findall(r"<g><title>[^<]*</title>((?:<rect[^>]*>)+)</g>", article)
    for bar in bars:
        left = float(re.search(r'x="([\d.]+)"', bar).group(1))  # type: ignore[union-attr]
        assert ('class="here"' in bar) <= (left >= limit - 0.01)
        assert ('class="kept"' in bar) <= (left < limit)


def test_without_features_it_says_what_it_cannot_show(out: Path, pool: Path, mine: Path, tmp_path: Path) -> None:
    empty = tmp_path / "no-cache"
    empty.mkdir()
    assert run(["report", str(mine), "--pool", str(pool), "--cache", str(empty)]) == 0
    found = page(mine)
    assert "cache does not hold these features" in found.text
    assert not [tag for tag, _ in found.elements if tag == "svg"]
    assert found.row("image_size")[3] == "2"


def test_without_the_pool_it_is_still_written(out: Path, mine: Path) -> None:
    manifest = manifest_of(mine)
    manifest["pool"]["url"] = str(mine / "gone")
    (mine / "manifest.json").write_text(json.dumps(manifest))
    assert run(["report", str(mine)]) == 0
    assert "could not be read" in page(mine).text or "cache does not hold" in page(mine).text


def test_a_users_filter_that_is_gone_is_still_reported(out: Path, pool: Path, mine: Path) -> None:
    text = json.dumps(manifest_of(out)).replace('"aspect_ratio"', '"gone.away:Filter"')
    table = pq.read_table(mine / "selection.parquet")
    names = ["gone.away:Filter" if name == "aspect_ratio" else name for name in table["filter"].to_pylist()]
    renamed = table.set_column(table.schema.get_field_index("filter"), "filter", pa.array(names))
    pq.write_table(renamed, mine / "selection.parquet")
    write_report(Folder(str(mine)), json.loads(text), open_pool(str(pool)))
    assert page(mine).row("gone.away:Filter")[3] == "1"
    assert "aspect ratio, longer side" not in page(mine).text and "brightness" in page(mine).text


def test_a_dataset_and_pool_on_a_store(out: Path, pool: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(f"{pool}/", "memory://report/pool/", recursive=True)
    memory.put(f"{out}/", "memory://report/out/", recursive=True)
    write_report(Folder("memory://report/out"), manifest_of(out), open_pool("memory://report/pool"))
    assert memory.cat_file("/report/out/report.html") == (out / "report.html").read_bytes()


def test_a_changed_pool_shows_no_wrong_picture(out: Path, pool: Path, mine: Path, tmp_path: Path) -> None:
    other = write_pool(tmp_path / "other", [pair(n) for n in (0, *range(701, 740))], per_shard=20)
    assert run(["filter", str(other), "--dry-run", "--workers", "1"]) == 0
    assert run(["report", str(mine), "--pool", str(other)]) == 0
    tags = [tag for tag, _ in page(mine).elements]
    assert "svg" not in tags and tags.count("img") <= 1, "only the first sample is the same"
    assert "no longer fit this selection" in page(mine).text


def test_evidence_is_told_in_words(mine: Path) -> None:
    evidence = {
        "task": "shapes & <colours>",
        "arms": [
            {"name": "no filter", "accuracy": 0.40, "interval": [0.37, 0.43], "samples": 100, "samples_seen": 1000,
             "seeds": 3, "per_seed": [0.39, 0.40, 0.41]},
            {"name": "curated", "accuracy": 0.55, "interval": [0.52, 0.58], "samples": 60, "samples_seen": 1000,
             "seeds": [0, 1, 2], "per_seed": [0.54, 0.55, 0.56]},
            {"name": "one seed", "accuracy": 0.5, "interval": [float("-inf"), float("inf")]},
        ],
        "comparisons": [
            {"a": "no filter", "b": "curated", "difference": 0.15, "interval": [0.11, 0.19], "verdict": "better"},
            {"a": "curated", "b": "one seed", "difference": -0.05, "interval": None, "verdict": "undecided"},
        ],
        "notes": "Equal compute.",
    }  # fmt: skip
    (mine / "evidence.json").write_text(json.dumps(evidence))
    assert run(["report", str(mine)]) == 0
    found = page(mine)
    assert "curated is better than no filter: +15.0 points (95 % interval +11.0 to +19.0)." in found.text
    assert "Undecided whether one seed differs from curated: −5.0 points" in found.text
    assert found.row("curated")[2:] == ["55.0 %", "52.0–58.0", "60", "1,000 (16.7×)", "3"]
    assert found.row("one seed")[2:] == ["50.0 %", "–", "–", "–", "–"]
    assert "Evidence: shapes & <colours>" in found.text and "Equal compute." in found.text


def test_planted_defects_have_a_recall_each(mine: Path) -> None:
    defects = {
        "defects": [
            {"defect": "blank", "planted": 10, "arrived": 9, "caught": 6, "missed": 3, "caught_at_download": 1,
             "by": {"image_quality": 5, "image_size": 1}},
            {"defect": "dead link", "planted": 4, "arrived": 0, "caught": 0, "missed": 0, "caught_at_download": 4},
        ],
        "good_lost": {"count": 2, "of": 50, "by": {"language": 2}},
        "notes": ["A copy may stand in for its original."],
    }  # fmt: skip
    (mine / "defects.json").write_text(json.dumps(defects))
    assert run(["report", str(mine)]) == 0
    found = page(mine)
    assert found.row("blank") == ["blank", "10", "1", "6", "3", "", "66.7 %", "image_quality 5, image_size 1"]
    assert found.row("dead link")[6] == "–"
    assert found.row("good samples lost")[1] == "50" and "4.0 %" in found.row("good samples lost")
    assert "6 of the 9 that arrived were caught" in found.text
    assert "A copy may stand in for its original." in found.text


@pytest.mark.parametrize("text", ["not json", "[]", '{"arms": []}', '{"arms": [{"name": 1}]}', '{"arms": 3}', '"x"'])
def test_a_broken_evidence_file_is_a_note(mine: Path, text: str) -> None:
    (mine / "evidence.json").write_text(text)
    (mine / "defects.json").write_text(text)
    assert run(["report", str(mine)]) == 0
    assert text == "[]" or "evidence.json is not" in page(mine).text


def test_report_of_no_dataset_is_a_wrong_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"curate: OUT: {tmp_path} holds no manifest.json")
