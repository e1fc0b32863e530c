"""The three layouts of items, and what hostile ones come to."""

import io
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from task_models import Scripted, picture, write_jsonl
from trainer_samples import write_tar

from trainer.shards import BadSampleError
from trainer.tasks._items import Item, prepared, read_items
from trainer.tasks.contract import run_task, task_kinds


def read(folder: Path, prepare: Callable[[Item], Any]) -> tuple[list[tuple[str, Any]], Counter[str]]:
    skipped: Counter[str] = Counter()
    return list(prepared(str(folder), prepare, skipped)), skipped


def colour(item: Item, name: str = "image") -> int:
    return item.image(name).getpixel((0, 0))[0]  # type: ignore[index]


def test_web_dataset_members_are_fields(tmp_path: Path) -> None:
    members = {
        "jpg": picture(7), "image_1.png": picture(8), "txt": b"a cat\n\n a dog \n", "cls": b"3\n", "group.txt": b"left",
        "json": b'{"answer": "B", "label": 9}', "npy": b"not read",
    }  # fmt: skip
    write_tar(tmp_path / "test/0.tar", [("x/1", members)])
    (item,) = read_items(str(tmp_path), Counter())
    assert item.key == "x/1"
    assert item.fields == {"answer": "B", "label": "3", "captions": ["a cat", " a dog "], "group": "left"}
    assert (colour(item), colour(item, "image_1"), item.captions()) == (7, 8, ["a cat", "a dog"])


def test_json_lines_name_image_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a.png").write_bytes(picture(1))
    lines = ['{"key": "one", "image": "deep/a.png", "caption": "a cat"}', "", '{"image_0": "./deep/a.png"}']
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    first, second = read_items(str(tmp_path), Counter())
    assert (first.key, colour(first), first.captions()) == ("one", 1, ["a cat"])
    assert (second.key, colour(second, "image_0")) == ("0000002", 1)


def test_parquet_rows_hold_images(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "image_1": {"bytes": picture(4), "path": "4.png"}, "image_2": None, "options": "['x', 'y']"},
        {"id": "b", "image_1": None, "image_2": None, "options": "[]"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "validation-0.parquet")
    (tmp_path / "zz.parquet").write_bytes(b"PAR1 no, not at all")
    skipped: Counter[str] = Counter()
    first, second = read_items(str(tmp_path), skipped)
    assert (first.key, colour(first, "image_1"), first.texts("options")) == ("a", 4, ["x", "y"])
    assert (second.key, set(second.images)) == ("b", set())
    assert skipped == {"broken shard": 1}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), junk=st.binary(max_size=12), cut=st.booleans())
def test_damaged_columns_are_counted(tmp_path: Path, place: float, junk: bytes, cut: bool) -> None:
    rows = [{"id": str(n), "image_1": {"bytes": picture(n), "path": "x"}, "options": "['x', 'y']"} for n in range(40)]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    whole = file.getvalue()
    at = int(place * len(whole))
    (tmp_path / "test.parquet").write_bytes(whole[:at] + junk + (b"" if cut else whole[at + len(junk) :]))
    found, skipped = read(tmp_path, lambda item: (colour(item, "image_1"), item.texts("options")))
    assert len(found) == 40 or sum(skipped.values()) > 0 or any(key != str(n) for n, (key, _) in enumerate(found))


