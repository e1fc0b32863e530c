"""A vision tower and a language model, each pretrained elsewhere, joined by a projector and trained in stages.

Images become tokens of the language model: the tower's features, put through a small perceptron, stand before the text.
With the language model frozen throughout this is Frozen (Tsimpoukelli et al. 2021, arXiv:2106.13884) and MiniGPT-4 (Zhu
et al. 2023, arXiv:2304.10592); a first stage for the projector and a second one for the language model too is LLaVA
(Liu et al. 2023, arXiv:2304.08485, the two-layer projector from arXiv:2310.03744), and for everything PaliGemma (Beyer
et al. 2024, arXiv:2407.07726). The loss is the cross entropy of each next token of the text.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trainer.distributed import World
from trainer.families._fresh_language import fresh_language, fresh_tokenizer
from trainer.families._generative import GenerativeModel, cut, mean_log_likelihood, preprocessing, with_blanks
from trainer.families._towers import (
    HubWords,
    Sight,
    empty_vision,
    import_transformers,
    open_language,
    open_tokenizer,
    open_vision,
    vision_config,
)
from trainer.family import Family, Outputs, VisionLanguageModel
from trainer.scales import TINY_MODEL, Scale

CONFIG, LANGUAGE = "backbone.json", "language"
PARTS = ("vision", "projector", "language")
UNFREEZE = {"none": ("projector",), "language": ("projector", "language"), "all": PARTS}  # what stage 2 trains

# By scale: the longest text in tokens; of what is fresh, the tower (open_clip's) and the language model.
_TINY = {"vision": TINY_MODEL, "vocabulary": 4096, "width": 128, "layers": 4, "heads": 2, "context": 48}
_NANO = TINY_MODEL | {"vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64}}
_LARGER = {"vocabulary": 49152, "width": 768, "layers": 12, "heads": 12, "context": 96}
SIZES: dict[str, dict[str, Any]] = {
    "nano": _TINY | {"vision": _NANO, "vocabulary": 1024, "width": 32, "layers": 2, "context": 24},
    "tiny": _TINY,
    "small": _LARGER | {"vision": "ViT-B-32"},
    "medium": _LARGER | {"vision": "ViT-B-32"},
    "large": _LARGER | {"vision": "ViT-B-16"},
}


@dataclass(frozen=True)
class Backbone(Family):
    """What is not given is made here with fresh weights: a tower, which then learns from stage 1 on, and a language
    model, which first learns from the texts alone (stage 0).
    """

    name: ClassVar = "backbone"
    staged: ClassVar = True
    vision: str | None = None  # a checkpoint folder of a family of open_clip's models, or the name of such a model
    pretrained: str | None = None  # the tag of that model's weights
    language_model: str | None = None  # a causal language model of Hugging Face, by folder or name
    stage0: float = 0.2  # share of the steps, where the language model is fresh
    stage1: float = 0.3  # share of the steps
    unfreeze: str = "language"  # what stage 2 trains beside the projector: none, language, all
    rate2: float | None = None  # factor of the learning rate in stage 2; None: 0.1, or 1 for a fresh language model

    def __post_init__(self) -> None:
        if self.unfreeze not in UNFREEZE:
            raise ValueError(f"family: backbone: unfreeze must be one of {', '.join(UNFREEZE)}, not {self.unfreeze!r}")
        shares = (0.0 if self.language_model else self.stage0, self.stage1)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError("family: backbone: stage0 and stage1 are shares of the steps, together at most 1")

    def configure(self, scale: Scale) -> Scale:
        """The scale's sizes; the images as the tower's preprocessing wants them."""
        if not (isinstance(scale.model, Mapping) and "vocabulary" in scale.model):
            scale = dataclasses.replace(scale, model=SIZES.get(scale.name, SIZES["nano"]))
        if scale.name == "tiny":
            scale = dataclasses.replace(scale, samples_seen=min(scale.samples_seen, 64_000), lr=1e-3, batch_size=32)
        if self.vision is None:
            return scale
        config = self._vision_config(scale)
        wanted = config["preprocess_cfg"]
        changes: dict[str, Any] = {key: tuple(wanted[key]) for key in ("mean", "std") if key in wanted}
        if wanted.get("resize_mode") in ("shortest", "squash"):
            changes["resize_mode"] = wanted["resize_mode"]
        return dataclasses.replace(scale, image_size=config["model_cfg"]["vision_cfg"]["image_size"], **changes)

    def tokenizer(self, scale: Scale) -> HubWords:
        size: Any = scale.model
        if self.language_model is None:
            return fresh_tokenizer(size["vocabulary"], size["context"])
        return open_tokenizer(self.language_model, size["context"])

    def build(self, scale: Scale, seed: int, device: torch.device) -> torch.nn.Module:
        torch.manual_seed(seed)
        size: Any = scale.model
        words, config = self.tokenizer(scale), self._vision_config(scale)
        tower = open_vision(self.vision, self.pretrained, config)
        language = open_language(self.language_model) if self.language_model else fresh_language(size, words)
        network = Joined(Sight(tower, scale.image_size), language, words, config).to(device)
        network.train_only(set().union(*map(self.trained, range(3))))
        return network

    def trained(self, stage: int) -> set[str]:
        """The parts that a stage trains."""
        if stage == 0:
            return set() if self.language_model else {"language"}
        return {*UNFREEZE[self.unfreeze if stage == 2 else "none"]} | (set() if self.vision else {"vision"})

    def stage(self, step: int, steps: int) -> int:
        """The stage, 0 to 2, of a step counted from 0."""
        start1 = 0 if self.language_model else round(steps * self.stage0)
        return 0 if step < start1 else 1 if step < start1 + round(steps * self.stage1) else 2

    def before_step(self, model: Any, step: int, steps: int) -> float:
        stage = self.stage(step, steps)
        model.train_only(self.trained(stage))
        model.blind = stage == 0
        model.step.fill_(step)
        if stage < 2:
            return 1.0
        return self.rate2 if self.rate2 is not None else 0.1 if self.language_model else 1.0

    def loss(self, outputs: Outputs, tokens: torch.Tensor, world: World) -> torch.Tensor:
        """The mean over the samples of the cross entropy per token: nats."""
        return -mean_log_likelihood(outputs["logits"], tokens).mean()

    def save(self, model: Any, scale: Scale, folder: Path) -> None:
        """The language model in a folder of its own, which Hugging Face's library reads alone."""
        for part in ("vision", "projector"):
            weights = {
                name: value.detach().cpu().contiguous() for name, value in getattr(model, part).state_dict().items()
            }
            save_file(weights, str(folder / f"{part}.safetensors"), metadata={"format": "pt"})
        model.language.save_pretrained(folder / LANGUAGE)
        model.words.tokenizer.save_pretrained(folder / LANGUAGE)
        config = {"context": model.words.context, "preprocess": preprocessing(scale), "vision": model.vision_config}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")

    def load(self, folder: Path, device: torch.device) -> VisionLanguageModel:
        return BackboneModel(self.name, folder, device)

    def _vision_config(self, scale: Scale) -> dict[str, Any]:
        size: Any = scale.model
        return vision_config(self.vision, self.pretrained, dataclasses.replace(scale, model=size["vision"]))


