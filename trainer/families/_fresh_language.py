"""A small language model with fresh weights, and a tokenizer for it, where none is given: nothing to download."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from torch import nn

from trainer.families._towers import HubWords, import_transformers

_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # CLIP's
_BYTES = 512  # CLIP's first tokens: every byte, inside a word and at its end


def fresh_tokenizer(size: int, context: int) -> HubWords:
    """CLIP's byte-pair merges, cut after the most frequent ones: `size` tokens of text, then start and end."""
    transformers = import_transformers()
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    bpe = open_clip.SimpleTokenizer()
    merges = [merge for merge, rank in bpe.bpe_ranks.items() if rank < size - _BYTES]
    vocabulary = {bpe.decoder[token]: token for token in range(size)} | {_START: size, _END: size + 1}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("</w>", "Ġ"), decoders.ByteLevel()])  # Ġ: a space's byte
    return HubWords(
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=_START, eos_token=_END), context
    )


def fresh_language(size: dict[str, Any], words: HubWords) -> nn.Module:
    """A Llama (Touvron et al. 2023, arXiv:2302.13971) of `width`, `layers` and `heads`."""
    transformers = import_transformers()
    config = transformers.LlamaConfig(
        vocab_size=len(words.tokenizer),
        hidden_size=size["width"],
        intermediate_size=3 * size["width"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=words.start,
        eos_token_id=words.end,
    )
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model
