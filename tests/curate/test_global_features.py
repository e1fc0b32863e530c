"""Features that are fitted on the pool's columns: the same artifact for the same pool, and never a stale column."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from curate.artifacts import artifact_digest, load_artifact, save_artifact
from curate.curation import Measured, measure
from curate.engines.local import LocalEngine
from curate.errors import RequestError
from curate.features.contract import GlobalFeature, Known
from curate.global_features import sample_rows
from curate.measure import read_features
from curate.pool import open_pool
from curate.recipe import parse_recipe
from curate.storage import Folder
from tests.conftest import messy_pairs, pair, write_pool

ME = "tests.curate.test_global_features"
FITS: list[str] = []


class AboveMean(GlobalFeature):
    """`above_mean`: how much wider an image is than the pool's mean."""

    name: ClassVar = "above_mean"
    version: ClassVar = 1
    rows: int = 1000
    artifact: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return ("width",)

    @property
    def sample_rows(self) -> int:
        return self.rows

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"above_mean": pa.float64()})

    def fit(self, rows: pa.Table) -> dict[str, np.ndarray]:
        FITS.append(self.name)
        assert rows.column_names == ["uid", "width"] and rows["uid"].to_pylist() == sorted(rows["uid"].to_pylist())
        return {"mean": np.array(np.nanmean(rows["width"].to_numpy().astype(np.float64)))}

    def apply(self, artifact: dict[str, np.ndarray], rows: pa.Table) -> dict[str, pa.Array]:
        return {"above_mean": pa.compute.subtract(rows["width"].cast(pa.float64()), float(artifact["mean"]))}


class Rank(GlobalFeature):
    """`above_all`: above the largest of another global feature's column, less what that one was fitted to."""

    name: ClassVar = "rank"
    version: ClassVar = 1

    @property
    def reads(self) -> tuple[str, ...]:
        return ("above_mean",)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"above_all": pa.float64()})

    def fit_with(self, rows: pa.Table, known: Known) -> dict[str, np.ndarray]:
        assert len(rows) == 0 and rows.column_names == ["uid", "above_mean"]
        return {"mean": known.artifacts["above_mean"]["mean"]}

    def apply(self, artifact: dict[str, np.ndarray], rows: pa.Table) -> dict[str, pa.Array]:
        return {"above_all": pa.compute.add(rows["above_mean"].combine_chunks(), float(artifact["mean"]))}


def measured(pool: Path, workers: int = 1, **parameters: object) -> Measured:
    features = {f"{ME}:AboveMean": parameters, f"{ME}:Rank": {}}
    engine = LocalEngine(workers)
    try:
        return measure(open_pool(str(pool)), parse_recipe({"features": features}), engine)
    finally:
        engine.close()


def column(found: Measured, *names: str) -> list[dict]:
    return [row for task in found.tasks for row in read_features(task, names).to_pylist()]


def test_it_is_fitted_on_the_pool_and_applied_to_every_sample(tmp_path: Path) -> None:
    rows = column(measured(write_pool(tmp_path / "pool", messy_pairs())), "width", "above_mean", "above_all", "error")
    widths = [row["width"] for row in rows if row["width"] is not None]
    assert len(rows) == 40 and len(widths) == 37
    for row in rows:
        if row["width"] is None:
            assert row["above_mean"] is None and row["error"]
        else:
            assert row["above_mean"] == pytest.approx(row["width"] - np.mean(widths))
            assert row["above_all"] == pytest.approx(row["width"])


def test_nothing_is_fitted_or_applied_twice(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", messy_pairs())
    measured(pool)
    FITS.clear()
    files = {p: p.stat().st_mtime_ns for p in (pool / "_features").rglob("*.*")}
    assert measured(pool).as_dict()["features_measured"] == [] and FITS == []
    assert files == {p: p.stat().st_mtime_ns for p in (pool / "_features").rglob("*.*")}
    assert measured(pool, rows=7).as_dict()["features_measured"] == ["above_mean", "rank"] and FITS == ["above_mean"]


def test_another_pool_is_fitted_anew_and_a_saved_artifact_is_not(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", messy_pairs())
    before = measured(pool)
    (saved,) = (pool / "_features" / "_artifacts").glob("above_mean-*.npz")
    more = write_pool(tmp_path / "more", [*messy_pairs(), pair(200)])
    after, kept = measured(more), measured(more, artifact=str(saved))
    assert column(after, "above_mean")[0] != column(before, "above_mean")[0]
    assert column(kept, "above_mean")[:40] == column(before, "above_mean")
    with pytest.raises(RequestError, match=r"features.above_mean.artifact: no file 'gone.npz'"):
        measured(more, artifact="gone.npz")
    (tmp_path / "bad.npz").write_bytes(b"no arrays")
    with pytest.raises(RequestError, match=r"bad\.npz is no .npz of plain arrays"):
        measured(more, artifact=str(tmp_path / "bad.npz"))


def test_workers_give_the_same_files(tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        pool = write_pool(tmp_path / f"pool{workers}", messy_pairs())
        measured(pool, workers, rows=9)
        found.append({p.relative_to(pool) for p in (pool / "_features").rglob("*") if "above" in str(p)})
    assert found[0] == found[1] and len(found[0]) == 7  # five shards, their folder, and the artifact


@pytest.mark.parametrize("wanted", [1, 5, 39, 40, 100])
def test_the_sample_depends_on_the_uids_alone(tmp_path: Path, wanted: int) -> None:
    pairs, found = [pair(n) for n in range(40)], []
    for name, order, size in (("a", 1, 8), ("b", -1, 11)):
        tasks = measured(write_pool(tmp_path / name, pairs[::order], per_shard=size)).tasks
        found.append(sample_rows(LocalEngine(1), tasks, ["key", "width"], 40, wanted))
    assert found[0].to_pylist() == found[1].to_pylist() and len(found[0]) == min(wanted, 40)
    assert found[0]["uid"].to_pylist() == sorted(found[0]["uid"].to_pylist())


def test_a_circle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AboveMean, "reads", ("above_all",))
    with pytest.raises(RequestError, match="above_mean, rank read each other in a circle"):
        measured(write_pool(tmp_path / "pool", [pair(1)]))


def test_artifacts_are_whole_or_absent_and_known_by_their_values(tmp_path: Path) -> None:
    cache, arrays = Folder(str(tmp_path)), {"b": np.arange(6.0).reshape(2, 3), "a": np.array(["x"])}
    save_artifact(cache, "_artifacts/it.npz", arrays)
    again = load_artifact(cache, "_artifacts/it.npz")
    assert again is not None and artifact_digest(again) == artifact_digest(arrays)
    assert artifact_digest(arrays) != artifact_digest(arrays | {"b": arrays["b"].reshape(3, 2)})
    file = tmp_path / "_artifacts" / "it.npz"
    file.write_bytes(file.read_bytes()[:-30])
    assert load_artifact(cache, "_artifacts/it.npz") is None
    save_artifact(cache, "_artifacts/it.npz", {"evil": np.array([object()])})  # pickled: never loaded
    assert load_artifact(cache, "_artifacts/it.npz") is None
