"""CoCa's captions token by token, with what has been read kept in caches.

open_clip's own `generate` reads image and text anew for every token; here keys and values of the image are computed
once, and those of the text as it is written. With the same tokens the logits are the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Choose = Callable[[Any, int], Any]
"""Logits (rows, vocabulary) and the number of the place that is written, to tokens (rows,)."""


@dataclass(frozen=True)
class Written:
    """The tokens of one caption, without start and end, and whether it came to its end."""

    tokens: list[int]
    ended: bool


@dataclass
class _Memory:
    """Keys and values of an attention: (rows, heads, places, size of a head)."""

    keys: torch.Tensor
    values: torch.Tensor


class Writer:
    """Writes with an open_clip `CoCa` whose towers are open_clip's own.

    Raises:
        ValueError: its text tower is another one, such as one of Hugging Face's.
    """

    def __init__(self, network: Any, start: int, end: int):
        text = network.text
        causal = getattr(text, "attn_mask", None) is not None
        if not causal or not hasattr(text, "token_embedding") or not getattr(text, "output_tokens", False):
            raise ValueError("its text tower is not open_clip's own, which sees only the words before")
        self.network, self.start, self.end = network, start, end
        self.context: int = min(network.context_length, text.num_pos - (text.cls_emb is not None))

    def write(self, images: torch.Tensor, prompts: Sequence[Sequence[int]], most: int, choose: Choose) -> list[Written]:
        """Go on after each prompt: at most `most` tokens, until the end of the text or of the context.

        All rows go one token at a time, through their prompts too, so prompts may differ in length.

        Args:
            images: (rows, 3, S, S), as the model takes them.
            prompts: token ids without the start.
        """
        import torch

        with torch.inference_mode():
            return self._write(images, prompts, most, choose)

    def _write(
        self, images: torch.Tensor, prompts: Sequence[Sequence[int]], most: int, choose: Choose
    ) -> list[Written]:
        import torch

        rows, device = len(prompts), images.device
        asked = [[self.start, *prompt][: self.context - 1] for prompt in prompts]
        lengths = torch.tensor([len(ids) for ids in asked], device=device)
        steps = min(int(lengths.max()) + most, self.context)
        tokens = torch.full((rows, steps), self.end, device=device)
        for row, ids in zip(tokens, asked, strict=True):
            row[: len(ids)] = torch.tensor(ids, device=device)
        seen = self._look(images)
        said = self._empty(rows, steps, seen[0].keys)
        ended = torch.zeros(rows, dtype=torch.bool, device=device)
        for place in range(1, steps):
            logits = self._read(tokens[:, place - 1], place - 1, said, seen)
            writing = (place >= lengths) & (place < lengths + most) & ~ended
            chosen = choose(logits, place)
            tokens[:, place] = torch.where(writing, chosen, tokens[:, place])
            ended |= (writing & (chosen == self.end)) | (place >= lengths + most)
            if place % 4 == 0 and bool(ended.all()):  # asking a GPU makes it wait
                break
        found = [row[len(ids) : len(ids) + most] for row, ids in zip(tokens.tolist(), asked, strict=True)]
        return [Written(ids[: ids.index(self.end)], True) if self.end in ids else Written(ids, False) for ids in found]

    def _look(self, images: torch.Tensor) -> list[_Memory]:
        """What each layer of the decoder sees of the images."""
        from torch.nn.functional import linear

        _, embeddings = self.network._encode_image(images)
        memories = []
        for block in self.network.text_decoder.cross_attn:
            attention = block.attn
            width = attention.embed_dim
            both = linear(block.ln_1_kv(embeddings), attention.in_proj_weight[width:], attention.in_proj_bias[width:])
            keys, values = both.chunk(2, dim=-1)
            memories.append(_Memory(_heads(keys, attention.num_heads), _heads(values, attention.num_heads)))
        return memories

    def _empty(self, rows: int, steps: int, like: torch.Tensor) -> list[_Memory]:
        memories = []
        for block in [*self.network.text.transformer.resblocks, *self.network.text_decoder.resblocks]:
            shape = (rows, block.attn.num_heads, steps, block.attn.head_dim)
            memories.append(_Memory(like.new_empty(shape), like.new_empty(shape)))
        return memories

    def _read(self, tokens: torch.Tensor, place: int, said: list[_Memory], seen: list[_Memory]) -> torch.Tensor:
        """Logits (rows, vocabulary) of what follows the tokens (rows,) at a place, which the memories then hold too."""
        text, decoder = self.network.text, self.network.text_decoder
        x = text.token_embedding(tokens)[:, None].to(said[0].keys.dtype) + text.positional_embedding[place]
        of_text, of_decoder = said[: len(text.transformer.resblocks)], said[len(text.transformer.resblocks) :]
        for block, memory in zip(text.transformer.resblocks, of_text, strict=True):
            x = _say(block, x, memory, place)
        if text.cls_emb is None:
            x = text.ln_final(x)
        for block, crossed, memory, view in zip(decoder.resblocks, decoder.cross_attn, of_decoder, seen, strict=True):
            x = _say(block, x, memory, place)
            x = _see(crossed, x, view)
        return (decoder.ln_final(x) @ decoder.text_projection)[:, 0]


def _say(block: Any, x: torch.Tensor, memory: _Memory, place: int) -> torch.Tensor:
    """A block of causal attention for one more place: x (rows, 1, width)."""
    from torch.nn.functional import linear

    attention = block.attn
    made = linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = (_heads(part, attention.num_heads) for part in made.chunk(3, dim=-1))
    memory.keys[:, :, place : place + 1], memory.values[:, :, place : place + 1] = key, value
    return _attend(block, x, query, memory.keys[:, :, : place + 1], memory.values[:, :, : place + 1])


def _see(block: Any, x: torch.Tensor, view: _Memory) -> torch.Tensor:
    """A block of attention to the image: x (rows, 1, width)."""
    from torch.nn.functional import linear

    attention = block.attn
    width = attention.embed_dim
    query = linear(block.ln_1(x), attention.in_proj_weight[:width], attention.in_proj_bias[:width])
    return _attend(block, x, _heads(query, attention.num_heads), view.keys, view.values)


def _attend(block: Any, x: torch.Tensor, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import scaled_dot_product_attention

    found = scaled_dot_product_attention(query, keys, values)
    x = x + block.ls_1(block.attn.out_proj(found.transpose(1, 2).flatten(2)))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(rows, places, width) to (rows, heads, places, size of a head)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
