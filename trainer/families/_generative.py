"""What models that write share: the likelihood of a text after an image, and writing on, token by token."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import open_clip
import torch
from torch.nn import functional

from trainer.family import VisionLanguageModel
from trainer.scales import Scale

PAD = -100  # fills the rows of tokens; what torch's cross entropy leaves out
CALIBRATION = 1.0  # how much of a text's likelihood without an image is taken off; 0 would be the plain likelihood
_BLANKS = 10  # one of so many images is blank in training
_PAIRS = 512  # images times texts that go through the model at once


class Codec(Protocol):
    """How texts become token ids and back."""

    start: int
    end: int
    context: int  # the most tokens of a text, start and end among them

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """int64 (N, context): start, text, end, then PAD."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text alone, without start and end."""

    def decode(self, ids: list[int]) -> str:
        """The text of tokens."""


def with_blanks(images: torch.Tensor, tokens: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """The batch with about a tenth of its images blank (the mean colour), which teaches a model how likely texts are by
    themselves.

    Which ones depends on the text and the step alone, so a batch may be cut into parts; another time they are others.
    """
    blank = (tokens.clamp(min=0).sum(1) + step) % _BLANKS == 0
    return images.masked_fill(blank[:, None, None, None], 0.0)


def cut(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens (N, L) without the columns that are padding throughout."""
    return tokens[:, : int((tokens != PAD).sum(1).max())]


def mean_log_likelihood(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """float32 (N,): the mean over a text's tokens, the end too, of their log probability after those before them.

    Args:
        logits: (N, L', V), what follows each token but the last; L' may leave out columns of padding.
        tokens: int64 (N, L), from the start token on.
    """
    following = tokens[:, 1 : logits.shape[1] + 1]
    loss = functional.cross_entropy(
        logits.float().flatten(0, 1), following.flatten(), ignore_index=PAD, reduction="none"
    ).view_as(following)
    return -loss.sum(1) / (following != PAD).sum(1)


def preprocessing(scale: Scale) -> dict[str, Any]:
    """What `open_clip.transform.PreprocessCfg` is made of, as plain JSON values."""
    return {
        "size": scale.image_size,
        "mean": list(scale.mean),
        "std": list(scale.std),
        "interpolation": "bicubic",
        "resize_mode": scale.resize_mode,
    }


class GenerativeModel(VisionLanguageModel):
    """A model that reads an image and then says a text; it keeps what it has read in a cache.

    A text fits an image as much as the image makes it likelier: (log P(text | image) - log P(text | blank image)) per
    token. Without the second part, short and common texts would fit everything (Lin et al. 2023, "Revisiting the role
    of language priors in vision-language models", arXiv:2306.01879, whose alpha is `CALIBRATION`).
    """

    generates = True
    words: Codec

    def __init__(self, family: str, device: torch.device, preprocess: dict[str, Any]):
        self.family, self.device, self.side = family, device, int(preprocess["size"])
        self.preprocess = open_clip.transform.image_transform_v2(
            open_clip.transform.PreprocessCfg(**preprocess), is_train=False
        )

    @abstractmethod
    def read(self, images: torch.Tensor, times: int = 1) -> Any:
        """A cache of N images (N, 3, S, S), each `times` times in a row: (N * times) rows."""

    @abstractmethod
    def say(self, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
        """Reads tokens (N, L) after what the cache holds and adds them to it; logits (N, L, V) of what follows each."""

    @torch.inference_mode()
    def match(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        columns = []
        for start in range(0, len(texts), _PAIRS):
            tokens = self._tokens(texts[start : start + _PAIRS])
            parts = images.split(max(1, _PAIRS // len(tokens)))
            rows = [
                self._likelihood(self.read(part, len(tokens)), tokens.repeat(len(part), 1)).view(-1, len(tokens))
                for part in parts
            ]
            columns.append(torch.cat(rows) - CALIBRATION * self._prior(tokens))
        return torch.cat(columns, dim=1)

    @torch.inference_mode()
    def match_pairs(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        tokens = self._tokens(texts)
        return self._likelihood(self.read(images), tokens) - CALIBRATION * self._prior(tokens)

    @torch.inference_mode()
    def generate(self, images: torch.Tensor, prompts: Sequence[str], max_tokens: int = 32) -> list[str]:
        return [self.words.decode(ids) for ids in self.write(images, prompts, max_tokens)]

    @torch.inference_mode()
    def write(
        self, images: torch.Tensor, prompts: Sequence[str], most: int, allowed: slice = slice(None)
    ) -> list[list[int]]:
        """The likeliest token after each prompt, again and again: at most `most` tokens, until the end of the text.

        All rows go one token at a time, through their prompts too, so that prompts of any length need no padding.

        Args:
            allowed: the ids to choose from.
        """
        words, context = self.words, self.words.context
        asked = [[words.start, *words.encode(prompt)][: context - 1] for prompt in prompts]
        lengths = torch.tensor([len(ids) for ids in asked], device=self.device)
        steps = min(int(lengths.max()) + most, context)
        tokens = torch.full((len(asked), steps), words.end, device=self.device)
        for row, ids in zip(tokens, asked, strict=True):
            row[: len(ids)] = torch.tensor(ids)[:steps]
        cache, ended = self.read(images), torch.zeros_like(lengths, dtype=torch.bool)
        for step in range(1, steps):
            logits = self.say(tokens[:, step - 1 : step], cache)[:, -1]
            likeliest = logits[:, allowed].argmax(1) + (allowed.start or 0)
            writing = (step >= lengths) & (step < lengths + most) & ~ended
            tokens[:, step] = torch.where(writing, likeliest, tokens[:, step])
            ended |= writing & (likeliest == words.end) | (step >= lengths + most)
            if ended.all():
                break
        written = [row[len(ids) : len(ids) + most].tolist() for row, ids in zip(tokens, asked, strict=True)]
        return [ids[: ids.index(words.end)] if words.end in ids else ids for ids in written]

    def _tokens(self, texts: Sequence[str]) -> torch.Tensor:
        return cut(self.words(list(texts))).to(self.device)

    def _likelihood(self, cache: Any, tokens: torch.Tensor) -> torch.Tensor:
        return mean_log_likelihood(self.say(tokens[:, :-1].clamp(min=0), cache), tokens)

    def _prior(self, tokens: torch.Tensor) -> torch.Tensor:
        """The same without an image to see: (N,)."""
        blank = torch.zeros(1, 3, self.side, self.side, device=self.device)
        parts = [self._likelihood(self.read(blank, len(part)), part) for part in tokens.split(_PAIRS)]
        return torch.cat(parts)
