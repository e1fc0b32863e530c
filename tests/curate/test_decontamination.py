"""Evaluation sets from end to end: their shards without captions are read, measured, and found in a pool."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.cli import run
from tests.conftest import encoded, pair, photo, shared_data, write_pool


def evaluation_set(folder: Path, images: dict[str, bytes], suffix: str = "webp") -> Path:
    """Shards as benchmarks of CLIP models have them: an image and a class number, no caption."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for key, data in images.items():
            for name, content in ((f"{key}.{suffix}", data), (f"{key}.cls", b"3")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder


def decide(pool: Path, out: Path, recipe: str, *more: str) -> dict[str, str | None]:
    """Run a recipe: key to reason of what it dropped."""
    file = out.with_suffix(".yaml")
    file.write_text(recipe)
    assert run(["filter", str(pool), str(out), "-r", str(file), *more]) == 0
    rows = pq.read_table(out / "selection.parquet").to_pylist()
    return {row["key"]: row["reason"] for row in rows if not row["keep"]}


@pytest.fixture
def evals(tmp_path: Path) -> Path:
    images = {f"s{n:07d}": encoded(photo(n), "WEBP") for n in range(100, 110)}
    return evaluation_set(tmp_path / "wds_things" / "test", images | {"broken": b"no image"})


def test_evaluation_shards_without_captions_are_found_in_a_pool(tmp_path: Path, evals: Path) -> None:
    pool = write_pool(tmp_path / "pool", [pair(n) for n in range(20)] + [pair(n) for n in (103, 107)])
    dropped = decide(pool, tmp_path / "out", f"filters: [decontamination: {{against: {evals}}}]")
    assert set(dropped) == {"000103", "000107"}
    assert str(dropped["000103"]).endswith("bits from wds_things/test/s0000103, <= 8")
    # measured once, in the set's own cache; a changed set is another answer
    before = sorted((evals / "_features").rglob("*.parquet"))
    assert before and decide(pool, tmp_path / "again", f"filters: [decontamination: {{against: {evals}}}]") == dropped
    assert sorted((evals / "_features").rglob("*.parquet")) == before
    assert run(["filter", str(pool), str(tmp_path / "out"), "-r", str(tmp_path / "out.yaml")]) == 0  # up to date
    with tarfile.open(evals / "1.tar", "w") as tar:
        info = tarfile.TarInfo("s0000200.jpg")
        info.size = len(data := encoded(photo(5)))
        tar.addfile(info, io.BytesIO(data))
    more = decide(pool, tmp_path / "more", f"filters: [decontamination: {{against: {evals}}}]")
    assert set(more) == {"000005", "000103", "000107"}
    assert run(["filter", str(pool), str(tmp_path / "out"), "-r", str(tmp_path / "out.yaml")]) == 2  # another request


def test_by_embedding_and_from_files(tmp_path: Path, evals: Path, tiny_clip: Path) -> None:
    pool = write_pool(tmp_path / "pool", [pair(n) for n in range(8)] + [pair(103)])
    model = ("--set", f"features.clip.model={tiny_clip}")
    by_cosine = "max_distance: null, min_cosine: 0.99999"
    whole = decide(pool, tmp_path / "a", f"filters: [decontamination: {{against: {pool}, {by_cosine}}}]", *model)
    assert set(whole) == {f"{n:06d}" for n in (*range(8), 103)}
    (sidecar,) = (pool / "_features").glob("clip-*/00001.parquet")
    vectors = pq.read_table(sidecar, columns=["clip_image"])
    np.save(tmp_path / "set.npy", np.array(vectors["clip_image"].to_pylist(), np.float32))
    found = decide(
        pool, tmp_path / "b", f"filters: [decontamination: {{against: {tmp_path}/set.npy, {by_cosine}}}]", *model
    )
    assert "000103" in found and str(found["000103"]).endswith("to set.npy/0, >= 1.000")


def test_hashes_from_a_table(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", [pair(n) for n in range(4)])
    assert run(["measure", str(pool), "--features", "phash"]) == 0
    (sidecar,) = (pool / "_features").glob("phash-*/00000.parquet")
    hashes = pq.read_table(sidecar, columns=["phash"]).slice(2, 1)
    pq.write_table(hashes.append_column("key", pa.array(["cat"])), tmp_path / "set.parquet")
    dropped = decide(pool, tmp_path / "out", f"filters: [decontamination: {{against: {tmp_path}/set.parquet}}]")
    assert dropped == {"000002": "phash 0 bits from set.parquet/cat, <= 8"}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("gone.parquet", "no file"),
        ("bad.parquet", "is no Parquet file"),
        ("other.parquet", "has none of the columns phash"),
        ("bad.npy", "is no .npy of plain numbers"),
    ],
)
def test_a_wrong_target_is_one_clear_line(
    tmp_path: Path, file: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = write_pool(tmp_path / "pool", [pair(0)])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY")
    pq.write_table(pa.table({"name": ["x"]}), tmp_path / "other.parquet")
    (tmp_path / "r.yaml").write_text(f"filters: [decontamination: {{against: {tmp_path}/{file}}}]")
    assert run(["filter", str(pool), str(tmp_path / "out"), "-r", str(tmp_path / "r.yaml")]) == 2
    assert said in capsys.readouterr().err


def test_cifar_test_images_among_training_images_are_found(tmp_path: Path) -> None:
    """500 test images, saved again at other sizes and qualities, among 2,000 training images."""
    train = pq.read_table(shared_data("cifar10-train.parquet")).slice(0, 2000)["jpg"].to_pylist()
    test = pq.read_table(shared_data("cifar10-test.parquet")).slice(0, 500)["jpg"].to_pylist()
    evals = evaluation_set(tmp_path / "cifar10" / "test", {f"s{n:07d}": data for n, data in enumerate(test)}, "jpg")

    def changed(number: int, data: bytes) -> bytes:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return [data, encoded(image, quality=60), encoded(image.resize((64, 64))), encoded(image, "PNG")][number % 4]

    pool = write_pool(
        tmp_path / "pool",
        [pair(n, image=data) for n, data in enumerate(train)]
        + [pair(10_000 + n, image=changed(n, data)) for n, data in enumerate(test)],
        per_shard=1000,
    )
    dropped = decide(pool, tmp_path / "out", f"filters: [decontamination: {{against: {evals}}}]", "--workers", "1")
    planted = {key for key in dropped if int(key) >= 10_000}
    assert len(planted) >= 495
    assert all(
        str(dropped[key]).split(", <=")[0].endswith(f"s{int(key) - 10_000:07d}") for key in sorted(planted)[:100:4]
    )
    assert len(dropped) - len(planted) <= 20
