"""Writes a zero-shot classification task in the layout of CLIP_benchmark and DataComp's evaluation sets."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"


def write_classification_task(
    folder: str | Path,
    images: Iterable[tuple[bytes, int]],
    classnames: Sequence[str],
    templates: Sequence[str],
    *,
    items_per_shard: int = 10_000,
) -> Path:
    """Writes `classnames.txt`, the templates and `test/N.tar`, with one image and one `.cls` per item.

    Args:
        images: encoded JPEG images with the index of their class.
        templates: sentences with `{c}` where the class name goes.

    Raises:
        ValueError: a class index has no name, a template has no `{c}`, or there is no image.
    """
    for template in templates:
        if "{c}" not in template:
            raise ValueError(f"templates: {template!r} has no {{c}}")
    folder = Path(folder)
    (folder / "test").mkdir(parents=True, exist_ok=True)
    (folder / CLASSNAMES).write_text("".join(f"{name}\n" for name in classnames))
    (folder / TEMPLATES).write_text("".join(f"{template}\n" for template in templates))
    tar: tarfile.TarFile | None = None
    index = -1
    for index, (image, label) in enumerate(images):
        if not 0 <= label < len(classnames):
            raise ValueError(f"images: item {index} is of class {label}, and there are {len(classnames)} names")
        if index % items_per_shard == 0:
            if tar:
                tar.close()
            tar = tarfile.open(folder / "test" / f"{index // items_per_shard}.tar", "w")  # noqa: SIM115
        assert tar is not None
        for extension, content in (("jpg", image), ("cls", str(label).encode())):
            member = tarfile.TarInfo(f"s{index:07d}.{extension}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    if tar is None:
        raise ValueError("images: there is none")
    tar.close()
    return folder
