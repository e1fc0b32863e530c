"""Text planted into real photos: what the text_in_image filter finds, and what it wrongly drops.

    python -m tests.experiments.text_in_image_table DATA [--photos 200]

DATA holds `photos.parquet` and `captioned.parquet`. Captions that people wrote are drawn into photos: as the
pair's caption they make a bad pair (the caption is merely the text), with another caption a good one.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from curate.features.batch import Batch
from curate.features.text_in_image import TextInImage
from curate.shards import Sample

BOUNDS = (0.5, 0.6, 0.7, 0.8)
HEIGHTS = (0.03, 0.04, 0.06, 0.09)
"""Of the letters, as shares of the photo's longer side."""


def planted(photo: Image.Image, words: list[str], height: float, seed: int) -> Image.Image:
    """The photo with some words drawn across it in lines, in a random place and colour."""
    random = np.random.default_rng(seed)
    image = photo.convert("RGB")
    font = ImageFont.load_default(max(8, round(max(image.size) * height)))
    draw = ImageDraw.Draw(image)
    lines, room = [""], image.width * 0.9
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) > room and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    left, top, right, bottom = draw.multiline_textbbox((0, 0), "\n".join(lines), font)
    place = [random.uniform(0.02, max(0.03, 0.98 - length)) for length in ((right - left) / image.width,
                                                                          (bottom - top) / image.height)]  # fmt: skip
    light = bool(random.integers(2))
    ink = tuple(int(v) for v in (random.integers(200, 256, 3) if light else random.integers(0, 56, 3)))
    where = (place[0] * image.width - left, place[1] * image.height - top)
    edge = "black" if light else "white"
    draw.multiline_text(where, "\n".join(lines), ink, font, stroke_width=1, stroke_fill=edge)
    return image


def overlaps(pairs: list[tuple[Image.Image | bytes, str]], feature: TextInImage) -> np.ndarray:
    """`caption_in_image` of some pairs, float (n,)."""
    samples = []
    for n, (image, caption) in enumerate(pairs):
        samples.append(
            Sample(str(n), 0, 0, memoryview(image if isinstance(image, bytes) else _jpeg(image)), 0, caption)
        )
    found = [feature.measure(Batch("00000.tar", samples[n : n + 64])) for n in range(0, len(samples), 64)]
    return np.concatenate([part["caption_in_image"].to_numpy(zero_copy_only=False) for part in found])


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--side", type=int, default=TextInImage().side)
    options = parser.parse_args()
    feature = TextInImage(side=options.side)
    photos = pq.read_table(options.data / "photos.parquet")["jpg"].to_pylist()[: options.photos]
    table = pq.read_table(options.data / "captioned.parquet").slice(0, options.photos).to_pylist()
    said = [row["captions"][0].removesuffix(" .") for row in table]
    slogans = [" ".join(caption.split()[:7]) for caption in said]
    print(f"{len(photos)} photos, longer side {options.side}\n")
    print("| pairs | caption_in_image: median |", *(f"dropped at {bound} |" for bound in BOUNDS))
    print("| --- | --- |", "--- |" * len(BOUNDS))

    def line(name: str, values: np.ndarray) -> None:
        shares = " | ".join(f"{(values > bound).mean():.1%}" for bound in BOUNDS)
        print(f"| {name} | {np.median(values):.2f} | {shares} |", flush=True)

    began = time.process_time()
    for height in HEIGHTS:
        drawn = [planted(Image.open(io.BytesIO(p)), slogans[n].split(), height, n) for n, p in enumerate(photos)]
        line(
            f"bad: caption drawn into its photo, letters {height:.0%} high",
            overlaps(list(zip(drawn, slogans, strict=False)), feature),
        )
        other = said[1:] + said[:1]
        line(f"good: other text drawn, {height:.0%} high", overlaps(list(zip(drawn, other, strict=False)), feature))
        more = [f"{slogan}, written across {caption.lower()}" for slogan, caption in zip(slogans, other, strict=True)]
        line(
            f"good: caption quotes the text and says more, {height:.0%}",
            overlaps(list(zip(drawn, more, strict=False)), feature),
        )
    line("good: photos as they are, captions of people", overlaps(list(zip(photos, said, strict=False)), feature))
    line(
        "good: photos with their own captions of people",
        overlaps([(row["jpg"], row["captions"][0]) for row in table], feature),
    )
    print(f"\n{time.process_time() - began:.0f} s of CPU time")


if __name__ == "__main__":
    main()
