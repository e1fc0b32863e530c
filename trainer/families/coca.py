"""CoCa: the two towers of CLIP, and a decoder on top of the text tower that looks at the image and writes the caption.

Yu et al. 2022, "CoCa: contrastive captioners are image-text foundation models", arXiv:2205.01917. Model and loss are
open_clip's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import open_clip
import torch
from torch.nn import functional

from trainer.distributed import World
from trainer.families._open_clip import OpenClipModel, save_open_clip, with_patches, with_small_steps
from trainer.family import Family, Outputs, VisionLanguageModel
from trainer.model import Tokenizer, build_model, build_tokenizer
from trainer.scales import Scale

PAD = 0
MAX_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class Coca(Family):
    """`contrastive_weight` and `caption_weight` are of the two losses; 1 and 2 as in the paper."""

    name: ClassVar = "coca"
    contrastive: ClassVar = True
    contrastive_weight: float = 1.0
    caption_weight: float = 2.0

    def configure(self, scale: Scale) -> Scale:
        """open_clip's CoCa, with an image tower like that of the scale's model; a CoCa that is named stays."""
        model = with_patches(scale)
        if "multimodal_cfg" not in model:
            if isinstance(scale.model, str):
                like = open_clip.get_model_config("coca_ViT-B-32")
                tower = {name: model["vision_cfg"][name] for name in ("image_size", "patch_size", "width", "layers")}
                model = like | {"vision_cfg": like["vision_cfg"] | tower}
            else:
                text = model["text_cfg"]
                model["vision_cfg"]["output_tokens"] = True
                if model["vision_cfg"]["width"] != text["width"]:  # else the decoder sees the few patches themselves
                    pooled = {"attentional_pool": True, "attn_pooler_heads": text["heads"], "attn_pooler_queries": 16}
                    model["vision_cfg"] |= pooled
                model["multimodal_cfg"], model["embed_dim"] = dict(text), text["width"]
                model["text_cfg"] |= {"embed_cls": True, "output_tokens": True}
        small = with_small_steps(scale)
        if small.lr != scale.lr:  # it is `tiny` as it comes
            small = dataclasses.replace(small, lr=1.2e-3, samples_seen=min(scale.samples_seen, 64_000))
        return dataclasses.replace(small, model=model)

    def tokenizer(self, scale: Scale) -> Tokenizer:
        return build_tokenizer(scale)

    def build(self, scale: Scale, seed: int, device: torch.device) -> torch.nn.Module:
        model: Any = build_model(scale, seed, device)
        projection = model.text_decoder.text_projection  # open_clip leaves it as the memory happens to be
        torch.nn.init.normal_(projection, std=projection.shape[0] ** -0.5)
        if scale.name == "tiny":  # next to patches of about 1, or so few steps would not tell them by their place
            torch.nn.init.normal_(model.visual.positional_embedding, std=0.5)
        model.register_forward_hook(sum_up_captions)
        return model

    def loss(self, outputs: Outputs, tokens: torch.Tensor, world: World) -> torch.Tensor:
        """InfoNCE as in CLIP, and the mean cross entropy of each next token of a caption."""
        infonce = open_clip.ClipLoss(
            local_loss=True, gather_with_grad=True, cache_labels=True, rank=world.rank, world_size=world.size
        )
        images, texts = outputs["image_features"].float(), outputs["text_features"].float()
        contrastive = infonce(images, texts, outputs["logit_scale"])
        caption = outputs["caption_nats"].sum() / outputs["caption_tokens"].sum()
        return self.contrastive_weight * contrastive + self.caption_weight * caption

    def after_step(self, model: Any) -> None:
        """The temperature stays at 1/100 or above, as in CLIP."""
        model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    def save(self, model: torch.nn.Module, scale: Scale, folder: Path) -> None:
        save_open_clip(model, scale, folder)

    def load(self, folder: Path, device: torch.device) -> VisionLanguageModel:
        return CocaModel(self.name, folder, device)


def sum_up_captions(model: torch.nn.Module, inputs: Any, outputs: Outputs) -> Outputs:
    """The logits (B, L, V) as two numbers per caption, so that a large batch can be put together from parts of it:
    `caption_nats`, the cross entropy of its tokens, and `caption_tokens`, how many they are; both float32 (B,).
    """
    logits, labels = outputs.pop("logits"), outputs.pop("labels")
    nats = functional.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=PAD, reduction="none")
    return outputs | {"caption_nats": nats.sum(1), "caption_tokens": (labels != PAD).sum(1).float()}


class CocaModel(OpenClipModel):
    """Matches as CLIP does, and writes."""

    generates = True

    @torch.inference_mode()
    def generate(self, images: torch.Tensor, prompts: Sequence[str], max_tokens: int = 32) -> list[str]:
        """All rows go token by token, through their prompts too, so that prompts may differ in length."""
        tokenizer: Any = self.tokenizer
        start, end = tokenizer.sot_token_id, tokenizer.eot_token_id
        context = self.network.context_length
        asked = [[start, *tokenizer.encode(prompt)][: context - 1] for prompt in prompts]
        lengths = torch.tensor([len(ids) for ids in asked], device=self.device)
        tokens = torch.full((len(asked), min(int(lengths.max()) + max_tokens, context)), PAD, device=self.device)
        for row, ids in zip(tokens, asked, strict=True):
            row[: len(ids)] = torch.tensor(ids)[: len(row)]
        latent, seen = self.network._encode_image(images)
        for place in range(1, tokens.shape[1]):
            outputs = self.network(None, tokens[:, :place], image_latent=latent, image_embs=seen, output_labels=False)
            likeliest = outputs["logits"][:, -1].argmax(1)
            ended = (place >= lengths + max_tokens) | (tokens[:, :place] == end).any(1)
            writing = (place >= lengths) & ~ended
            tokens[:, place] = torch.where(writing, likeliest, tokens[:, place])
            if ended.all():
                break
        written = [row[len(ids) :].tolist() for row, ids in zip(tokens, asked, strict=True)]
        special = {PAD, start, end}
        return [" ".join(tokenizer.decode([i for i in ids if i not in special]).split()) for ids in written]
