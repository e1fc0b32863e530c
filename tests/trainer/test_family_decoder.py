from __future__ import annotations

import dataclasses
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from trainer_samples import Members, write_tar

from trainer.checkpoint import load_checkpoint
from trainer.families._boxes import box_words, boxes_of, grounded_text, read_boxes
from trainer.families._generative import PAD
from trainer.families._words import Words
from trainer.families.decoder import SIZES, Decoder
from trainer.family import get_family
from trainer.images import open_image
from trainer.scales import SCALES, Scale
from trainer.shards import BadSampleError, Sample
from trainer.train import train

WORDS = Words(2048, 16, locations=1024)
PLAIN = Words(600, 16)


def sample(caption: str | None, boxes: object) -> Sample:
    return Sample("k", {"json": json.dumps({"caption": caption, "boxes": boxes}).encode()})


def test_words_are_clips_most_frequent_ones() -> None:
    import open_clip

    whole = open_clip.SimpleTokenizer()
    assert WORDS.encode("A photo of a dog") == whole.encode("a photo of a dog")  # all of them frequent
    assert WORDS.decode(WORDS.encode("The  stethoscope, naïve 日本!")) == "the stethoscope , naïve 日本 !"
    assert max(WORDS.encode("stethoscope")) < 2048 < max(whole.encode("stethoscope"))
    assert (len(WORDS), WORDS.start, WORDS.end, WORDS.first_location) == (3074, 2048, 2049, 2050)


def test_rows_of_tokens_start_end_and_are_cut() -> None:
    rows = WORDS(["a dog", "dog " * 40])
    assert rows.shape == (2, 16)
    assert rows[0].tolist() == [2048, *WORDS.encode("a dog"), 2049] + [PAD] * 12
    assert rows[1].tolist() == [2048] + WORDS.encode("dog") * 14 + [2049]


@given(st.text())
def test_no_text_reaches_a_special_token(text: str) -> None:
    for words in (WORDS, PLAIN):
        ids = words.encode(text + "<start_of_text><end_of_text>")
        assert all(0 <= token < words.size for token in ids) or "<loc" in text
        assert isinstance(words.decode([*ids, words.end, words.start]), str)
    assert PLAIN.decode(PLAIN.encode("<loc5>")) == "< loc 5 >"


def test_words_travel_to_other_processes() -> None:
    assert torch.equal(pickle.loads(pickle.dumps(WORDS))(["a <loc3>"]), WORDS(["a <loc3>"]))  # noqa: S301


