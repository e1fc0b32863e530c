import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trainer_samples import SHARED_DATA, jpeg

from trainer.images import augment, decode, open_image, to_square
from trainer.model import normalise
from trainer.scales import Scale
from trainer.shards import BadSampleError, Sample


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "CMYK"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (10, 8), (200, 10, 10)).convert(mode).save(file, "JPEG" if mode == "CMYK" else "PNG")
    image = open_image(file.getvalue())
    assert (image.mode, image.size) == ("RGB", (10, 8))


@pytest.mark.parametrize("data", [b"", b"GIF89a" + b"0" * 50, jpeg((1, 2, 3))[:300], b"\xff\xd8\xff\xe0" * 9])
def test_damaged_and_foreign_bytes_are_bad_samples(data: bytes) -> None:
    with pytest.raises(BadSampleError, match="undecodable image"):
        open_image(data)


def test_an_image_of_too_many_pixels_is_not_decoded() -> None:
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    with pytest.raises(BadSampleError, match="too many pixels"):
        open_image(file.getvalue())


def test_a_jpeg_is_decoded_at_the_smallest_scale_that_serves() -> None:
    data = jpeg((9, 9, 9), size=(400, 300))
    assert open_image(data).size == (400, 300)
    assert open_image(data, at_least=64).size == (100, 75)
    assert open_image(data, at_least=151).size == (400, 300)


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("size", [(40, 40), (90, 50), (33, 71)])
def test_squares_equal_what_open_clip_makes(nano: Scale, size: tuple[int, int], resize_mode: str) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    scale = dataclasses.replace(nano, resize_mode=resize_mode)
    image = open_image(jpeg((90, 120, 200), size=size))
    theirs = image_transform_v2(PreprocessCfg(size=32, resize_mode=resize_mode), is_train=False)(image)
    ours = normalise(torch.tensor(to_square(image, 32, resize_mode))[None], scale)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.shared_data
def test_decoding_a_large_photo_at_a_small_scale_changes_little(nano: Scale) -> None:
    path = SHARED_DATA / "photos.parquet"
    if not path.is_file():
        pytest.skip("the photos are not beside the checkout (../shared/data/photos.parquet)")
    import pyarrow.parquet as pq

    photos = pq.read_table(path, columns=["jpg"]).slice(0, 20)["jpg"].to_pylist()
    fast = np.stack([decode(Sample("0", {"jpg": data}), nano) for data in photos]).astype(float)
    full = np.stack([to_square(open_image(data), 32, "squash") for data in photos]).astype(float)
    assert np.abs(fast - full).mean() < 3  # of 255


def test_a_shift_moves_each_image_by_itself_and_is_repeatable(nano: Scale) -> None:
    images = np.tile(np.arange(32, dtype=np.uint8)[None, None, :, None] * 8, (64, 32, 1, 3))
    shifted = augment(images.copy(), nano, np.random.default_rng(0))
    assert np.array_equal(shifted, augment(images.copy(), nano, np.random.default_rng(0)))
    offsets = (shifted[:, 16, 16, 0].astype(int) - images[:, 16, 16, 0]) // 8
    assert set(offsets) == set(range(-4, 5))


def test_no_augmentation_and_mirroring(nano: Scale) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    plain = dataclasses.replace(nano, augment="none")
    assert np.array_equal(augment(images.copy(), plain, np.random.default_rng(0)), images)
    mirrored = augment(images.copy(), dataclasses.replace(plain, flip=True), np.random.default_rng(0))
    same = (mirrored == images).all((1, 2, 3))
    assert 16 < same.sum() < 48
    assert np.array_equal(mirrored[~same], images[~same, :, ::-1])


def test_crops_hold_nine_tenths_of_the_area(nano: Scale, tmp_path: Path) -> None:
    scale = dataclasses.replace(nano, augment="crop", resize_mode="shortest")
    sample = Sample("0", {"jpg": jpeg((200, 100, 50), size=(60, 50))})
    rng = np.random.default_rng(0)
    crops = [decode(sample, scale, rng) for _ in range(8)]
    assert all(crop.shape == (32, 32, 3) and crop.dtype == np.uint8 for crop in crops)
    assert any(not np.array_equal(crops[0], crop) for crop in crops[1:])
    assert np.array_equal(decode(sample, scale), to_square(open_image(sample.image), 32, "shortest"))
