"""Heads and prompts on CLIP's embeddings, with real files, a real model and a real pool."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.cli import run
from curate.errors import RequestError
from curate.features.clip import Clip
from curate.features.clip_heads import ClipHeads
from curate.features.clip_prompts import ClipPrompts
from curate.features.contract import Known
from curate.heads import arranged, train_head
from curate.recipe import parse_recipe
from tests.conftest import Pair, encoded, photo, write_pool
from tests.curate.test_features import batch

VECTORS = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0][:6].astype(np.float16)


def table(vectors: np.ndarray = VECTORS, missing: tuple[int, ...] = ()) -> pa.Table:
    rows = [None if n in missing else row for n, row in enumerate(vectors)]
    return pa.table({"clip_image": pa.array(rows, pa.list_(pa.float16(), vectors.shape[1]))})


def applied(feature: ClipHeads, rows: pa.Table) -> dict[str, list]:
    artifact = feature.fit_with(rows.schema.empty_table(), Known(0, {}))
    return {name: column.to_pylist() for name, column in feature.apply(artifact, rows).items()}


def head(path: Path, **arrays: np.ndarray) -> str:
    if path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({name.replace("_", "."): np.ascontiguousarray(values) for name, values in arrays.items()}, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name.replace("_", "."): values for name, values in arrays.items()})
    else:
        import torch

        state = {name.replace("_", "."): torch.from_numpy(values) for name, values in arrays.items()}
        torch.save({"state_dict": state}, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
def test_a_linear_head_is_a_dot_product_in_any_file(tmp_path: Path, suffix: str) -> None:
    weight, bias = np.linspace(-1, 1, 16, dtype=np.float32)[None], np.array([0.5], np.float32)
    file = head(tmp_path / f"aesthetic{suffix}", weight=weight, bias=bias)
    found = applied(ClipHeads(heads={"aesthetic": file}), table(missing=(2,)))["aesthetic"]
    assert found[2] is None
    expected = VECTORS.astype(np.float64) @ weight[0] + 0.5
    assert [found[n] for n in (0, 1, 3)] == pytest.approx([expected[n] for n in (0, 1, 3)], abs=1e-5)


@pytest.mark.parametrize("relu", [False, True])
def test_layers_are_applied_as_torch_does_in_the_order_of_their_numbers(tmp_path: Path, relu: bool) -> None:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    linear = [torch.nn.Linear(a, b) for a, b in ((16, 12), (12, 8), (8, 8), (8, 1))]
    between = torch.nn.ReLU() if relu else torch.nn.Dropout(0.2)
    layers = [step for layer in linear for step in (layer, between)][:-1]
    model = torch.nn.ModuleDict({"layers": torch.nn.Sequential(*[torch.nn.Identity()] * 5, *layers)}).eval()
    save_file(model.state_dict(), tmp_path / "mlp.safetensors")  # layers.5, .7, .9 and .11: 11 comes last
    found = applied(ClipHeads(heads={"score": str(tmp_path / "mlp.safetensors")}, relu=relu), table())["score"]
    with torch.inference_mode():
        expected = model["layers"](torch.from_numpy(VECTORS.astype(np.float32)))[:, 0]
    assert found == pytest.approx(expected.tolist(), abs=1e-4)


def test_several_heads_are_columns_and_some_are_probabilities(tmp_path: Path) -> None:
    one = head(tmp_path / "one.npz", weight=np.full((1, 16), 900.0))
    heads = ClipHeads(heads={"aesthetic": one, "watermark": one}, sigmoid=("watermark",))
    found = applied(heads, table())
    assert heads.columns() == ("aesthetic", "watermark") == tuple(found)
    assert all((score > 0) == (odds > 0.5) and 0 <= odds <= 1 for score, odds in zip(*found.values(), strict=True))


def test_rows_are_scored_alone(tmp_path: Path) -> None:
    heads = ClipHeads(heads={"score": head(tmp_path / "one.npz", weight=np.linspace(0, 1, 16)[None])})
    alone = [applied(heads, table(VECTORS[n : n + 1]))["score"][0] for n in range(6)]
    assert applied(heads, table())["score"] == alone


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"bias": np.zeros(1)}, "no array is named weight or ends in .weight; there are bias"),
        ({"weight": np.zeros((2, 16))}, "its last layer gives 2 numbers, not one"),
        ({"weight": np.zeros((1, 16)), "bias": np.zeros(3)}, "no linear layer"),
        (
            {"0_weight": np.zeros((4, 16)), "1_weight": np.zeros((1, 5))},
            "takes 5 numbers, and the layer before gives 4",
        ),
        ({"weight": np.full((1, 16), np.nan)}, "numbers that are not finite"),
        ({"weight": np.zeros((1, 8))}, "takes vectors of 8 numbers, and the CLIP model gives 16"),
    ],
)
def test_a_file_that_is_no_head_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(RequestError, match=f"features.clip_heads.heads.score: .*{said}"):
        applied(ClipHeads(heads={"score": head(tmp_path / "head.npz", **arrays)}), table())


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    for name in ("head.pt", "head.npz"):
        (tmp_path / name).write_bytes(pickle.dumps({"weight": Trap()}))
        with pytest.raises(RequestError, match="is no head"):
            ClipHeads(heads={"score": str(tmp_path / name)}).weights_digest()
    np.savez(tmp_path / "objects.npz", weight=np.array([Trap()], object))
    with pytest.raises(RequestError, match="is no head"):
        ClipHeads(heads={"score": str(tmp_path / "objects.npz")}).weights_digest()
    assert not (tmp_path / "ran").exists()


def test_layers_need_no_bias() -> None:
    ((weight, bias),) = arranged({"weight": np.ones(3)})
    assert weight.shape == (1, 3) and bias.tolist() == [0]


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"clip_heads": {"heads": {"clip_score": "x.npz"}}}, "clip has a column 'clip_score' already; rename it"),
        ({"clip_heads": {"heads": {"my score": "x.npz"}}}, "'my score' cannot be a column"),
        ({"clip_heads": {"sigmoid": ["a"]}}, "sigmoid names a, which heads does not"),
        ({"clip_prompts": {"scores": {"a": {"positive": [], "negative": ["b"]}}}}, "scores.a.positive"),
        ({"clip_prompts": {"scores": {"a": {"positive": ["x"], "negative": ["b"]}},
          }, "clip_heads": {"heads": {"a": "x.npz"}}}, "has a column 'a' already; rename it"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_named(features: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        parse_recipe({"features": features})


def test_prompts_are_scored_as_zero_shot_classes(tiny_clip: Path) -> None:
    import torch

    clip = Clip(model=str(tiny_clip))
    rows = pa.table(clip.measure(batch((encoded(photo(1)), "a dog"), (encoded(photo(2)), "a cat"), (b"broken", ""))))
    prompts = ClipPrompts(scores={"dog": {"positive": ["a dog"], "negative": ["a cat"]}})  # type: ignore[dict-item]
    artifact = prompts.fit_with(rows.schema.empty_table(), Known(3, {}, (clip,)))
    found = prompts.apply(artifact, rows)["dog"].to_pylist()
    texts = np.array(rows["clip_text"].to_pylist()[:2], np.float32)  # the captions are the prompts
    logits = np.array(rows["clip_image"].to_pylist()[:2], np.float32) @ texts.T
    scale = clip.load().network.logit_scale.exp().item()
    expected = torch.from_numpy(logits * scale).softmax(dim=1)[:, 0]
    assert found[:2] == pytest.approx(expected.tolist(), abs=0.01) and found[2] is None
    with pytest.raises(RequestError, match=r"name it in features\.clip"):
        prompts.fit_with(rows.schema.empty_table(), Known(3, {}))


def test_a_trained_head_filters_a_pool(tiny_clip: Path, tmp_path: Path) -> None:
    """Even an untrained model's embedding tells reddish pictures from bluish ones, once a head is trained on it."""
    red = [n % 2 == 0 for n in range(120)]

    def picture(n: int) -> bytes:
        levels = np.asarray(photo(n, (64, 64)), float)
        levels[..., 0 if red[n] else 2] += 70
        return encoded(Image.fromarray(levels.clip(0, 255).astype(np.uint8)))

    images = [picture(n) for n in range(120)]
    clip = Clip(model=str(tiny_clip))
    vectors = np.array(clip.measure(batch(*((image, "") for image in images)))["clip_image"].to_pylist(), np.float32)
    train_head(vectors[:80], np.array(red[:80]), tmp_path / "red.safetensors")
    pool = write_pool(tmp_path / "pool", [Pair(f"{n:03d}", images[n], f"picture {n}") for n in range(80, 120)], 20)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"features:\n  clip: {{model: {tiny_clip}}}\n"
        f"  clip_heads: {{heads: {{red: {tmp_path / 'red.safetensors'}}}, sigmoid: [red]}}\n"
        f"  clip_prompts: {{scores: {{blue: {{positive: [a blue picture], negative: [a red picture]}}}}}}\n"
        f"filters:\n  - score: {{column: red, min: 0.5}}\n  - score: {{column: blue, min: 0}}\n"
    )
    assert run(["filter", str(pool), str(tmp_path / "out"), "-r", str(recipe), "--workers", "1"]) == 0
    kept = pq.read_table(tmp_path / "out" / "selection.parquet").to_pylist()
    right = np.mean([row["keep"] == red[int(row["key"])] for row in kept])
    assert right >= 0.9
    written = pq.read_table(next((tmp_path / "out" / "shards").glob("*.parquet")))
    assert written["red"].to_numpy().min() >= 0.5
    dropped = next(row for row in kept if not row["keep"])
    assert dropped["filter"] == "score" and dropped["reason"].startswith("red 0.")


def test_a_missing_head_ends_with_one_clear_line(
    tiny_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = write_pool(tmp_path / "pool", [Pair("0", encoded(photo(0)), "a picture")])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"features:\n  clip: {{model: {tiny_clip}}}\n  clip_heads: {{heads: {{red: nowhere.npz}}}}\n"
        "filters:\n  - score: {column: red, min: 0.5}\n"
    )
    assert run(["filter", str(pool), str(tmp_path / "out"), "-r", str(recipe), "--workers", "1"]) == 2
    assert "features.clip_heads.heads.red: no file 'nowhere.npz'" in capsys.readouterr().err
