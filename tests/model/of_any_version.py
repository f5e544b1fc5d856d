"""What the tests take from transformers, under the names and in the ways of the version that is installed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from PIL import Image

try:
    from transformers import CLIPImageProcessorPil, ConvNextImageProcessorPil, SiglipImageProcessorPil
except ImportError:  # 4.48 to 5.0
    from transformers import CLIPImageProcessor as CLIPImageProcessorPil  # type: ignore[assignment]
    from transformers import ConvNextImageProcessor as ConvNextImageProcessorPil  # type: ignore[assignment]
    from transformers import SiglipImageProcessor as SiglipImageProcessorPil  # type: ignore[assignment]

__all__ = ["CLIPImageProcessorPil", "ConvNextImageProcessorPil", "SiglipImageProcessorPil"]

OLDER: Any = transformers
"""The library, of which a check of types sees only the version that is installed."""

HAS_BACKENDS = hasattr(transformers, "CLIPImageProcessorPil")
"""Whether image processors are of a backend, as since one of the first versions 5."""

HAS_VOCABULARIES = "vocab" in transformers.CLIPTokenizer.__init__.__code__.co_varnames
"""Whether tokenizers are made of a vocabulary, as since 5.0, and not of its file."""

PIL: dict[str, Any] = {"backend": "pil"} if HAS_BACKENDS else {"use_fast": False}

CHANNELS_LAST: dict[str, Any] = {} if HAS_BACKENDS else {"input_data_format": "channels_last"}
"""Without backends, an image of three pixels' height is taken for one with its channels first, unless that is said."""


def image_processor_class(name: str) -> Any:
    """Return the class of that name, such as ``CLIPImageProcessor``, which works with Pillow."""
    return getattr(transformers, f"{name}Pil" if HAS_BACKENDS else name)


def load_image_processor(folder: Path) -> Any:
    return transformers.AutoImageProcessor.from_pretrained(folder, **PIL)


def pixels(processor: Any, image: Image.Image) -> Any:
    """Return what an image processor makes of one image."""
    return processor(image, return_tensors="pt", **CHANNELS_LAST)


def features(output: Any) -> torch.Tensor:
    """Return the embeddings of what a model returns: since 5.0 an object, before them a tensor."""
    found: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return found


def load_in_float32(folder: Path) -> Any:
    model = transformers.AutoModel.from_pretrained(folder)
    return model.float().eval()


def clip_tokenizer(pieces: Sequence[str], merges: Sequence[tuple[str, str]], **options: Any) -> Any:
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    make: Any = transformers.CLIPTokenizer  # its annotation of merges is narrower than what it takes
    if HAS_VOCABULARIES:
        return make(vocab=vocabulary, merges=list(merges), **options)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        files[0].write_text(json.dumps(vocabulary))
        files[1].write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]))
        return OLDER.CLIPTokenizerFast(*map(str, files), **options)


def bert_tokenizer(pieces: Sequence[str], **options: Any) -> Any:
    if HAS_VOCABULARIES:
        return transformers.BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, **options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vocab.txt")
        file.write_text("\n".join(pieces))
        return OLDER.BertTokenizerFast(str(file), **options)


def xlm_roberta_tokenizer(vocabulary: Sequence[tuple[str, float]], **options: Any) -> Any:
    if HAS_VOCABULARIES:
        return transformers.XLMRobertaTokenizer(vocab=list(vocabulary), **options)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(list(vocabulary), unk_id=3))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return OLDER.XLMRobertaTokenizerFast(tokenizer_object=tokenizer, **options)


def siglip2_tokenizer(pieces: Sequence[str], **options: Any) -> Any:
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    if HAS_VOCABULARIES:
        make = getattr(transformers, "Siglip2Tokenizer", transformers.GemmaTokenizer)  # which 5.0 takes for it
        return make(vocab=vocabulary, merges=[], **options)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    return OLDER.GemmaTokenizerFast(tokenizer_object=tokenizer, **options)