class Joined(nn.Module):
    """The tower, the projector and the language model; `vision_config` and `words` go into its checkpoint."""

    def __init__(self, vision: Sight, language: Any, words: HubWords, vision_config: dict[str, Any]):
        super().__init__()
        width = language.get_input_embeddings().embedding_dim
        self.vision, self.language, self.words, self.vision_config = vision, language, words, vision_config
        self.projector = nn.Sequential(
            nn.LayerNorm(vision.width), nn.Linear(vision.width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.step: torch.Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64), persistent=False)
        self.blind = False  # the language model reads the text alone

    def train_only(self, parts: set[str]) -> None:
        """Freezes the other parts, their running statistics and dropout too."""
        for part in PARTS:
            getattr(self, part).requires_grad_(part in parts).train(part in parts)

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> Outputs:
        """`logits` (B, L - 1, V): what follows each token but the last of the longest text."""
        if not torch.compiler.is_compiling():
            tokens = cut(tokens)
        sequence = said = self.language.get_input_embeddings()(tokens[:, :-1].clamp(min=0))
        if not self.blind:
            if self.training:
                images = with_blanks(images, tokens, self.step)
            sequence = torch.cat([self.see(images), said], dim=1)
        found = self.language(inputs_embeds=sequence, use_cache=False, logits_to_keep=said.shape[1])
        return {"logits": found.logits}

    def see(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, S, S) as embeddings (B, places, width) of the language model."""
        return self.projector(self.vision(images))


class BackboneModel(GenerativeModel):
    """A trained tower, projector and language model."""

    def __init__(self, family: str, folder: Path, device: torch.device):
        config = json.loads((folder / CONFIG).read_text())
        super().__init__(family, device, config["preprocess"])
        self.words: HubWords = open_tokenizer(str(folder / LANGUAGE), config["context"])
        vision = Sight(empty_vision(config["vision"]), self.side)
        network = Joined(vision, open_language(str(folder / LANGUAGE)), self.words, config["vision"])
        for part in ("vision", "projector"):
            getattr(network, part).load_state_dict(load_file(folder / f"{part}.safetensors"))
        self.network = network.to(device).eval()

    def read(self, images: torch.Tensor, times: int = 1) -> Any:
        cache = import_transformers().DynamicCache(config=self.network.language.config)
        seen = self.network.see(images)
        self.network.language(inputs_embeds=seen, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(times)
        return cache

    def say(self, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
        logits: torch.Tensor = self.network.language(input_ids=tokens, past_key_values=cache, use_cache=True).logits
        return logits
