"""Tiny checkpoints of every CLIP-like family, with random weights, saved as their authors save them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from tokenizers import pre_tokenizers

from tests.model.of_any_version import (
    bert_tokenizer,
    clip_tokenizer,
    image_processor_class,
    siglip2_tokenizer,
    xlm_roberta_tokenizer,
)

TOWER: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'äß红色的圆形"
WORDS = ["red", "blue", "circle", "square", "photo", "of", "the"]
NO_LIMIT = int(1e30)


def save_clip(folder: Path, positions: int = 77, model_max_length: int = 77, **text_config: Any) -> None:
    """CLIP: causal text tower, pooled at the first end-of-text token."""
    tokenizer = _clip_tokenizer(model_max_length)
    text = {
        **TOWER,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": positions,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **text_config,
    }
    config = transformers.CLIPConfig(text_config=text, vision_config=_vision(), projection_dim=16)
    _save(
        folder,
        transformers.CLIPModel(config),
        tokenizer,
        image_processor_class("CLIPImageProcessor")(**_sizes(crop=True)),
    )


def save_long_clip(folder: Path) -> None:
    """CLIP with 248 positions, and a tokenizer that knows of no limit."""
    save_clip(folder, positions=248, model_max_length=NO_LIMIT)


def save_legacy_clip(folder: Path) -> None:
    """CLIP as OpenAI's checkpoints were first converted: pooled at the highest token id, whatever the config says."""
    save_clip(folder, eos_token_id=2)


def save_clip_with_slow_tokenizer(folder: Path) -> None:
    """CLIP with a tokenizer written in Python, which keeps nothing of what it cuts off."""
    tokenizer = transformers.ByT5Tokenizer(model_max_length=77)
    text = {**TOWER, "vocab_size": len(tokenizer), "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    config = transformers.CLIPConfig(text_config=text, vision_config=_vision(), projection_dim=16)
    _save(
        folder,
        transformers.CLIPModel(config),
        tokenizer,
        image_processor_class("CLIPImageProcessor")(**_sizes(crop=True)),
    )


def save_siglip(folder: Path) -> None:
    """SigLIP: a text tower that attends to its padding, pooled at the last position."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_unigram_tokenizer().backend_tokenizer,
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
        model_max_length=24,
        model_input_names=["input_ids"],
    )
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 24, "projection_size": 32}
    config = transformers.SiglipConfig(text_config=text, vision_config=_vision())
    processor = image_processor_class("SiglipImageProcessor")(size={"height": 32, "width": 32})
    _save(folder, transformers.SiglipModel(config), tokenizer, processor)


def save_siglip_with_sentencepiece(folder: Path) -> None:
    """SigLIP as Google's checkpoints name it: with its SentencePiece tokenizer."""
    lines = [" ".join([*WORDS, *LETTERS])] * 10
    with (folder / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=file,
            vocab_size=120,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    tokenizer = transformers.SiglipTokenizer(str(folder / "spiece.model"), model_max_length=24)
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 24, "projection_size": 32}
    config = transformers.SiglipConfig(text_config=text, vision_config=_vision())
    processor = image_processor_class("SiglipImageProcessor")(size={"height": 32, "width": 32})
    _save(folder, transformers.SiglipModel(config), tokenizer, processor)


def save_siglip2(folder: Path) -> None:
    """SigLIP 2 with images in their own shape, cut into a bounded number of patches and padded."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = siglip2_tokenizer(pieces, model_max_length=NO_LIMIT)
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 24, "projection_size": 32}
    vision = {**TOWER, "patch_size": 8, "num_patches": 16}
    config = transformers.Siglip2Config(text_config=text, vision_config=vision)
    processor = image_processor_class("Siglip2ImageProcessor")(patch_size=8, max_num_patches=16)
    _save(folder, transformers.Siglip2Model(config), tokenizer, processor)


def save_altclip(folder: Path) -> None:
    """AltCLIP: an XLM-RoBERTa text tower, whose positions are numbered from after the padding id."""
    tokenizer = _unigram_tokenizer()
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 34, "project_dim": 16}
    config = transformers.AltCLIPConfig(text_config=text, vision_config=_vision(), projection_dim=16)
    _save(
        folder,
        transformers.AltCLIPModel(config),
        tokenizer,
        image_processor_class("CLIPImageProcessor")(**_sizes(crop=True)),
    )


def save_chinese_clip(folder: Path) -> None:
    """Chinese CLIP: a BERT text tower, pooled at its first token."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]
    tokenizer = bert_tokenizer(pieces, model_max_length=40)
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 40}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=_vision(), projection_dim=16)
    processor = image_processor_class("ChineseCLIPImageProcessor")(
        size={"height": 32, "width": 32}, do_center_crop=False
    )
    _save(folder, transformers.ChineseCLIPModel(config), tokenizer, processor)


def save_metaclip_2(folder: Path) -> None:
    """MetaCLIP 2: CLIP with the multilingual tokenizer of XLM-V, pooled at its end-of-text token."""
    tokenizer = _unigram_tokenizer()
    text = {
        **TOWER,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = transformers.MetaClip2Config(text_config=text, vision_config=_vision(), projection_dim=16)
    processor = image_processor_class("CLIPImageProcessor")(**_sizes(crop=True))
    _save(folder, transformers.MetaClip2Model(config), tokenizer, processor)


FAMILIES: dict[str, tuple[Callable[[Path], None], int]] = {
    "clip": (save_clip, 77),
    "long-clip": (save_long_clip, 248),
    "legacy-clip": (save_legacy_clip, 77),
    "slow-tokenizer": (save_clip_with_slow_tokenizer, 77),
    "siglip": (save_siglip, 24),
    "siglip-sentencepiece": (save_siglip_with_sentencepiece, 24),
    "siglip2": (save_siglip2, 24),
    "altclip": (save_altclip, 32),
    "chinese-clip": (save_chinese_clip, 40),
    "metaclip-2": (save_metaclip_2, 77),
}
"""How each is saved, and how many tokens of a text it reads, special ones included."""

# Transformers has these since 4.49 and 4.56.
for _name, _model in {"siglip2": "Siglip2Model", "metaclip-2": "MetaClip2Model"}.items():
    if not hasattr(transformers, _model):
        del FAMILIES[_name]


def _vision() -> dict[str, Any]:
    return {**TOWER, "image_size": 32, "patch_size": 8}


def _sizes(crop: bool) -> dict[str, Any]:
    return {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": crop}


def _clip_tokenizer(model_max_length: int) -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("r", "e"), ("re", "d</w>"), ("t", "h"), ("th", "e</w>"), ("o", "f</w>")]
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *(a + b for a, b in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]  # the highest ids, as OpenAI's are
    return clip_tokenizer(pieces, merges, model_max_length=model_max_length)


def _unigram_tokenizer() -> Any:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *LETTERS, *(f"▁{word}" for word in WORDS), "<mask>"]
    vocabulary = [(shard, -math.log(len(pieces)) + len(shard)) for shard in pieces]
    return xlm_roberta_tokenizer(vocabulary, model_max_length=512)


def _save(folder: Path, model: Any, tokenizer: Any, image_processor: Any) -> None:
    # Larger than a model starts with: two inputs that differ shall give embeddings that differ.
    seed = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=seed) * 0.3)
    for part in (model, tokenizer, image_processor):
        part.save_pretrained(folder)
