"""A small vocabulary of whole and broken words: CLIP's byte-pair merges, cut after the most frequent ones."""

from __future__ import annotations

import re

import open_clip
import torch

from trainer.families._generative import PAD

_BYTES = 512  # CLIP's first tokens: every byte, inside a word and at its end
_LOCATION = re.compile(r"<loc(\d+)>")


class Words:
    """Lower-case text to token ids and back.

    Ids from 0: `size` of text, then the start and the end of a text, then `locations` cells of a grid over the image,
    which a text names as `<loc0>`, `<loc1>`, ...
    """

    def __init__(self, size: int, context: int, locations: int = 0):
        self.bpe = open_clip.SimpleTokenizer()
        ranks = self.bpe.bpe_ranks
        self.bpe.bpe_ranks = {merge: rank for merge, rank in ranks.items() if rank < size - _BYTES}  # by frequency
        self.size, self.context, self.locations = size, context, locations
        self.start, self.end, self.first_location = size, size + 1, size + 2

    def __len__(self) -> int:
        """How many tokens there are."""
        return self.first_location + self.locations

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """int64 (N, context): start, the text, end, padding; a text that is too long loses its last tokens."""
        rows = torch.full((len(texts), self.context), PAD)
        for row, text in zip(rows, texts, strict=True):
            ids = [self.start, *self.encode(text)[: self.context - 2], self.end]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def encode(self, text: str) -> list[int]:
        """The tokens of a text alone, without start and end; a cell that does not exist is left out."""
        ids = list[int]()
        for place, part in enumerate(_LOCATION.split(text) if self.locations else [text]):
            if place % 2 == 0:  # between two locations; what a caption may hold of CLIP's special tokens is left out
                ids += [token for token in self.bpe.encode(part) if token < self.size]
            elif len(part) < 9 and int(part) < self.locations:
                ids.append(self.first_location + int(part))
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of tokens; what is no text says nothing."""
        return " ".join(self.bpe.decode([token for token in ids if 0 <= token < self.size]).split())


def without_locations(text: str) -> str:
    """The text without what `Words` would take for a location."""
    return _LOCATION.sub(" ", text)
