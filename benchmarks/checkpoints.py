"""CLIP checkpoints of the real sizes with random weights: speed does not ask what a model has learnt."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.captions import captions, words
from benchmarks.kept import kept

_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_VOCABULARY = 49_408
_TEXTS_TO_TRAIN_ON = 50_000
_SEED = 7
_LOGIT_SCALE = 100.0
"""Where the training of CLIP's models ended; libraries that divide logits by 100 get cosines so."""

_LARGE_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768}
_LARGE_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}
_TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def vit_b_32(data: Path) -> Path:
    """Return the folder of a checkpoint as large as openai/clip-vit-base-patch32: 151 million parameters."""
    return kept(data / "clip-vit-b-32", lambda folder: _save(folder, data, {}, {}, 512, 224))


def vit_l_14(data: Path) -> Path:
    """Return the folder of a checkpoint as large as openai/clip-vit-large-patch14: 428 million parameters."""
    return kept(data / "clip-vit-l-14", lambda folder: _save(folder, data, _LARGE_TEXT, _LARGE_VISION, 768, 224))


def tiny(data: Path, image_pixels: int) -> Path:
    """Return the folder of a checkpoint that computes next to nothing.

    :param image_pixels: the side that images are resized to.
    """
    vision = {**_TINY, "image_size": image_pixels, "patch_size": image_pixels // 4}
    name = f"clip-tiny-{image_pixels}"
    return kept(data / name, lambda folder: _save(folder, data, _TINY, vision, 16, image_pixels))


def _save(
    folder: Path,
    data: Path,
    text: Mapping[str, Any],
    vision: Mapping[str, Any],
    projection: int,
    image_pixels: int,
) -> None:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    config = transformers.CLIPConfig(
        text_config={**text, "vocab_size": _VOCABULARY},
        vision_config=dict(vision),
        projection_dim=projection,
        logit_scale_init_value=math.log(_LOGIT_SCALE),
    )
    torch.manual_seed(_SEED)
    make_tokenizer: Any = transformers.CLIPTokenizer  # its annotation of merges is narrower than what it takes
    vocabulary, merges = _byte_pairs(data)
    sizes: dict[str, Any] = {
        "size": {"shortest_edge": image_pixels},
        "crop_size": {"height": image_pixels, "width": image_pixels},
    }
    transformers.CLIPModel(config).save_pretrained(folder)
    make_tokenizer(vocab=vocabulary, merges=merges, model_max_length=77).save_pretrained(folder)
    transformers.CLIPImageProcessorPil(**sizes).save_pretrained(folder)
    _name_processor_as_authors_do(folder)


def _name_processor_as_authors_do(folder: Path) -> None:
    """Published checkpoints name CLIPImageProcessor, which every version of transformers knows."""
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_processor_type": "CLIPImageProcessor"}))


def _byte_pairs(data: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return a vocabulary and merges as many as CLIP's, trained on captions."""
    path = kept(data / "byte-pairs.json", _train)
    merges = [(first, second) for first, second in json.loads(path.read_text())]
    pieces = [*_letters(), *(first + second for first, second in merges)]
    return {piece: number for number, piece in enumerate([*pieces, *_SPECIAL])}, merges


def _train(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * _VOCABULARY,  # more than are needed: what is over is cut off
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    needed = _VOCABULARY - len(_SPECIAL) - len(_letters())
    distinct = {first + second: (first, second) for first, second in merges if first + second not in _SPECIAL}
    if len(distinct) < needed:
        raise RuntimeError(f"the captions gave {len(distinct):,} pieces, and CLIP's vocabulary needs {needed:,}")
    path.write_text(json.dumps(list(distinct.values())[:needed]))


def _texts() -> Iterator[str]:
    yield from captions(_TEXTS_TO_TRAIN_ON, seed=_SEED)
    yield from words()


def _letters() -> list[str]:
    """Every byte as byte-level BPE spells it, inside a word and at its end."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
