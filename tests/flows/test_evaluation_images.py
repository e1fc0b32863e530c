"""Every image of a task is found, whatever its layout: what is missed is not kept out of the trainings."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.storage import Folder
from flows.evaluation_images import image_shards
from trainer.tasks.write import write_task


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "JPEG")
    return file.getvalue()


def images_of(shards: str) -> list[bytes]:
    found = []
    for shard in sorted(Path(shards.removeprefix("file://")).glob("*.tar")):
        with tarfile.open(shard) as tar:
            names = [name for name in tar.getnames() if name.endswith(".jpg")]
            assert len({name.split(".")[0] for name in names}) == len(names)  # one image a key
            found += [tar.extractfile(name).read() for name in names]  # type: ignore[union-attr]
    return found


def test_shards_with_an_image_each_are_taken_as_they_are(tmp_path: Path) -> None:
    items = [{"image": jpeg(n), "captions": ["a"]} for n in range(3)]
    task = write_task(tmp_path / "task", {"kind": "retrieval"}, items)
    write_task(task, {"kind": "retrieval"}, items, part="train")
    assert image_shards(str(task), Folder(str(tmp_path / "out"))) == str(task / "test")


def test_pairs_of_images_are_taken_apart(tmp_path: Path) -> None:
    items = [{"image_0": jpeg(2 * n), "image_1": jpeg(2 * n + 1), "caption_0": "a", "caption_1": "b"} for n in range(3)]
    task = write_task(tmp_path / "task", {"kind": "compositional"}, items, items_per_shard=2)
    assert images_of(image_shards(str(task), Folder(str(tmp_path / "out")))) == [jpeg(n) for n in range(6)]


def test_files_and_columns(tmp_path: Path) -> None:
    (tmp_path / "files/deep").mkdir(parents=True)
    for n, name in enumerate(["a.jpg", "deep/b.jpg"]):
        (tmp_path / "files" / name).write_bytes(jpeg(n))
    (tmp_path / "columns").mkdir()
    rows = [
        {"image_1": {"bytes": jpeg(n), "path": "x"}, "image_2": {"bytes": jpeg(n + 5), "path": "y"}} for n in (0, 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "columns/test.parquet")
    files = images_of(image_shards(str(tmp_path / "files"), Folder(str(tmp_path / "a"))))
    columns = images_of(image_shards(str(tmp_path / "columns"), Folder(str(tmp_path / "b"))))
    assert files == [jpeg(0), jpeg(1)]
    assert sorted(columns) == sorted(jpeg(n) for n in (0, 1, 5, 6))
