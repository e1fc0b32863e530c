import dataclasses
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from trainer_samples import COLOURS, Members, colour_samples, jpeg, write_tar

from trainer.data import CachedData, StreamedData, map_in_order, open_data
from trainer.model import build_tokenizer
from trainer.scales import Scale
from trainer.shards import list_shards


def opened(folder: Path, scale: Scale) -> CachedData | StreamedData:
    return open_data(list_shards(str(folder)), scale, build_tokenizer(scale))


def drawn(data: CachedData | StreamedData, scale: Scale, **how: int) -> tuple[np.ndarray, np.ndarray]:
    """All images and tokens of a training, one row per sample."""
    batches = list(data.batches(scale, how.pop("seed", 0), how.pop("start", 0), **how))
    return torch.cat([b.images for b in batches]).numpy(), torch.cat([b.tokens for b in batches]).numpy()


@pytest.fixture
def plain(nano: Scale) -> Scale:
    """No augmentation, so that images can be told apart by their bytes."""
    return dataclasses.replace(nano, augment="none")


def test_every_epoch_sees_every_sample_once_in_another_order(colours: Path, plain: Scale) -> None:
    images, _ = drawn(opened(colours, plain), dataclasses.replace(plain, batch_size=20, samples_seen=120))
    seen = [image.tobytes() for image in images]
    first, second, third = seen[:40], seen[40:80], seen[80:]
    assert len(set(first)) == 40
    assert set(first) == set(second) == set(third)
    assert len({tuple(first), tuple(second), tuple(third)}) == 3


def test_a_batch_may_be_larger_than_the_data(colours: Path, plain: Scale) -> None:
    images, _ = drawn(opened(colours, plain), dataclasses.replace(plain, batch_size=100, samples_seen=100))
    assert sorted(Counter(image.tobytes() for image in images).values()) == [2] * 20 + [3] * 20


def test_images_keep_their_captions(colours: Path, plain: Scale) -> None:
    images, tokens = drawn(opened(colours, plain), plain)
    of_caption = {tuple(row): i for i, row in enumerate(build_tokenizer(plain)([*_captions()]).numpy())}
    names = list(COLOURS)
    for image, row in zip(images, tokens, strict=True):
        colour = names[of_caption[tuple(row)] % 4]
        assert np.abs(image.mean((0, 1)) - COLOURS[colour]).max() < 25


def _captions() -> list[str]:
    return [members["txt"].decode() for _, members in colour_samples(8)]


def test_batches_depend_only_on_seed_and_step(colours: Path, nano: Scale) -> None:
    data = opened(colours, nano)
    whole, tail = drawn(data, nano), drawn(data, nano, start=7)
    assert all(np.array_equal(a[7 * 16 :], b) for a, b in zip(whole, tail, strict=True))
    assert np.array_equal(whole[0], drawn(opened(colours, nano), nano)[0])
    assert not np.array_equal(whole[0], drawn(data, nano, seed=1)[0])


def test_processes_share_a_batch(colours: Path, plain: Scale) -> None:
    data = opened(colours, plain)
    whole, halves = drawn(data, plain)[0], [drawn(data, plain, rank=r, world=2)[0] for r in (0, 1)]
    together = np.concatenate([np.concatenate([h[i : i + 8] for h in halves]) for i in range(0, len(halves[0]), 8)])
    assert np.array_equal(whole, together)


def test_bad_samples_are_counted_and_left_out(tmp_path: Path, nano: Scale) -> None:
    good, image = colour_samples(3), jpeg(COLOURS["red"])
    bad: list[Members] = [{"jpg": image}, {"txt": b"red"}, {"jpg": b"no", "txt": b"red"}, {"jpg": image, "txt": b""}]
    write_tar(tmp_path / "0.tar", [*good, *((f"x{i}", members) for i, members in enumerate(bad))])
    for cache_bytes in (1 << 20, 0):
        data = opened(tmp_path, dataclasses.replace(nano, cache_bytes=cache_bytes))
        drawn(data, nano)
        assert data.report.skipped == {"no caption": 2, "no image": 1, "undecodable image": 1}
        assert data.report.unique == 3
        total = sum(int(hashlib.sha256(key.encode()).hexdigest(), 16) for key, _ in good)
        assert data.report.digest == f"{total % 2**256:064x}"


@pytest.mark.parametrize("cache_bytes", [1 << 20, 0])
def test_no_usable_sample_is_an_error(tmp_path: Path, nano: Scale, cache_bytes: int) -> None:
    write_tar(tmp_path / "0.tar", [("0", {"txt": b"red"})])
    with pytest.raises(ValueError, match=r"shards: no usable sample.*no image"):
        drawn(opened(tmp_path, dataclasses.replace(nano, cache_bytes=cache_bytes)), nano)


def test_what_does_not_fit_in_the_cache_is_streamed(colours: Path, nano: Scale) -> None:
    one = nano.image_size**2 * 3
    fits = opened(colours, dataclasses.replace(nano, cache_bytes=40 * one))
    assert isinstance(fits, CachedData)
    assert isinstance(opened(colours, dataclasses.replace(nano, cache_bytes=39 * one)), StreamedData)


@pytest.mark.parametrize("shuffle_buffer", [1, 8, 1000])
def test_a_stream_sees_every_sample_once_per_epoch(colours: Path, plain: Scale, shuffle_buffer: int) -> None:
    scale = dataclasses.replace(plain, cache_bytes=0, batch_size=20, samples_seen=80, shuffle_buffer=shuffle_buffer)
    data = opened(colours, scale)
    images, tokens = drawn(data, scale)
    seen = [image.tobytes() for image in images]
    assert len(set(seen[:40])) == 40
    assert set(seen[:40]) == set(seen[40:])
    assert shuffle_buffer == 1 or seen[:40] != seen[40:]
    cached = opened(colours, plain)
    assert data.report == cached.report
    assert set(map(bytes, tokens)) == set(map(bytes, drawn(cached, plain)[1]))


def test_a_stream_is_repeatable_and_its_seed_matters(colours: Path, nano: Scale) -> None:
    scale = dataclasses.replace(nano, cache_bytes=0)
    first, again = (drawn(opened(colours, scale), scale)[0] for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, drawn(opened(colours, scale), scale, seed=1)[0])


@pytest.mark.parametrize("parts", [2, 3])  # as many readers as shards, and more
def test_readers_of_a_stream_share_the_data(colours: Path, plain: Scale, parts: int) -> None:
    scale = dataclasses.replace(plain, cache_bytes=0, batch_size=parts, samples_seen=parts * 13)
    seen = [{i.tobytes() for i in drawn(opened(colours, scale), scale, rank=r, world=parts)[0]} for r in range(parts)]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 13 * parts


@pytest.mark.slow
def test_a_stream_read_by_worker_processes(colours: Path, plain: Scale) -> None:
    scale = dataclasses.replace(plain, cache_bytes=0, workers=2, batch_size=5, samples_seen=60)
    first, again = (drawn(opened(colours, scale), scale)[0] for _ in range(2))
    assert np.array_equal(first, again)
    assert len({image.tobytes() for image in first}) == 40


def test_results_keep_their_order() -> None:
    assert list(map_in_order(lambda i: i * i, range(1000), ahead=16)) == [(i, i * i) for i in range(1000)]