def test_a_folder_without_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no test/\*\.tar, no items.jsonl and no \*\.parquet"):
        list(read_items(str(tmp_path), Counter()))


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "/etc/passwd", "a/../../secret.png", "~/secret.png", "file:///etc/passwd", "C:\\x", "link.png",
     "..", "folder/secret.png"],
)  # fmt: skip
def test_no_image_is_read_outside_the_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.png").write_bytes(picture(1))
    (tmp_path / "task").mkdir()
    (tmp_path / "task/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "task/folder").symlink_to(tmp_path)
    (tmp_path / "task/items.jsonl").write_text(json.dumps({"image": path}))
    assert read(tmp_path / "task", colour) == ([], {"image outside the folder": 1})


@pytest.mark.parametrize("path", [None, 3, "", "missing.png", "folder", "pipe", "a\0b", "x" * 5000, "loop"])
def test_what_is_no_file_is_no_image(tmp_path: Path, path: object) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    (tmp_path / "items.jsonl").write_text(json.dumps({"image": path}))
    assert read(tmp_path, colour) == ([], {"no image": 1})


def test_images_of_absurd_size_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.tasks._items.MAX_MEMBER_BYTES", 1000)
    big, thin = io.BytesIO(), io.BytesIO()
    Image.effect_noise((64, 64), 90).save(big, "PNG")
    Image.new("RGB", (1, 500)).save(thin, "PNG")
    write_jsonl(tmp_path, {}, [{"image": big.getvalue()}, {"image": thin.getvalue()}, {"image": b"GIF89a"}])
    assert read(tmp_path, colour)[1] == {"member too large": 1, "too thin an image": 1, "undecodable image": 1}


def test_a_line_without_end_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.tasks._items.MAX_LINE_BYTES", 100)
    lines = ['{"caption": "a"}', '{"caption": "' + "x" * 350 + '"}', '{"caption": "b"}', "[" * 99]
    (tmp_path / "items.jsonl").write_text("\n".join(lines) + "\n")
    found, skipped = read(tmp_path, Item.captions)
    assert [captions for _, captions in found] == [["a"], ["b"]]
    assert skipped == {"line too long": 1, "no caption": 1}


@pytest.mark.parametrize(
    ("value", "texts"),
    [("['a', \"b\"]", ["a", "b"]), ('["a", "b"]', ["a", "b"]), (["a", 2], ["a", "2"]), ("a", ["a"]), (7, ["7"])],
)
def test_a_list_is_read_however_it_is_written(value: object, texts: list[str]) -> None:
    assert Item("k", {"options": value}, {}).texts("options") == texts


@pytest.mark.parametrize(
    "value",
    [None, "", [], [""], ["a", None], {"a": 1}, "[1, 2", "['a'] * 9", "[__import__('os').getcwd()]", "[" * 5000,
     [["a"]], True, "[" + "9" * 5000 + "]"],
)  # fmt: skip
def test_what_is_no_list_of_texts_is_a_bad_sample(value: object) -> None:
    with pytest.raises(BadSampleError):
        Item("k", {"options": value}, {}).texts("options")


def test_half_characters_do_not_reach_a_tokenizer() -> None:
    assert Item("k", {"t": "cat\ud83d"}, {}).text("t") == "cat?"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["A", "[", "['a']"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "captions", "caption", "caption_0", "caption_1", "question", "options", "answer", "answers", "template", "A", "B",
    "phrase", "box", "bbox", "present", "absent", "object", "text", "label", "objects", "group", "trained", "image",
    "image_0", "image_1",
]  # fmt: skip
OBJECTS = {"caption_hallucination": {"objects": {"cat": ["kitten"]}}}
GOOD: dict[str, Any] = {
    "image": picture(1), "image_0": picture(1), "image_1": picture(2), "captions": ["a cat"], "caption_0": "a",
    "caption_1": "b", "question": "what?", "options": ["a cat", "a dog"], "answer": "A", "phrase": "a cat",
    "box": [0, 0, 0.5, 0.5], "label": 0, "group": "g", "objects": ["cat"], "trained": True,
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {"hallucination": {"label": "yes", "object": "cat"}}


@pytest.mark.parametrize("kind", task_kinds())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(st.dictionaries(st.sampled_from(FIELDS), values, max_size=5), max_size=4))
def test_hostile_items_are_counted_and_never_crash(kind: str, items: list[dict[str, Any]], tmp_path: Path) -> None:
    """Good items with some fields replaced by anything, and items of nothing else."""
    good = GOOD | MORE.get(kind, {})
    hostile = [*({**good, **item} for item in items), *items]
    folder = write_jsonl(tmp_path, {"kind": kind} | OBJECTS.get(kind, {}), [good, good | {"trained": False}, *hostile])
    (folder / "classnames.txt").write_text("cat\ndog\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    model = Scripted(lambda n, text: len(text) / 7, lambda n, prompt: "a cat", lambda n, text: (0, 0, 0.5, 0.4))
    done = run_task(str(folder), model, 3)
    assert done.items >= 1
    if kind not in ("memorisation", "hallucination"):  # whose results count pairs and questions
        assert done.items + sum(done.skipped.values()) == 2 + len(hostile)
