"""Which of a sample's captions a training learns from."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from trainer_samples import COLOURS, jpeg, write_tar

from trainer.captions import Draws, Texts, draw, listed, texts_of, uniform
from trainer.data import CachedData, caption, open_data
from trainer.model import build_tokenizer
from trainer.scales import SCALES, Scale
from trainer.shards import Sample, list_shards
from trainer.train import train

SAID = ["red", "a red thing", "something red"]


def sample(key: str = "7", **facts: Any) -> Sample:
    return Sample(key, {"txt": b"usual", "json": json.dumps(facts).encode()})


def pool(folder: Path, samples: int = 32) -> Path:
    """Samples of colours with three captions each, told apart by their words."""
    names = list(COLOURS)
    listed = [[{"caption": text.replace("red", names[n % 4]), "weight": 1} for text in SAID] for n in range(samples)]
    write_tar(
        folder / "0.tar",
        [
            (f"{n:03d}", {"jpg": jpeg(COLOURS[names[n % 4]], seed=n), "txt": b"usual",
                          "json": json.dumps({"captions": listed[n]}).encode()})
            for n in range(samples)
        ],
    )  # fmt: skip
    return folder


def test_captions_are_drawn_by_their_weights() -> None:
    facts = [{"caption": "one", "weight": 3}, {"caption": "other", "weight": 1}]
    texts = texts_of(sample(captions=facts), caption, several=True)
    assert (texts.texts, texts.weights) == (("one", "other"), (0.75, 0.25))
    times = Counter(draw(texts, 0, epoch) for epoch in range(2000))
    assert abs(times["one"] - 1500) < 80  # four deviations


def test_without_drawing_the_usual_caption_is_learned() -> None:
    listed = sample(captions=[{"caption": "one"}, {"caption": "other"}])
    assert texts_of(listed, caption, several=False).texts == ("usual",)
    assert texts_of(sample(), caption, several=True).texts == ("usual",)


@pytest.mark.parametrize(
    "captions", [None, 3, {}, [], ["one"], [{"caption": 1}], [{"caption": "  "}], [{"caption": "a", "weight": 0}],
                 [{"caption": "a", "weight": -1}], [{"caption": "a", "weight": True}],
                 [{"caption": "a", "weight": "2"}]],
)  # fmt: skip
def test_what_is_no_list_of_captions_is_passed_over(captions: Any) -> None:
    assert texts_of(sample(captions=captions), caption, several=True).texts == ("usual",)


def test_a_broken_json_has_no_captions() -> None:
    for broken in (b"{", b"[" * 100_000, b"\xff", b"[]", b'{"captions": [{"caption": "a", "weight": Infinity}]}'):
        assert listed(Sample("7", {"json": broken})) == []


@given(st.lists(st.lists(st.floats(0.01, 100), min_size=1, max_size=4), min_size=1, max_size=6), st.integers(0, 99))
def test_a_sample_alone_draws_what_it_draws_among_others(weights: list[list[float]], epoch: int) -> None:
    samples = [
        Texts(tuple(f"{n} {i}" for i in range(len(row))), tuple(w / sum(row) for w in row), n * 7919)
        for n, row in enumerate(weights)
    ]
    every = [text for one in samples for text in one.texts]
    together = [every[number] for number in Draws(samples).epoch(5, epoch)]
    assert together == [draw(one, 5, epoch) for one in samples]


def test_draws_are_even_over_keys_and_over_epochs() -> None:
    keys = np.arange(100_000, dtype=np.uint64)
    drawn = np.stack([uniform(keys, 1, epoch) for epoch in (0, 1)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert np.abs(np.histogram(drawn[0], 10, (0, 1))[0] - 10_000).max() < 400
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.02


def test_both_loaders_draw_the_same_caption_for_a_sample_in_an_epoch(tmp_path: Path, nano: Scale) -> None:
    scale = dataclasses.replace(nano, augment="none", captions="draw", samples_seen=96)  # three epochs
    shards = list_shards(str(pool(tmp_path)))
    seen = list[list[Counter[tuple[bytes, bytes]]]]()
    for cache_bytes in (1 << 20, 0):
        data = open_data(shards, dataclasses.replace(scale, cache_bytes=cache_bytes), build_tokenizer(scale))
        assert isinstance(data, CachedData) == bool(cache_bytes)
        pairs = [
            (image.numpy().tobytes(), row.numpy().tobytes())
            for batch in data.batches(scale, 3, 0)
            for image, row in zip(batch.images, batch.tokens, strict=True)
        ]
        seen.append([Counter(pairs[start : start + 32]) for start in (0, 32, 64)])
    assert seen[0] == seen[1]
    assert seen[0][0] != seen[0][1]


def test_a_resumed_training_draws_as_an_uninterrupted_one(tmp_path: Path, nano: Scale) -> None:
    def stop(record: dict[str, Any]) -> None:
        if record["step"] >= 6:  # a state is saved at step 5
            raise KeyboardInterrupt

    shards, scale = pool(tmp_path / "pool"), dataclasses.replace(nano, captions="draw", samples_seen=128)
    whole = train(shards, tmp_path / "whole", scale=scale)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "parts", scale=scale, progress=stop)
    parts = train(shards, tmp_path / "parts", scale=scale)
    usual = train(shards, tmp_path / "usual", scale=dataclasses.replace(scale, captions="first"))
    left, right, other = (load_file(next(one.checkpoint.glob("*.safetensors"))) for one in (whole, parts, usual))
    assert all((left[name] == right[name]).all() for name in left)
    assert any((left[name] != other[name]).any() for name in left)


def test_a_request_says_captions_only_where_they_are_drawn() -> None:
    tiny = SCALES["tiny"]
    assert "captions" not in tiny.as_dict()  # trainings from before the option are the same request
    assert dataclasses.replace(tiny, captions="draw").as_dict()["captions"] == "draw"
    with pytest.raises(ValueError, match="captions 'all' is neither first nor draw"):
        dataclasses.replace(tiny, captions="all")  # type: ignore[arg-type]