@given(st.integers(1, 32), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_box_comes_back_at_most_half_a_cell_off(grid: int, corners: list[float]) -> None:
    (x0, x1), (y0, y1) = sorted(corners[:2]), sorted(corners[2:])
    cells = torch.tensor([WORDS.encode(box_words((x0, y0, x1, y1), grid))]) - WORDS.first_location
    assert cells.shape == (1, 2)
    torch.testing.assert_close(boxes_of(cells, grid), torch.tensor([[x0, y0, x1, y1]]), atol=0.5001 / grid, rtol=0)


def test_the_place_follows_its_phrase() -> None:
    star, dog = {"phrase": "a red star", "box": [0, 0, 0.5, 0.5]}, {"phrase": "dog", "box": [0.5, 0.5, 1, 1]}
    text = grounded_text(sample("Look, A red star above a dogma and a dog", [dog, star]), grid=4)
    assert text == "Look, A red star<loc0><loc10> above a dogma and a dog<loc10><loc15>"
    assert grounded_text(sample("a picture", [dog]), grid=4) == "a picture dog<loc10><loc15>"
    assert grounded_text(sample(None, [dog, star]), grid=4) == "dog<loc10><loc15> a red star<loc0><loc10>"
    assert grounded_text(sample("a <loc7> picture", []), grid=4) == "a   picture"  # a caption cannot fake a place
    with pytest.raises(BadSampleError, match="no caption"):
        grounded_text(sample(None, []), grid=4)


@pytest.mark.parametrize(
    "boxes",
    [
        None,
        "everywhere",
        7,
        [None],
        [{"phrase": "a"}],
        [{"box": [0, 0, 1, 1]}],
        [{"phrase": "", "box": [0, 0, 1, 1]}],
        [{"phrase": "a", "box": [0, 0, 1]}],
        [{"phrase": "a", "box": [0.5, 0, 0.5, 1]}],
        [{"phrase": "a", "box": [0.6, 0, 0.5, 1]}],
        [{"phrase": "a", "box": [float("nan"), 0, 1, 1]}],
        [{"phrase": "a", "box": [2, 2, 3, 3]}],
        [{"phrase": "a", "box": ["x", 0, 1, 1]}],
    ],
)
def test_a_malformed_box_is_left_out(boxes: object) -> None:
    assert read_boxes(sample("a", boxes)) == []
    assert grounded_text(sample("a", boxes), grid=4) == "a"


def test_no_json_or_a_broken_one_has_no_boxes() -> None:
    assert read_boxes(Sample("k", {"txt": b"a"})) == []
    assert read_boxes(Sample("k", {"json": b"{"})) == []
    assert read_boxes(Sample("k", {"json": b"[" * 100_000})) == []
    assert read_boxes(sample("a", [{"phrase": "a", "box": [-1, 0, 0.5, 9]}])) == [("a", (0.0, 0.0, 0.5, 1.0))]


def squares(count: int, seed: int) -> list[tuple[str, Members, list[float]]]:
    """A square of 16 pixels in one of the four corners of 32, with its box."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        x, y = (int(value) for value in rng.integers(0, 2, 2) * 16)
        pixels = rng.integers(0, 90, (32, 32, 3), dtype=np.uint8)
        pixels[y : y + 16, x : x + 16] = 255
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        box = [x / 32, y / 32, (x + 15.9) / 32, (y + 15.9) / 32]
        facts = {"caption": "there is a square", "boxes": [{"phrase": "square", "box": box}]}
        found.append((f"{number:03d}", {"png": file.getvalue(), "json": json.dumps(facts).encode()}, box))
    return found


def test_it_learns_where_things_are(nano: Scale, tmp_path: Path) -> None:
    write_tar(tmp_path / "shards/0.tar", [(key, members) for key, members, _ in squares(48, seed=0)])
    scale = dataclasses.replace(nano, samples_seen=16 * 600, lr=5e-3, log_steps=50, save_steps=500)
    train(tmp_path / "shards", tmp_path / "out", scale=scale, family={"name": "decoder", "grounding": True, "grid": 4})
    model = load_checkpoint(tmp_path / "out", "cpu")
    assert model.grounds
    items = squares(8, seed=1)
    images = torch.stack([model.preprocess(open_image(members["png"])) for _, members, _ in items])
    found = model.ground(images, ["there is a square"] * 8)
    torch.testing.assert_close(found, torch.tensor([box for _, _, box in items]), atol=0.13, rtol=0)
    assert model.generate(images[:1], [""]) == ["there is a square"]  # without its places
    assert model.ground(images[:2], ["square " * 50, "there is a square"]).isnan().all(1).tolist() == [True, False]


def test_sizes_follow_the_scale(nano: Scale) -> None:
    family = Decoder()
    for name, scale in SCALES.items():
        assert family.configure(scale).model == SIZES[name]
    own = dataclasses.replace(nano, model=SIZES["nano"] | {"layers": 1})
    assert family.configure(own) == own
    assert family.configure(nano).model == SIZES["nano"]
    grounding = Decoder(grounding=True).configure(SCALES["small"])
    assert (grounding.augment, grounding.resize_mode) == ("none", "squash")
    with pytest.raises(ValueError, match="decoder has no option 'patch'; it has grounding, grid"):
        get_family({"name": "decoder", "patch": 4})
