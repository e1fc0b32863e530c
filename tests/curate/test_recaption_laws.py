"""What holds for any pool and any settings: no sample is lost, no image changes, and the counts add up."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from curate.engines import open_engine
from curate.pool import open_pool
from curate.recaption.run import recaption_pool
from curate.recaption.settings import parse_settings
from curate.shards import Sample, read_samples
from curate.storage import Folder
from tests.conftest import Pair, encoded, photo, write_pool
from tests.curate.test_recaption_command import ODD, PARROT, manifest

IMAGES = [*(encoded(photo(n, (40, 30))) for n in range(6)), encoded(photo(7, (40, 30)), "PNG"), b"broken", b"", None]
pairs = st.tuples(
    st.sampled_from(IMAGES),
    st.sampled_from([None, "a picture", "", 'with "signs" <b>\n\x00', "漢字 caption"]),
    st.sampled_from([{}, {"url": "http://x"}, {"caption": "told in json"}, {"uid": "u1", "captions": 3}]),
)
mixes = st.fixed_dictionaries({"choice": st.sampled_from(["ratio", "both", "replace"]), "ratio": st.floats(0, 1)})


def samples(folder: Path) -> list[Sample]:
    return [sample for path in sorted(folder.glob("*.tar")) for sample in read_samples(str(path))]


def digest(sample: Sample) -> str:
    return hashlib.sha256(bytes(sample.image or b"")).hexdigest()


@settings(max_examples=15)
@given(st.lists(pairs, min_size=1, max_size=9), mixes, st.integers(1, 3), st.sampled_from([None, "width > 10"]))
def test_laws(drawn: list[Any], mix: dict[str, Any], count: int, condition: str | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        given = [Pair(f"{n:03d}", image, text, details=more) for n, (image, text, more) in enumerate(drawn)]
        given = [pair for pair in given if pair.image is not None or pair.caption is not None or pair.details]
        if not given:
            return
        pool, out = write_pool(Path(scratch) / "pool", given, 4), Path(scratch) / "out"
        parrot = {"wrong": ["0", "1"], "fails": ["2", "3"], "backwards": count == 2}
        asked = parse_settings({"candidates": condition, "backend": {PARROT: parrot}, "checks": [ODD], "mix": mix,
                                "samples_per_image": count})  # fmt: skip
        engine = open_engine("local", 1)
        try:
            recaption_pool(open_pool(str(pool)), asked, Folder(str(out)), engine)
        except Exception as error:
            assert "no caption was written" in str(error)  # every request failed
            return
        finally:
            engine.close()
        before, after = samples(pool), samples(out / "shards")
        assert [(s.key, digest(s)) for s in after] == [(s.key, digest(s)) for s in before]
        counts = manifest(out)["counts"]
        changed = sum(a.text != b.text for a, b in zip(before, after, strict=True))
        assert counts["samples"] == len(before) and changed == counts["replaced"]
        assert counts["requests"] == counts["candidates"] * count
        assert counts["written"] + sum(counts["failed"].values()) == counts["requests"]
        assert counts["passed"] + sum(counts["refused"].values()) == counts["written"]
        none = counts["candidates"] - counts["replaced"] - counts["beside"] - sum(counts["kept"].values())
        assert 0 <= none <= sum(s.text is None for s in after)
