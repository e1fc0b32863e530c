"""How well heads and prompts on a CLIP model's embeddings tell what they are meant to, on real images.

    python -m tests.experiments.clip_heads_auc DATA CHECKPOINT

DATA holds the CIFAR-10 and photo files; CHECKPOINT is a folder that `curate train` wrote, for example one of
`make demo`. Heads are trained on one part and judged on another, by the area under the ROC curve.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from curate.features.batch import Batch
from curate.features.clip import Clip
from curate.features.clip_heads import ClipHeads
from curate.features.clip_prompts import ClipPrompts
from curate.features.contract import Known
from curate.heads import embeddings, train_head
from curate.shards import Sample

ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")


def embedded(clip: Clip, images: list[bytes]) -> pa.Table:
    """The model's `clip_image` of some image files."""
    samples = [Sample(str(n), 0, 0, memoryview(image), 0, "") for n, image in enumerate(images)]
    parts = [clip.measure(Batch("00000.tar", samples[n : n + 64])) for n in range(0, len(samples), 64)]
    return pa.table({"clip_image": pa.chunked_array([part["clip_image"] for part in parts])})


def marked(image: bytes, seed: int) -> bytes:
    """A photo with a half transparent line of text across it, as agencies draw."""
    random, photo = np.random.default_rng(seed), Image.open(io.BytesIO(image)).convert("RGBA")
    layer = Image.new("RGBA", photo.size, (0, 0, 0, 0))
    words = str(random.choice(["SAMPLE IMAGE", "stockphoto", "PREVIEW ONLY", "(c) agency"]))
    font = ImageFont.load_default(photo.width // 9)
    place = (photo.width * random.uniform(0, 0.2), photo.height * random.uniform(0.3, 0.6))
    ImageDraw.Draw(layer).text(place, words, (255, 255, 255, int(random.integers(110, 200))), font)
    return _jpeg(Image.alpha_composite(photo, layer.rotate(float(random.uniform(-30, 30)))))


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=88)
    return out.getvalue()


def area(scores: np.ndarray, labels: np.ndarray) -> float:
    """The area under the ROC curve: how often one of the wanted scores above one of the others."""
    return float((scores[labels][:, None] > scores[~labels][None]).mean())


def judged(clip: Clip, folder: Path, train: list[bytes], wanted: np.ndarray, test: list[bytes], truth: np.ndarray,
           ) -> float:  # fmt: skip
    """Train a head on some images, write it to a file, and judge what the feature makes of others."""
    train_head(embeddings(embedded(clip, train)["clip_image"])[0], wanted, folder / "head.safetensors")
    rows = embedded(clip, test)
    heads = ClipHeads(heads={"score": str(folder / "head.safetensors")})
    artifact = heads.fit_with(rows.schema.empty_table(), Known(0, {}))
    return area(heads.apply(artifact, rows)["score"].to_numpy(zero_copy_only=False), truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("checkpoint")
    options = parser.parse_args()
    clip = Clip(model=options.checkpoint)
    train, test = (
        pq.read_table(options.data / f"cifar10-{part}.parquet").take(pa.array(range(0, count, count // 2000)))
        for part, count in (("train", 50_000), ("test", 10_000))
    )
    animal, truth = (np.isin(part["label"].to_numpy(), ANIMALS) for part in (train, test))
    images = test["jpg"].to_pylist()
    with tempfile.TemporaryDirectory() as name:
        found = judged(clip, Path(name), train["jpg"].to_pylist(), animal, images, truth)
        print(f"| animal or vehicle, CIFAR-10 | head, trained on 2000 images | {found:.3f} |", flush=True)
        rows = embedded(clip, images)
        lists = [[f"a photo of a {c}" for c in ANIMALS],
                 [f"a photo of a{c}" for c in ("n airplane", "n automobile", " ship", " truck")]]  # fmt: skip
        prompts = ClipPrompts.model_validate(
            {"scores": {"animal": dict(zip(("positive", "negative"), lists, strict=True))}}
        )
        artifact = prompts.fit_with(rows.schema.empty_table(), Known(0, {}, (clip,)))
        found = area(prompts.apply(artifact, rows)["animal"].to_numpy(zero_copy_only=False), truth)
        print(f"| animal or vehicle, CIFAR-10 | ten prompts, nothing trained | {found:.3f} |", flush=True)
        photos = pq.read_table(options.data / "photos.parquet")["jpg"].to_pylist()
        mixed = [marked(photo, n) if n % 2 else _jpeg(Image.open(io.BytesIO(photo))) for n, photo in enumerate(photos)]
        labels, half = np.arange(len(photos)) % 2 == 1, len(photos) // 2
        found = judged(clip, Path(name), mixed[:half], labels[:half], mixed[half:], labels[half:])
        print(f"| watermark drawn across, photos | head, trained on {half} photos | {found:.3f} |")


if __name__ == "__main__":
    main()
