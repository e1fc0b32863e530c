"""Fixtures of the trainer's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from trainer_samples import SHARED_DATA, colour_samples, write_tar

from trainer.scales import Scale


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Threads that wait for each other cost more than such small models take, above all on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def nano() -> Scale:
    """A scale that trains in about a second: twelve steps of sixteen 32-pixel images."""
    model = {
        "embed_dim": 16,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        "custom_text": True,
    }
    return Scale(
        name="nano", model=model, samples_seen=192, batch_size=16, image_size=32, lr=2e-3, warmup=2,
        precision="fp32", augment="shift", resize_mode="squash", cache_bytes=1 << 20, workers=0, log_steps=3,
        save_steps=5,
    )  # fmt: skip


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Two shards with forty samples together."""
    folder = tmp_path / "colours"
    write_tar(folder / "00000.tar", colour_samples(25))
    write_tar(folder / "00001.tar", colour_samples(15, start=25))
    return folder


@pytest.fixture(scope="session")
def cifar10() -> Callable[[str, int], tuple[list[bytes], list[str]]]:
    """Reads the first images of CIFAR-10's "train" or "test" part and their class names."""
    if not (SHARED_DATA / "cifar10-train.parquet").is_file():
        pytest.skip("CIFAR-10 is not beside the checkout (../shared/data/cifar10-train.parquet)")
    import pyarrow.parquet as pq

    def read(part: str, count: int) -> tuple[list[bytes], list[str]]:
        table = pq.read_table(SHARED_DATA / f"cifar10-{part}.parquet", columns=["jpg", "label"]).slice(0, count)
        return table["jpg"].to_pylist(), table["label"].to_pylist()

    return read
