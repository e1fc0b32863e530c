"""Small real pools for the tests: images are drawn, encoded and put into tars, never mocked."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# A test of one machine is the same on every other, however fast: no change is refused for an unlucky draw. New draws
# are for `pytest --hypothesis-profile=explore`: ten times as many, but where a test says how many itself.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None, derandomize=False, print_blob=True)
settings.load_profile("repeatable")

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A smooth random picture: different seeds look different, also to a perceptual hash."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", quality: int = 90) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, quality=quality)
    return out.getvalue()


@dataclass
class Pair:
    """A sample to be put into a shard."""

    key: str
    image: bytes | None
    caption: str | None
    suffix: str = "jpg"
    details: dict = field(default_factory=dict)


def pair(number: int, caption: str | None = None, image: bytes | None = None, **more: object) -> Pair:
    text = f"a quiet picture number {number} of the old town" if caption is None else caption
    return Pair(f"{number:06d}", encoded(photo(number)) if image is None else image, text, **more)  # type: ignore[arg-type]


def write_shard(path: Path, pairs: Sequence[Pair]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for item in pairs:
            members = {item.suffix: item.image, "txt": item.caption.encode() if item.caption is not None else None}
            if item.details:
                members["json"] = json.dumps(item.details).encode()
            for suffix, data in members.items():
                if data is not None:
                    info = tarfile.TarInfo(f"{item.key}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return path


def write_pool(folder: Path, pairs: Sequence[Pair], per_shard: int = 8) -> Path:
    for start in range(0, len(pairs), per_shard):
        write_shard(folder / f"{start // per_shard:05d}.tar", pairs[start : start + per_shard])
    return folder


def members(folder: Path) -> dict[str, bytes]:
    """The bytes of every tar member under a folder, by member name."""
    found = {}
    for path in sorted(folder.rglob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.name not in found, f"{member.name} stands twice"
                found[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return found


def messy_pairs() -> list[Pair]:
    """Forty samples with every defect that the built-in filters know, and some that cannot be read."""
    clean = [pair(n) for n in range(24)]
    first = clean[0].image or b""
    odd = [
        Pair("100-copy", first, "an exact copy of the first picture in town"),
        Pair("101-resaved", encoded(photo(1), quality=55), "the second picture saved again with less quality"),
        Pair("102-small", encoded(photo(2, (40, 30))), "a tiny copy of the third picture of the town"),
        Pair("103-banner", encoded(photo(103, (400, 70))), "a long banner across the top of the page"),
        Pair("104-blank", encoded(Image.new("RGB", (160, 120), "white")), "nothing but a white rectangle on the page"),
        Pair("105-dark", encoded(Image.new("RGB", (160, 120), (3, 3, 3))), "a photo taken in a very dark night"),
        Pair("106-german", encoded(photo(106)), "Ein rotes Haus steht neben einem großen alten Baum im Garten"),
        Pair("107-short", encoded(photo(107)), "photo"),
        Pair("108-digits", encoded(photo(108)), "1234567 89 4455 66778 990"),
        Pair("109-png", encoded(photo(109), "PNG"), "a picture of the market square saved as png", "png"),
        Pair("110-webp", encoded(photo(110), "WEBP"), "a picture of the market square saved as webp", "webp"),
        Pair("111-truncated", first[: len(first) // 2], "half of a picture that was cut off in transit"),
        Pair("112-text", b"<html>not an image</html>", "an error page saved with the name of a picture"),
        Pair("113-empty", b"", "an empty file saved with the name of a picture"),
        Pair("114-noimage", None, "a caption that lost the picture it belongs to"),
        Pair("115-nocaption", encoded(photo(115)), None),
    ]
    return clean + odd


@pytest.fixture(scope="session")
def messy_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("messy") / "pool", messy_pairs())


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a very small, untrained CLIP that open_clip loads."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])  # type: ignore[arg-type]
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def shared_data(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the real photos in {name}, which lie beside the checkout and are not here")
    return path
