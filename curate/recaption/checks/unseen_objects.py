"""Refuse captions that name an object which a detector does not see (CHAIR, Rohrbach et al., EMNLP 2018)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from curate.recaption.rowwise import RowCheck, spread, text
from filters._shingles import normalised


class UnseenObjects(RowCheck):
    """`detector` is a user's own function, `my_module:function`: from a list of images, each the bytes of its file,
    to a list of the names of the objects seen in each, or None for an image it cannot judge.

    `objects` are those the detector knows, each with its other names: `{car: [automobile], hot dog: []}`. A caption
    names an object by any of its names, whole words, singular or plural; the longest name counts, so a hot dog is
    no dog. A caption of an image that was not judged passes.
    """

    name: ClassVar = "unseen_objects"
    detector: str
    objects: dict[str, tuple[str, ...]] = Field(min_length=1)

    @field_validator("detector")
    @classmethod
    def _path(cls, detector: str) -> str:
        module, _, function = detector.partition(":")
        if not module or not function:
            raise ValueError(f"{detector!r} names no function; write it as module:function")
        return detector

    @property
    def reads(self) -> tuple[str, ...]:
        return ("caption", "objects")

    def reasons(self, captions: pa.Table) -> pa.Array:
        left = pc.binary_join_element_wise(" ", normalised(text(captions["caption"])), " ", "")
        seen = captions["objects"].combine_chunks()
        judged = seen.is_valid().to_numpy(zero_copy_only=False)
        found = pa.nulls(len(captions), pa.string())
        for thing, name in self._names():
            pattern = f" {name} "
            named = pc.match_substring(left, pattern)
            if not named.true_count:
                continue
            left = pc.replace_substring(left, pattern, "  ")
            wrong = named.to_numpy(zero_copy_only=False) & judged & ~_holds(seen, thing)
            places = np.flatnonzero(wrong)
            line = pa.array([f"names '{name}', and the detector sees no {thing}"] * len(places), pa.string())
            found = pc.coalesce(found, spread(line, places, len(captions)))
        return found

    def _names(self) -> list[tuple[str, str]]:
        """The object and the name as captions are normalised, with plurals, the longest names first."""
        pairs = [
            (thing, one) for thing, others in self.objects.items() for name in (thing, *others) for one in _forms(name)
        ]
        words = normalised(pa.array([name for _, name in pairs])).to_pylist()
        known = {(thing, word) for (thing, _), word in zip(pairs, words, strict=True) if word}
        return sorted(known, key=lambda pair: (-len(pair[1]), pair))


def _forms(name: str) -> tuple[str, str]:
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return name, f"{name[:-1]}ies"
    return name, f"{name}es" if name.endswith(("s", "x", "z", "ch", "sh")) else f"{name}s"


def _holds(lists: pa.ListArray, value: str) -> np.ndarray:
    """Which lists hold a value: bool (n,)."""
    flat = pc.equal(pc.list_flatten(lists), value)
    owner = pc.list_parent_indices(lists).to_numpy()
    return np.bincount(owner[pc.fill_null(flat, False).to_numpy(zero_copy_only=False)], minlength=len(lists)) > 0
