"""The feature cache: measured once, resumed, never stale, never a row lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curate.engines.local import LocalEngine
from curate.features.caption import Caption
from curate.features.clip import Clip
from curate.features.contract import Feature
from curate.features.image_info import ImageInfo
from curate.features.index import Index
from curate.features.phash import Phash
from curate.measure import ShardReport, measure_shard, read_features, shard_tasks, sidecar
from curate.measure_gpu import measure_on_gpu
from curate.pool import open_pool
from tests.conftest import messy_pairs, pair, write_pool, write_shard

SOME: tuple[Feature, ...] = (Index(), Caption(), ImageInfo())


def measure_all(pool: Path, *features: Feature) -> list[ShardReport]:
    return [measure_shard(task) for task in shard_tasks(open_pool(str(pool)), features or SOME)]


def test_every_sample_has_a_row_in_tar_order(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", messy_pairs())
    reports = measure_all(pool, *SOME, Phash())
    assert sum(report.samples for report in reports) == 40
    (first, *_) = shard_tasks(open_pool(str(pool)), SOME)
    assert read_features(first, ["key"])["key"].to_pylist() == [f"{n:06d}" for n in range(8)]


def test_what_cannot_be_read_is_null_with_an_error(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", messy_pairs())
    measure_all(pool, *SOME, Phash())
    rows = {}
    for task in shard_tasks(open_pool(str(pool)), (*SOME, Phash())):
        rows |= {row["key"]: row for row in read_features(task, ["key", "phash", "width", "error"]).to_pylist()}
    broken = {key: row["error"] for key, row in rows.items() if row["error"]}
    assert sorted(broken) == ["111-truncated", "112-text", "113-empty", "114-noimage", "115-nocaption"]
    assert broken["111-truncated"].startswith("image cannot be decoded: ")
    assert broken["112-text"].startswith("image cannot be opened: ")
    assert rows["111-truncated"]["width"] == 160 and rows["111-truncated"]["phash"] is None
    assert all(row["phash"] is not None for key, row in rows.items() if key not in broken)


def test_a_second_run_reads_no_image(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", messy_pairs())
    assert sum(r.images_decoded for r in measure_all(pool, Index(), Phash())) == 36
    assert sum(r.images_decoded for r in measure_all(pool, Index(), Phash())) == 0


def test_adding_a_feature_measures_only_that_one(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", messy_pairs())
    measure_all(pool)
    before = {p: p.stat().st_mtime_ns for p in pool.rglob("*.parquet")}
    reports = measure_all(pool, *SOME, Phash())
    assert {name for r in reports for name in r.measured} == {"phash"}
    assert before == {p: p.stat().st_mtime_ns for p in pool.rglob("*.parquet") if p in before}


def test_a_changed_shard_is_measured_again_and_a_touched_one_is_not(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", messy_pairs())
    measure_all(pool)
    shard = pool / "00000.tar"
    shard.touch()
    assert not any(report.measured for report in measure_all(pool))
    write_shard(shard, [pair(n) for n in range(100, 108)])
    assert [report.shard for report in measure_all(pool) if report.measured] == ["00000.tar"]
    assert read_features(shard_tasks(open_pool(str(pool)), SOME)[0], ["key"])["key"][0].as_py() == "000100"


def test_a_damaged_sidecar_is_measured_again(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", messy_pairs())
    measure_all(pool)
    file = pool / "_features" / sidecar(Index().folder, "00000.tar")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert measure_all(pool)[0].measured == ("index",)
    assert file.read_bytes() == whole


def test_nothing_half_written_is_left_by_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = write_pool(tmp_path / "pool", messy_pairs())

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(KeyboardInterrupt):
        measure_all(pool)
    assert list((pool / "_features").rglob("*.parquet*")) == []


def test_one_bad_sample_does_not_spoil_its_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = write_pool(tmp_path / "pool", [pair(n) for n in range(8)])
    honest = Caption.measure

    def stumbles(self: Caption, batch):  # type: ignore[no-untyped-def]
        if "picture number 5 " in " ".join(batch.texts):
            raise RuntimeError("cannot stomach this caption")
        return honest(self, batch)

    monkeypatch.setattr(Caption, "measure", stumbles)
    measure_all(pool)
    (task,) = shard_tasks(open_pool(str(pool)), SOME)
    errors = read_features(task, ["caption", "error"]).to_pylist()
    assert errors[5] == {"caption": None, "error": "caption failed: cannot stomach this caption"}
    assert all(row["error"] is None for n, row in enumerate(errors) if n != 5)


def test_workers_give_the_same_files(tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        pool = write_pool(tmp_path / f"pool{workers}", messy_pairs())
        engine = LocalEngine(workers)
        list(engine.map(measure_shard, shard_tasks(open_pool(str(pool)), (*SOME, Phash()))))
        engine.close()
        tables = {p.relative_to(pool): pq.read_table(p).replace_schema_metadata() for p in pool.rglob("*.parquet")}
        found.append({str(k): v.to_pylist() for k, v in tables.items()})
    assert found[0] == found[1] and len(found[0]) == 20


def test_uids_are_stable_and_tell_copies_apart(tmp_path: Path) -> None:
    same = [pair(1), pair(1, details={"uid": "given"}), pair(2), pair(2)]
    same[3].key = "other"
    for name in ("a", "b"):
        measure_all(write_pool(tmp_path / name, same))
    a, b = (read_features(shard_tasks(open_pool(str(tmp_path / n)), SOME)[0], ["uid"])["uid"].to_pylist() for n in "ab")
    assert a == b and a[1] == "given" and len(set(a)) == 4


def test_a_gpus_loader_measures_the_same(tmp_path: Path, tiny_clip: Path) -> None:
    clip = Clip(model=str(tiny_clip))
    pool = write_pool(tmp_path / "pool", messy_pairs(), per_shard=20)
    measure_all(pool, Index(), clip)
    expected = [read_features(task, [*clip.columns(), "error"]) for task in shard_tasks(open_pool(str(pool)), (clip,))]
    shutil.rmtree(pool / "_features" / clip.folder)
    tasks = shard_tasks(open_pool(str(pool)), (Index(), Caption()))
    for task in tasks:
        measure_shard(task)
    reports = list(measure_on_gpu(tasks, clip, workers=2, device="cpu"))
    assert [(r.shard, r.samples, r.measured) for r in reports] == [
        ("00000.tar", 20, ("clip",)),
        ("00001.tar", 20, ("clip",)),
    ]
    for task, before in zip(shard_tasks(open_pool(str(pool)), (clip,)), expected, strict=True):
        after = read_features(task, before.column_names)
        assert after["error"] == before["error"]
        for name in clip.columns():
            for a, b in zip(after[name].to_pylist(), before[name].to_pylist(), strict=True):
                assert (a is None) == (b is None) and (a is None or a == pytest.approx(b, abs=2e-3))
    assert [r.measured for r in measure_on_gpu(tasks, clip, workers=2, device="cpu")] == [(), ()]
