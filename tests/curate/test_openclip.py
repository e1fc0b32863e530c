"""Running open_clip's models."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate import openclip

TEXTS = ["a dog", "", "a man rides a bicycle over a long bridge near the sea while two children watch him"]


def test_texts_cut_at_the_longest_of_a_batch_have_the_same_vectors(tiny_clip: Path) -> None:
    import torch

    model = openclip.load(str(tiny_clip), "", "cpu")
    inputs = openclip.prepare(str(tiny_clip), {}, [None] * 3, list(TEXTS))
    with torch.inference_mode():
        whole = torch.nn.functional.normalize(model.network.encode_text(inputs.tokens), dim=-1)
    _, found = openclip.encode(model, inputs, 16)
    assert found == pytest.approx(whole.numpy(), abs=1e-6)
    _, short = openclip.encode(model, openclip.prepare(str(tiny_clip), {}, [None], TEXTS[:1]), 16)
    assert short == pytest.approx(whole.numpy()[:1], abs=1e-6)


def test_a_tower_that_sees_what_follows_reads_the_whole_text(tiny_clip: Path) -> None:
    import open_clip
    import torch

    model = openclip.load(str(tiny_clip), "", "cpu")
    assert openclip._sees_only_before(model.network)
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1, "no_causal_mask": True}
    vision = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
    network = open_clip.CLIP(16, vision, text).eval()  # type: ignore[arg-type]
    inputs = openclip.prepare(str(tiny_clip), {}, [None] * 3, list(TEXTS))
    with torch.inference_mode():
        whole = torch.nn.functional.normalize(network.encode_text(inputs.tokens), dim=-1)
    assert not openclip._sees_only_before(network)
    _, found = openclip.encode(openclip.Model(network, torch.device("cpu"), {}), inputs, 16)
    assert found == pytest.approx(whole.numpy(), abs=1e-6)
