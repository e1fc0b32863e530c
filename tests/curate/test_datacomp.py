"""Pools that are DataComp's metadata, and pools of tars that have it: the very uids that its own scripts keep."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.cli import run
from curate.pool import open_pool
from tests.conftest import encoded, pair, photo, write_pool
from tests.curate.datacomp_metadata import write_metadata

GOLDEN = {
    "datacomp-basic": (244, "57f5aa4e5d666537bad5fde78a98b32c3d56615d114a90087a83c60de9376d85"),
    "datacomp-clip-l14-30": (363, "32fe0fd5405727989d3f198683cf48ba3b256cf4c2a6d7b60aad5ce661ee4cfb"),
    "laion-2b": (69, "52242c1a5afea8af87689a49f84f67a446d380fae7cb8e948e6d79ec6f2e6b2d"),
}
"""Of the .npy files that DataComp's baselines write for this metadata: uids, and SHA-256.

Made by `python -m tests.experiments.datacomp_baselines DATACOMP --golden`, which runs the functions of its
baselines/apply_filter.py (with lid.176.ftz as the language model, the one that comes along here).
"""


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_metadata(tmp_path_factory.mktemp("datacomp") / "metadata", npz=False)


def curated(pool: Path, out: Path, *options: str) -> list[dict]:
    assert run(["filter", str(pool), str(out), "--workers", "1", *options]) == 0
    return pq.read_table(out / "selection.parquet").to_pylist()


@pytest.mark.parametrize("recipe", GOLDEN)
def test_a_built_in_recipe_keeps_what_datacomps_script_keeps(recipe: str, metadata: Path, tmp_path: Path) -> None:
    if recipe == "laion-2b":
        pytest.importorskip("gcld3")
    rows = curated(metadata, tmp_path / "out", "-r", recipe)
    count, digest = GOLDEN[recipe]
    subset = np.load(tmp_path / "out" / "subset.npy")
    assert len(subset) == sum(row["keep"] for row in rows) == count and len(rows) == 1200
    assert hashlib.sha256((tmp_path / "out" / "subset.npy").read_bytes()).hexdigest() == digest
    assert all(row["reason"] for row in rows if not row["keep"])


def test_metadata_alone_gets_verdicts_a_report_and_no_shards(
    metadata: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    caplog.set_level("INFO")
    curated(metadata, out, "-r", "datacomp-basic")
    assert "metadata only: no shards are written" in caplog.text
    assert f"subset: {out}/subset.npy" in capsys.readouterr().out
    assert sorted(file.name for file in out.iterdir()) == [
        "manifest.json", "report.html", "selection.parquet", "subset.npy",
    ]  # fmt: skip
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["shards"] == [] and manifest["measure"]["images_decoded"] == 0
    assert "Two dogs run across the wet grass" in (out / "report.html").read_text()
    uid = pq.read_table(out / "selection.parquet")["uid"][5].as_py()
    assert run(["explain", str(out), uid]) == 0
    assert "original" not in (said := capsys.readouterr().out) and uid in said
    curated(metadata, out, "-r", "datacomp-basic")
    assert "is up to date" in caplog.text


def test_a_subset_and_back(metadata: Path, tmp_path: Path) -> None:
    curated(metadata, tmp_path / "out", "-r", "datacomp-basic")
    assert run(["subset", str(tmp_path / "out"), str(tmp_path / "kept.npy")]) == 0
    assert (tmp_path / "kept.npy").read_bytes() == (tmp_path / "out" / "subset.npy").read_bytes()
    recipe = tmp_path / "again.yaml"
    recipe.write_text(f"filters: [uid_subset: {{file: {tmp_path}/kept.npy}}]")
    curated(metadata, tmp_path / "again", "-r", str(recipe))
    assert (tmp_path / "again" / "subset.npy").read_bytes() == (tmp_path / "kept.npy").read_bytes()
    assert run(["subset", str(tmp_path), "x.npy"]) == 2


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("default", "is metadata only, and image_stats needs the images; leave out the filters"),
        ("web-clip", "is metadata only, with the scores of ViT-B-32 and ViT-L-14 of openai, not of ViT-B-32"),
    ],
)
def test_what_needs_images_is_one_clear_line(
    recipe: str, said: str, metadata: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--set", "image_size.min_side=1"]
    assert run(["filter", str(metadata), str(tmp_path / "out"), "-r", recipe, *options]) == 2
    error = capsys.readouterr().err
    assert "curate: features." in error and error.count("curate: features.") == 1
    assert said in error or "needs the images" in error


def test_embeddings_come_from_the_npz(tmp_path: Path) -> None:
    folder = write_metadata(tmp_path / "metadata", rows=60, files=2)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "features: {clip: {model: ViT-B-32, pretrained: openai}}\n"
        "filters: [clip_score: {keep_fraction: 0.9}, diversity: {keep_fraction: 0.8, clusters: 3}]"
    )
    rows = curated(folder, tmp_path / "out", "-r", str(recipe))
    assert {row["filter"] for row in rows} == {None, "clip_score", "diversity"}
    (cached,) = (folder / "_features").glob("datacomp_vectors-*")
    for shard in sorted(folder.glob("*.npz")):
        table = pq.read_table(cached / f"{shard.stem}.parquet.parquet")
        assert np.array_equal(np.stack(table["clip_image"].to_pylist()), np.load(shard)["b32_img"])
        assert np.array_equal(np.stack(table["clip_text"].to_pylist()), np.load(shard)["b32_txt"])


def test_changed_embeddings_are_read_again_and_a_touched_file_is_not(tmp_path: Path) -> None:
    folder = write_metadata(tmp_path / "metadata", rows=20, files=1)
    (npz,) = folder.glob("*.npz")
    options = ["measure", str(folder), "--features", "clip", "--set", "features.clip.model=ViT-L-14",
               "--set", "features.clip.pretrained=openai", "--workers", "1"]  # fmt: skip
    measured = []
    for change in ("none", "touch", "values"):
        if change == "touch":
            npz.touch()
        elif change == "values":
            arrays = dict(np.load(npz))
            np.savez(npz, **{name: values + np.float16(1) for name, values in arrays.items()})
        assert run(options) == 0
        (sidecar,) = (folder / "_features").glob("datacomp_vectors-*/*.parquet")
        measured.append(sidecar.stat().st_mtime_ns)
    assert measured[0] == measured[1] != measured[2]


@pytest.mark.parametrize("damage", ["missing", "short", "objects", "text"])
def test_damaged_embeddings_are_named(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_metadata(tmp_path / "metadata", rows=20, files=1)
    (npz,) = folder.glob("*.npz")
    if damage == "missing":
        npz.unlink()
    elif damage == "text":
        npz.write_text("not a zip")
    else:
        rows: np.ndarray = np.zeros((3, 768), np.float16)
        rows = rows if damage == "short" else np.array([[{}] * 768] * 20, object)
        np.savez(npz, l14_img=rows, l14_txt=rows)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "features: {clip: {model: ViT-L-14, pretrained: openai}}\nfilters: [diversity: {keep_fraction: 0.8}]"
    )
    code = run(["filter", str(folder), str(tmp_path / "out"), "-r", str(recipe), "--workers", "1"])
    said = capsys.readouterr().err
    if damage in ("missing", "text"):
        assert code in (1, 2) and npz.name in said
    else:
        verdicts = pq.read_table(tmp_path / "out" / "selection.parquet").to_pylist()
        assert code == 0 and all(row["filter"] == "unreadable" and npz.name in row["reason"] for row in verdicts)


def test_a_damaged_parquet_is_one_unreadable_sample(tmp_path: Path) -> None:
    folder = write_metadata(tmp_path / "metadata", rows=90, files=3, npz=False)
    first, second, _ = sorted(folder.glob("*.parquet"))
    second.write_bytes(first.read_bytes()[:-20])
    rows = curated(folder, tmp_path / "out", "-r", "datacomp-basic")
    (lost,) = [row for row in rows if row["filter"] == "unreadable"]
    assert lost["reason"].startswith("unreadable metadata from row 0 on: ") and len(rows) == 61


def test_odd_columns_do_no_harm(tmp_path: Path) -> None:
    table = {
        "uid": ["ab" * 16, "x", None],
        "text": [None, "a red boat on the lake", ""],
        "original_width": [400.0, None, 3],
    }
    (tmp_path / "metadata").mkdir()
    pq.write_table(pa.table(table), tmp_path / "metadata" / "0.parquet")
    rows = curated(tmp_path / "metadata", tmp_path / "out", "-r", "datacomp-basic")
    assert [row["keep"] for row in rows] == [False] * 3 and rows[1]["reason"].startswith("not measured: ")
    assert [row["key"] for row in rows] == ["00000000", "00000001", "00000002"]


def test_other_parquet_files_are_no_pool(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pq.write_table(pa.table({"url": ["u"], "caption": ["c"]}), tmp_path / "pairs.parquet")
    assert run(["filter", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "holds no .tar shard" in capsys.readouterr().err


def tars_with_metadata(folder: Path) -> tuple[Path, Path]:
    """A pool as DataComp's downloader leaves it: small copies of the images, and the uid in the .json."""
    metadata = write_metadata(folder / "metadata", rows=30, files=2)
    uids = [uid for file in sorted(metadata.glob("*.parquet")) for uid in pq.read_table(file)["uid"].to_pylist()]
    pairs = [
        pair(n, "a small red boat on the lake", encoded(photo(n, (64, 48))), details={"uid": uid})
        for n, uid in enumerate([*uids[3:25], "f" * 32])
    ]
    return write_pool(folder / "pool", pairs), metadata


