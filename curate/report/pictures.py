"""Samples as a page shows them: the caption, and a thumbnail made from nothing but the sample's own bytes."""

from __future__ import annotations

import base64
import io
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from PIL import Image, ImageOps

from curate.decode import FORMATS, to_mode
from curate.metadata.shards import caption_at, is_metadata
from curate.report.ledger import Verdict
from curate.report.measured import Measured
from curate.shards import Sample, read_samples

SIDE = 112
QUALITY = 70
MAX_BYTES = 32 << 20
"""A sample of more bytes than this gets no thumbnail."""
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Picture:
    """A sample's caption, and its thumbnail as a data: URI; None where there is no image that can be shown."""

    caption: str | None
    thumbnail: str | None
    width: int = 0
    height: int = 0


@dataclass
class Pictures:
    """Finds samples in their shards by the `index` feature, and reads only their bytes."""

    measured: Measured
    _index: dict[str, pa.Table | None] = field(default_factory=dict)

    def of(self, verdict: Verdict) -> Picture:
        """The picture of a sample. Never fails: what cannot be read is left out."""
        sample = self.sample(verdict)
        if sample is None:
            return Picture(None, None)
        made = thumbnail(bytes(sample.image)) if sample.image is not None else None
        return Picture(sample.text, *made) if made else Picture(sample.text, None)

    def sample(self, verdict: Verdict) -> Sample | None:
        """Read a sample's own tar blocks; None if the index is gone or no longer fits the pool."""
        place = self._place(verdict)
        if place is None or place[1] > MAX_BYTES:
            return None
        pool = self.measured.pool.folder
        if is_metadata(verdict.shard):
            return Sample(verdict.key, place[0], 0, text=caption_at(pool, verdict.shard, place[0]), uid=verdict.uid)
        try:
            data = pool.fs.cat_file(pool.path(verdict.shard), start=place[0], end=sum(place))
            with tempfile.TemporaryDirectory() as scratch:
                file = Path(scratch) / "sample.tar"
                file.write_bytes(data)
                return next(read_samples(str(file)), None)
        except OSError:
            return None

    def _place(self, verdict: Verdict) -> tuple[int, int] | None:
        """Where the sample's blocks begin in its shard, and their length in bytes."""
        if verdict.shard not in self._index:
            if len(self._index) >= 4:
                self._index.pop(next(iter(self._index)))
            self._index[verdict.shard] = self.measured.read(verdict.shard, ["uid", "offset", "length"])
        table = self._index[verdict.shard]
        if table is None or verdict.row >= len(table) or table["uid"][verdict.row].as_py() != verdict.uid:
            return None
        return table["offset"][verdict.row].as_py(), table["length"][verdict.row].as_py()


def thumbnail(data: bytes, side: int = SIDE) -> tuple[str, int, int] | None:
    """A JPEG data: URI at most `side` pixels wide and high, and its size; None if the image cannot be shown."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            return None
        image.draft("RGB", (2 * side, 2 * side))
        small = to_mode(image, "RGB")
        small.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=2.0)
        small = ImageOps.exif_transpose(small)
        out = io.BytesIO()
        small.save(out, "JPEG", quality=QUALITY)
    except Exception:  # hostile bytes: a codec may raise anything
        return None
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode(), small.width, small.height
