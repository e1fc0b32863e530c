"""Blur: samples whose image shows faces get it encoded again with the faces made unrecognisable.

The only part of writing that touches an image: other members, and images without a face, are copied as they are.
"""

from __future__ import annotations

import hashlib
import io
import os
from io import FileIO

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.copying import Sink, copy_ranges
from curate.decode import open_image
from curate.errors import WorkError

READS = ("faces", "face_count", "image_offset", "image_size")
BLURRED = "blurred"
MARGIN = 0.2
"""Added to a face on each side, as a share of it: detectors leave out hair, ears and chin."""
CELLS = 5
"""What is left of a face: so many values across."""
QUALITY = 95
ORIENTATION = 0x0112
_BLOCK = 512


def copy_blurred(source: FileIO, sink: Sink, rows: pa.Table) -> pa.Table:
    """Write some samples of a shard, faces blurred; `rows` has `offset`, `length` and `READS`.

    Returns the rows with `blurred`, and with `image_size` and `sha256` of what was written.
    """
    offsets, lengths = rows["offset"].to_numpy(), rows["length"].to_numpy()
    shows = np.flatnonzero(rows["face_count"].fill_null(0).to_numpy() > 0)
    written: dict[int, bytes] = {}
    first = 0
    for place in [*shows.tolist(), len(rows)]:
        copy_ranges(source, sink, offsets[first:place], lengths[first:place])
        if place < len(rows):
            row = {name: rows[name][place].as_py() for name in ("offset", "length", *READS)}
            written[place] = _copy_one(source, sink, row)
        first = place + 1
    columns = {"image_size": [len(data) for data in written.values()],
               "sha256": [hashlib.sha256(data).hexdigest() for data in written.values()]}  # fmt: skip
    changed = np.isin(np.arange(len(rows)), shows)
    for name in (name for name in columns if name in rows.column_names):
        values = pa.array(columns[name], rows[name].type)
        new = pa.compute.replace_with_mask(rows[name].combine_chunks(), pa.array(changed), values)
        rows = rows.set_column(rows.column_names.index(name), name, new)
    return rows.append_column(BLURRED, pa.array(changed))


def blurred(data: bytes, faces: np.ndarray) -> bytes:
    """An image file with its faces blurred: the same size in pixels and, for JPEG, PNG and WebP, the same format.

    `faces`: x, y, width, height as shares of the image, float (n, 4). Other formats become PNG, an animation its
    first frame. What the file says besides is left out but for its colour profile and orientation. The same
    bytes for the same file and Pillow.
    """
    image = open_image(memoryview(data))
    kind = {"MPO": "JPEG"}.get(image.format or "", image.format) if image.format in ("JPEG", "MPO", "WEBP") else "PNG"
    profile, turned = image.info.get("icc_profile"), image.getexif().get(ORIENTATION)
    image.load()
    if image.mode not in ("L", "RGB", "RGBA"):
        alpha = image.mode in ("LA", "PA") or "transparency" in image.info
        profile = None if image.mode == "CMYK" else profile
        image = image.convert("RGBA" if alpha and kind != "JPEG" else "RGB")
    for x, y, width, height in faces:
        left, right = ((x + s * width) * image.width for s in (-MARGIN, 1 + MARGIN))
        top, bottom = ((y + s * height) * image.height for s in (-MARGIN, 1 + MARGIN))
        right, bottom = min(image.width, int(right) + 1), min(image.height, int(bottom) + 1)
        box = (max(0, int(left)), max(0, int(top)), right, bottom)
        face = image.crop(box)
        cells = face.resize((min(CELLS, face.width), min(CELLS, face.height)), Image.Resampling.BOX)
        image.paste(cells.resize(face.size, Image.Resampling.BICUBIC), box)
    exif = Image.Exif()
    if turned is not None:
        exif[ORIENTATION] = turned
    out = io.BytesIO()
    image.save(out, kind, quality=QUALITY, exif=exif.tobytes() if turned is not None else b"", icc_profile=profile)
    return out.getvalue()


def _copy_one(source: FileIO, sink: Sink, row: dict) -> bytes:
    """Write a sample's members, with another image in the place of its own."""
    start, end = row["offset"], row["offset"] + row["length"]
    header, image, size = row["image_offset"] - _BLOCK, row["image_offset"], row["image_size"]
    original = os.pread(source.fileno(), size, image)
    if len(original) != size:
        raise WorkError(f"{source.name} ended while it was copied; it changed since it was measured")
    data = blurred(original, np.array(row["faces"], float).reshape(-1, 4))
    after = image + -(-size // _BLOCK) * _BLOCK
    sink.write(os.pread(source.fileno(), header - start, start))
    sink.write(resized(os.pread(source.fileno(), _BLOCK, header), len(data)))
    sink.write(data + bytes(-len(data) % _BLOCK))
    sink.write(os.pread(source.fileno(), end - after, after))
    return data


def resized(header: bytes, size: int) -> bytes:
    """A tar member's header with another size in it.

    The size is 11 octal digits at byte 124; the checksum at 148 is the sum of all bytes, itself taken as spaces.
    """
    new = header[:124] + b"%011o\0" % size + header[136:148] + b" " * 8 + header[156:]
    return new[:148] + b"%06o\0 " % sum(new) + new[156:]
