"""Scores from cached embeddings against the papers' formulas written out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curate.errors import RequestError, WorkError
from curate.features.contract import Known
from curate.features.negcliploss import Negcliploss
from curate.features.normsim import Normsim
from curate.features.target_clusters import TargetClusters


def units(count: int, size: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, size))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def column(vectors: np.ndarray, missing: tuple[int, ...] = ()) -> pa.Array:
    rows = [None if n in missing else v for n, v in enumerate(vectors)]
    return pa.array(rows, pa.list_(pa.float16(), vectors.shape[1]))


def pairs(count: int, missing: tuple[int, ...] = (), seed: int = 0) -> pa.Table:
    image = units(count, 16, seed)
    text = units(count, 16, seed + 1).astype(np.float32) + image
    text = (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float16)
    uids = [f"u{n:03d}" for n in range(count)]
    return pa.table({"uid": uids, "clip_image": column(image, missing), "clip_text": column(text)})


def test_negcliploss_is_the_loss_of_the_batch() -> None:
    rows, feature = pairs(50), Negcliploss(temperature=0.07)
    score = feature.apply(feature.fit(rows), rows)["negcliploss"].to_numpy()
    image, text = (np.stack(rows[n].to_pylist()).astype(np.float64) for n in ("clip_image", "clip_text"))
    logits = image @ text.T / 0.07
    chosen = np.diag(logits)
    loss = -(2 * chosen - np.log(np.exp(logits).sum(1)) - np.log(np.exp(logits).sum(0))) / 2
    assert score == pytest.approx(-0.07 * loss, abs=1e-5)


def test_negcliploss_counts_a_sample_outside_the_batches_once() -> None:
    rows, feature = pairs(60), Negcliploss(batches=2, batch_size=8)
    artifact = feature.fit(rows)
    assert artifact["images"].shape == (2, 8, 16) and len(np.unique(artifact["uids"])) == 16
    score = feature.apply(artifact, rows)["negcliploss"].to_numpy()
    own = np.stack(rows["clip_image"].to_pylist()).astype(np.float64)[0], np.stack(rows["clip_text"].to_pylist())[0]
    sums = []
    from curate.hashing import uid_hashes

    me = uid_hashes(rows["uid"])[0]
    for images, texts, uids in zip(artifact["images"], artifact["texts"], artifact["uids"], strict=True):
        others = uids != me
        for query, base in ((own[0], texts), (own[1].astype(np.float64), images)):
            terms = [*(base[others].astype(np.float64) @ query), own[0] @ own[1]]
            sums.append(np.log(np.exp(np.array(terms) / 0.01).sum()))
    assert score[0] == pytest.approx(own[0] @ own[1] - 0.005 * sum(sums) / 2, abs=1e-5)


def test_negcliploss_of_a_pair_without_an_embedding_is_null() -> None:
    rows, feature = pairs(9, missing=(2,)), Negcliploss()
    artifact = feature.fit(rows)
    whole = feature.apply(artifact, rows)["negcliploss"]
    assert [n for n, v in enumerate(whole.to_pylist()) if v is None] == [2]
    parts = [feature.apply(artifact, rows.slice(n, 1))["negcliploss"][0].as_py() for n in range(9)]
    assert parts == pytest.approx(whole.to_pylist(), abs=1e-6, nan_ok=True)
    nothing = feature.fit(pairs(2, missing=(0, 1)))
    assert feature.apply(nothing, pairs(2, missing=(0, 1)))["negcliploss"].to_pylist() == [None, None]


@pytest.mark.parametrize(("p", "order"), [(2, 2), ("inf", np.inf)])
def test_normsim_is_the_norm_of_the_cosines(p: object, order: float) -> None:
    rows, feature = pairs(40, missing=(3,)), Normsim(p=p, target="t")  # type: ignore[arg-type]
    target = units(30, 16, seed=9)
    artifact = feature.fit_with(rows, Known(0, {}, targets={"t": pa.table({"clip_image": column(target)})}))
    found = feature.apply(artifact, rows)["normsim"].to_pylist()
    assert found[3] is None
    image = np.array([v for v in rows["clip_image"].to_pylist() if v is not None], np.float64)
    expected = np.linalg.norm(image @ target.astype(np.float64).T, ord=order, axis=1)
    assert [v for v in found if v is not None] == pytest.approx(expected, abs=5e-3)


def test_target_clusters_are_those_nearest_to_a_target_image() -> None:
    centroids, feature = np.eye(16, dtype=np.float32), TargetClusters(target="t")
    targets = {"t": pa.table({"clip_image": column(np.eye(16, dtype=np.float16)[[3, 3, 5]])})}
    known = Known(0, {"clusters": {"centroids": centroids}}, targets=targets)
    artifact = feature.fit_with(pa.table({}), known)
    rows = pa.table({"cluster": pa.array([3, 4, None, 5], pa.int32())})
    assert feature.apply(artifact, rows)["in_target_cluster"].to_pylist() == [True, False, None, True]


def test_what_does_not_fit_is_refused() -> None:
    rows, feature = pairs(4), Normsim(target="t")
    with pytest.raises(RequestError, match=r"features.normsim.target: name a target set that has clip_image"):
        feature.fit_with(rows, Known(0, {}))
    artifact = feature.fit_with(rows, Known(0, {}, targets={"t": pa.table({"clip_image": column(units(3, 8, 0))})}))
    with pytest.raises(WorkError, match="embeddings of 8 numbers in `target`, and clip_image has 16"):
        feature.apply(artifact, rows)