def test_tars_take_sizes_scores_and_embeddings_by_uid(tmp_path: Path) -> None:
    pool, metadata = tars_with_metadata(tmp_path)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "features: {clip: {model: ViT-L-14, pretrained: openai}}\n"
        "filters: [image_size: {min_side: 1}, clip_score: {min: -1}, diversity: {keep_fraction: 1, clusters: 2}]"
    )
    rows = curated(pool, tmp_path / "out", "-r", str(recipe), "--metadata", str(metadata))
    lost = [row for row in rows if not row["keep"]]
    assert [row["uid"] for row in lost] == ["f" * 32] and lost[0]["reason"] == "not measured: width, height"
    found = pa.concat_tables(pq.read_table(file) for file in sorted((tmp_path / "out" / "shards").glob("*.parquet")))
    files = sorted(metadata.glob("*.parquet"))
    truth = pa.concat_tables([pq.read_table(file) for file in files])
    place = {uid: n for n, uid in enumerate(truth["uid"].to_pylist())}
    at = [place[uid] for uid in found["uid"].to_pylist()]
    assert found["width"].to_pylist() == truth["original_width"].take(at).to_pylist()
    assert found["clip_score"].to_pylist() == truth["clip_l14_similarity_score"].take(at).to_pylist()
    vectors = np.concatenate([np.load(file.with_suffix(".npz"))["l14_img"] for file in files])
    assert np.array_equal(np.stack(found["clip_image"].to_pylist()), vectors[at])
    assert open_pool(str(pool)).metadata_only is False


def test_tars_without_the_folder_of_metadata_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pool, metadata = tars_with_metadata(tmp_path)
    command = ["filter", str(pool), str(tmp_path / "o"), "-r", "datacomp-basic"]
    assert run([*command, "--set", "features.datacomp.clip=l14"]) == 2
    assert "features.datacomp.metadata: " in capsys.readouterr().err
    shutil.rmtree(metadata)
    assert run([*command, "--metadata", str(metadata)]) == 2
    assert "holds no .parquet file" in capsys.readouterr().err
