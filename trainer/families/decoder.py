"""An early-fusion decoder: patches of the image and tokens of the text are one causal sequence of one transformer.

There is no vision tower: a patch enters by one linear projection, as in Fuyu (Bavishi et al. 2023, "Fuyu-8B: a
multimodal architecture for AI agents"); one sequence from the first layer on is Chameleon's early fusion (Chameleon
Team 2024, arXiv:2405.09818). The loss is the cross entropy of each next token of the text. With `grounding`, the place
of a phrase is words of that text (Peng et al. 2023, "KOSMOS-2", arXiv:2306.14824).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.distributed import World
from trainer.families._boxes import boxes_of, grounded_text
from trainer.families._generative import GenerativeModel, cut, mean_log_likelihood, preprocessing, with_blanks
from trainer.families._words import Words
from trainer.family import Family, Outputs, VisionLanguageModel
from trainer.scales import Scale
from trainer.shards import Sample

CONFIG, WEIGHTS = "decoder.json", "decoder.safetensors"
Cache = list[tuple[torch.Tensor, torch.Tensor]]  # of each layer, the keys and values so far (N, heads, length, D)

# By scale: the side of a patch in pixels, the vocabulary and the longest text in tokens. From small on, it is as wide
# and deep as the image tower of CLIP at that scale.
SIZES: dict[str, dict[str, int]] = {
    "nano": {"width": 32, "layers": 2, "heads": 2, "patch": 8, "vocabulary": 1024, "context": 24},
    "tiny": {"width": 128, "layers": 4, "heads": 2, "patch": 8, "vocabulary": 4096, "context": 48},
    "small": {"width": 768, "layers": 12, "heads": 12, "patch": 32, "vocabulary": 49152, "context": 96},
    "medium": {"width": 768, "layers": 12, "heads": 12, "patch": 32, "vocabulary": 49152, "context": 96},
    "large": {"width": 768, "layers": 12, "heads": 12, "patch": 16, "vocabulary": 49152, "context": 96},
}


@dataclass(frozen=True)
class Decoder(Family):
    """`grounding` learns from the `boxes` of samples too, `[{"phrase": ..., "box": [x0, y0, x1, y1]}]` in their JSON
    (shares of the image's sides), on a grid of `grid` by `grid` cells.
    """

    name: ClassVar = "decoder"
    grounding: bool = False
    grid: int = 16

    def configure(self, scale: Scale) -> Scale:
        """The size of the decoder for the scale's name; a `model` that already is one stays. A box would be wrong for
        an image that is cropped, shifted or mirrored, so with `grounding` images are only resized.
        """
        if not (isinstance(scale.model, Mapping) and "patch" in scale.model):
            scale = dataclasses.replace(scale, model=SIZES.get(scale.name, SIZES["nano"]))
        if scale.name == "tiny":
            scale = dataclasses.replace(scale, samples_seen=min(scale.samples_seen, 64_000), lr=1e-3, batch_size=32)
        if self.grounding:
            scale = dataclasses.replace(scale, augment="none", resize_mode="squash", flip=False)
        return scale

    def tokenizer(self, scale: Scale) -> Words:
        size: Any = scale.model
        return Words(size["vocabulary"], size["context"], self.grid**2 if self.grounding else 0)

    def text(self, sample: Sample) -> str:
        """The caption, with `grounding` also where the things are that it names."""
        return grounded_text(sample, self.grid) if self.grounding else sample.caption

    def build(self, scale: Scale, seed: int, device: torch.device) -> torch.nn.Module:
        torch.manual_seed(seed)
        tokens, grid = self.tokenizer(scale).first_location, self.grid if self.grounding else 0
        return EarlyFusion(scale.model, scale.image_size, tokens, grid, scale.grad_checkpointing).to(device)

    def before_step(self, model: Any, step: int, steps: int) -> float:
        model.step.fill_(step)
        return 1.0

    def loss(self, outputs: Outputs, tokens: torch.Tensor, world: World) -> torch.Tensor:
        """The mean over the samples of the cross entropy per token: nats."""
        return -mean_log_likelihood(outputs["logits"], tokens).mean()

    def save(self, model: torch.nn.Module, scale: Scale, folder: Path) -> None:
        weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        save_file(weights, str(folder / WEIGHTS), metadata={"format": "pt"})
        config = {"model": scale.model, "preprocess": preprocessing(scale)}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")

    def load(self, folder: Path, device: torch.device) -> VisionLanguageModel:
        return DecoderModel(self, folder, device)


class EarlyFusion(nn.Module):
    """The transformer. The embedding of a token is also what its logit is read with; that of a location is the sum of
    its row's and its column's, so that every box says something of all the cells beside and above it.
    """

    def __init__(self, size: Any, image_size: int, tokens: int, grid: int = 0, grad_checkpointing: bool = False):
        super().__init__()
        self.step: torch.Tensor
        self.patch, self.grad_checkpointing = size["patch"], grad_checkpointing
        self.seen = (image_size // self.patch) ** 2  # patches of an image
        self.patches = nn.Linear(3 * self.patch**2, size["width"])
        self.embedding = nn.Parameter(torch.empty(tokens, size["width"]))  # of text, start and end
        self.rows, self.columns = (nn.Parameter(torch.empty(grid, size["width"])) for _ in range(2))
        self.positions = nn.Parameter(torch.empty(self.seen + size["context"], size["width"]))
        self.blocks = nn.ModuleList(Block(size["width"], size["heads"]) for _ in range(size["layers"]))
        self.norm = nn.LayerNorm(size["width"])
        self.register_buffer("step", torch.zeros((), dtype=torch.int64), persistent=False)
        for embedding, several in ((self.embedding, 1), (self.rows, 2), (self.columns, 2)):
            nn.init.normal_(embedding, std=(several * size["width"]) ** -0.5)
        nn.init.normal_(self.positions, std=0.5)  # next to patches of about 1, or nothing could be told by its place
        for name, weight in self.blocks.named_parameters():
            if name.endswith(("out.weight", "mlp.2.weight")):  # less, the more of them add to the stream
                nn.init.normal_(weight, std=0.02 / (2 * size["layers"]) ** 0.5)

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> Outputs:
        """`logits` (B, L - 1, V): what follows each token but the last of the longest text."""
        if not torch.compiler.is_compiling():
            tokens = cut(tokens)
        said = self.hear(tokens[:, :-1].clamp(min=0))
        if self.training:
            images = with_blanks(images, tokens, self.step)
        sequence = torch.cat([self.see(images), said], dim=1)
        x = sequence + self.positions[: sequence.shape[1]]
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)[0] if self.grad_checkpointing else block(x)[0]
        return {"logits": self.logits(x[:, self.seen :])}

    def see(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, S, S) as patches (B, P, width), row by row from the top left."""
        return self.patches(functional.unfold(images, self.patch, stride=self.patch).transpose(1, 2))

    def hear(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (B, L) as (B, L, width), of the size of patches."""
        return functional.embedding(tokens, self.vocabulary()) * self.embedding.shape[1] ** 0.5

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """What follows each place of the last block's (B, L, width): (B, L, V)."""
        return functional.linear(self.norm(x), self.vocabulary())

    def vocabulary(self) -> torch.Tensor:
        """The embedding of every token, (V, width)."""
        return torch.cat([self.embedding, (self.rows[:, None] + self.columns).flatten(0, 1)])

    def go_on(self, x: torch.Tensor, cache: Cache) -> torch.Tensor:
        """The sequence (N, L, width) read after what the cache holds, which then holds it too."""
        start = cache[0][0].shape[2] if cache else 0
        x = x + self.positions[start : start + x.shape[1]]
        for number, block in enumerate(self.blocks):
            x, pair = block(x, cache[number] if start else None)
            cache[number : number + 1] = [pair]
        return x


class Block(nn.Module):
    """Causal attention, then a perceptron, each on the normed stream and added to it."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor, past: Any = None) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """The stream (N, L, width) after this block, and the keys and values of all so far."""
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        seen = attend(q, k, v)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x)), (k, v)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention: the queries are the last ones of the keys. (N, heads, length, D)."""
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
    if q.device.type != "cpu":
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v  # torch's own takes three times as long on short sequences in bf16 on a CPU


class DecoderModel(GenerativeModel):
    """A trained decoder."""

    def __init__(self, family: Decoder, folder: Path, device: torch.device):
        config = json.loads((folder / CONFIG).read_text())
        super().__init__(family.name, device, config["preprocess"])
        size = config["model"]
        self.grounds, self.grid = family.grounding, family.grid
        self.words: Words = Words(size["vocabulary"], size["context"], self.grid**2 if self.grounds else 0)
        grid = self.grid if self.grounds else 0
        self.network = EarlyFusion(size, self.side, self.words.first_location, grid).to(device).eval()
        self.network.load_state_dict(load_file(folder / WEIGHTS, device=str(device)))

    def read(self, images: torch.Tensor, times: int = 1) -> Cache:
        cache: Cache = []
        self.network.go_on(self.network.see(images), cache)
        return [(k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for k, v in cache]

    def say(self, tokens: torch.Tensor, cache: Cache) -> torch.Tensor:
        return self.network.logits(self.network.go_on(self.network.hear(tokens), cache))

    @torch.inference_mode()
    def ground(self, images: torch.Tensor, phrases: Sequence[str]) -> torch.Tensor:
        """The box is the two likeliest locations after the phrase; NaN where the phrase is too long for them."""
        if not self.grounds:
            return super().ground(images, phrases)
        first = self.words.first_location
        written = self.write(images, phrases, 2, slice(first, first + self.words.locations))
        boxes = torch.full((len(written), 4), float("nan"))
        if whole := [row for row, cells in enumerate(written) if len(cells) == 2]:
            boxes[whole] = boxes_of(torch.tensor([written[row] for row in whole]) - first, self.grid)
        return boxes.to(self.device)
