"""How to train: a frozen recipe per scale; `dataclasses.replace(SCALES["tiny"], ...)` changes any field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Scale:
    """Everything that decides a training run apart from its data and its seed.

    `model` is the name of an open_clip model, or a config of one (`embed_dim`, `vision_cfg`, `text_cfg`).
    """

    name: str
    model: str | Mapping[str, Any] = field(hash=False)
    samples_seen: int  # image-text pairs, repeats included
    batch_size: int  # pairs per step, over all processes together
    image_size: int = 224  # pixels, square
    lr: float = 5e-4  # peak; linear warmup, then a cosine down to 0
    warmup: int = 500  # steps, but at most a fifth of all
    weight_decay: float = 0.2  # AdamW, on matrices only (not on biases, norms, logit scale)
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    precision: Literal["fp32", "bf16"] = "bf16"  # bf16: autocast over fp32 weights, where the device has it
    accumulate: int = 1  # micro-batches that a process cuts its part of a batch into: less memory, same gradient
    grad_checkpointing: bool = False  # less memory, more time, same result
    compile: bool = False  # torch.compile, on a GPU only
    augment: Literal["none", "shift", "crop"] = "crop"  # shift: up to 1/8 of the side; crop: 90-100 % of the area
    flip: bool = False  # mirror half of the images; wrong for captions that say left or right
    resize_mode: Literal["shortest", "squash"] = "shortest"  # shortest: centre crop; squash: the whole image
    mean: tuple[float, float, float] = OPENAI_MEAN  # of RGB in 0..1
    std: tuple[float, float, float] = OPENAI_STD
    captions: Literal["first", "draw"] = "first"  # draw: one of a sample's captions in each epoch (trainer/captions.py)
    cache_bytes: int = 0  # decoded images kept in memory while they fit; 0 streams them from the shards
    workers: int = 8  # decoding processes per training process, when streaming
    shuffle_buffer: int = 4096  # samples held for shuffling per worker, when streaming
    log_steps: int = 20
    save_steps: int = 1000

    def __post_init__(self) -> None:
        for name in ("samples_seen", "batch_size", "image_size", "accumulate", "log_steps", "save_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"scale {self.name!r}: {name} must be at least 1, got {getattr(self, name)}")
        if self.captions not in ("first", "draw"):
            raise ValueError(f"scale {self.name!r}: captions {self.captions!r} is neither first nor draw")
        if self.samples_seen < self.batch_size:
            raise ValueError(f"scale {self.name!r}: samples_seen ({self.samples_seen}) is less than a batch")

    @property
    def steps(self) -> int:
        """Optimizer steps; a last part of a batch is not trained on."""
        return self.samples_seen // self.batch_size

    def as_dict(self) -> dict[str, Any]:
        """The scale as plain JSON values; `captions` only where it is drawn, as trainings from before know none."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return values if self.captions == "draw" else {k: v for k, v in values.items() if k != "captions"}


TINY_MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 48, "layers": [1, 1, 1, 1], "width": 24, "head_width": 64},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    "custom_text": True,  # the text tower that accepts captions shorter than its context
}

# small, medium and large are DataComp's (Gadre et al. 2023, arXiv:2304.14108; scale_configs.py and train.py
# of mlfoundations/datacomp): model, samples seen, batch, lr and warmup from there, the rest open_clip's
# defaults for ViT models, which DataComp leaves alone (AdamW 0.9 / 0.98, eps 1e-6, weight decay 0.2).
# One difference: bf16 autocast instead of fp16 with a loss scaler.
SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            name="tiny",
            model=TINY_MODEL,
            image_size=48,
            samples_seen=128_000,
            batch_size=256,
            lr=2e-3,
            warmup=50,
            weight_decay=0.1,
            augment="shift",
            resize_mode="squash",
            cache_bytes=2 << 30,
            workers=2,
            log_steps=10,
            save_steps=100,
        ),
        Scale(name="small", model="ViT-B-32", samples_seen=12_800_000, batch_size=4096, grad_checkpointing=True),
        Scale(
            name="medium",
            model="ViT-B-32",
            samples_seen=128_000_000,
            batch_size=4096,
            grad_checkpointing=True,
        ),
        Scale(
            name="large",
            model="ViT-B-16",
            samples_seen=1_280_000_000,
            batch_size=8192,
            grad_checkpointing=True,
        ),
    )
}


def get_scale(scale: str | Scale) -> Scale:
    """The scale of that name; a `Scale` is returned as it is.

    Raises:
        ValueError: no scale has that name.
    """
    if isinstance(scale, Scale):
        return scale
    if scale not in SCALES:
        raise ValueError(f"scale: {scale!r} is not one of {', '.join(SCALES)}")
    return SCALES[scale]
