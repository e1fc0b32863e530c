"""Writes evaluation tasks in the layout of CLIP_benchmark and DataComp's evaluation sets."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
Members = list[tuple[str, bytes]]


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

    def members() -> Iterator[Members]:
        for index, (image, label) in enumerate(images):
            if not 0 <= label < len(classnames):
                raise ValueError(f"images: item {index} is of class {label}, and there are {len(classnames)} names")
            yield [("jpg", image), ("cls", str(label).encode())]

    _write_classes(Path(folder), classnames, templates)
    if not _write_shards(Path(folder) / "test", members(), items_per_shard):
        raise ValueError("images: there is none")
    return Path(folder)


def write_task(
    folder: str | Path,
    settings: Mapping[str, Any],
    items: Iterable[Mapping[str, Any]],
    *,
    part: str = "test",
    items_per_shard: int = 10_000,
) -> Path:
    """Writes `task.json` and the items as `test/N.tar`, for any kind of task.

    Args:
        settings: the `kind` and what else the kind asks for; `classnames` and `templates` go into files of theirs.
        items: fields by name: bytes are JPEG images (`image`, `image_0`, ...), `captions` are lines of the `txt`,
            everything else goes into the `json`.
        part: the folder of the shards.

    Raises:
        ValueError: there is no item, or no kind.
    """
    settings, folder = dict(settings), Path(folder)
    if "kind" not in settings:
        raise ValueError("settings: a task needs its kind")
    folder.mkdir(parents=True, exist_ok=True)
    if "classnames" in settings:
        _write_classes(folder, settings.pop("classnames"), settings.pop("templates"))
    if not _write_shards(folder / part, map(_members, items), items_per_shard):
        raise ValueError("items: there is none")
    (folder / "task.json").write_text(json.dumps(settings, indent=2) + "\n")
    return folder


def _members(item: Mapping[str, Any]) -> Members:
    members, fields = Members(), dict[str, Any]()
    for name, value in item.items():
        if isinstance(value, bytes):
            members.append(("jpg" if name == "image" else f"{name}.jpg", value))
        elif name == "captions":
            members.append(("txt", "".join(f"{' '.join(line.split())}\n" for line in value).encode()))
        else:
            fields[name] = value
    return [*members, ("json", json.dumps(fields).encode())] if fields else members


def _write_classes(folder: Path, classnames: Sequence[str], templates: Sequence[str]) -> None:
    for template in templates:
        if "{c}" not in template:
            raise ValueError(f"templates: {template!r} has no {{c}}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CLASSNAMES).write_text("".join(f"{name}\n" for name in classnames))
    (folder / TEMPLATES).write_text("".join(f"{template}\n" for template in templates))


def _write_shards(folder: Path, items: Iterable[Members], items_per_shard: int) -> int:
    """Writes `N.tar` with the members of each item; returns how many items there were."""
    folder.mkdir(parents=True, exist_ok=True)
    tar: tarfile.TarFile | None = None
    index = -1
    try:
        for index, members in enumerate(items):
            if index % items_per_shard == 0:
                if tar:
                    tar.close()
                tar = tarfile.open(folder / f"{index // items_per_shard}.tar", "w")  # noqa: SIM115
            assert tar is not None
            for extension, content in members:
                member = tarfile.TarInfo(f"s{index:07d}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    finally:
        if tar:
            tar.close()
    return index + 1
