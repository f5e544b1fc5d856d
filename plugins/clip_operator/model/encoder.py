"""Turns images and texts into CLIP embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clip_operator.manifest import ModelProvenance

if TYPE_CHECKING:
    from PIL import Image

    from clip_operator.model.checkpoint import Checkpoint
    from clip_operator.model.device import Device

Pixels = Mapping[str, torch.Tensor]
"""One preprocessed image: the image processor's outputs, each with a leading dimension of 1."""

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

# A tokenizer that was saved without a limit says so with a number like 1e30.
_NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class EncodedTexts:
    """Embeddings of some texts.

    :param embeddings: float32 on the CPU, [texts, dimensions], each row of length 1.
    :param truncated: for each text, whether it was longer than the model reads.
    """

    embeddings: torch.Tensor
    truncated: list[bool]


class ClipEncoder:
    """A CLIP-family model with its own tokenizer and image processor. Made by :func:`load_encoder`.

    ``preprocess`` may be called from many threads; the ``encode_`` methods from one at a time.
    """

    def __init__(
        self, model: Any, tokenizer: Any, image_processor: Any, checkpoint: Checkpoint, device: Device, precision: str
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        self._device = torch.device(device.name)
        self._precision = precision
        self._max_tokens = _max_text_tokens(model.config, tokenizer)
        # CLIP's text tower is causal or masked, so padding past the longest text of a batch changes nothing. SigLIP
        # attends to its padding and was trained with all of it.
        self._padding = "max_length" if str(model.config.model_type).startswith("siglip") else "longest"
        self.provenance = ModelProvenance(
            name=checkpoint.name,
            source=checkpoint.source,
            revision=checkpoint.revision,
            digest=checkpoint.digest,
            architecture=type(model).__name__,
            image_processor=type(image_processor).__name__,
            tokenizer=type(tokenizer).__name__,
            max_text_tokens=self._max_tokens,
            parameters=sum(p.numel() for p in model.parameters()),
            precision=precision,
        )

    def preprocess(self, image: Image.Image) -> Pixels:
        """Resize, crop and normalise one RGB image as the checkpoint's image processor says."""
        return dict(self._image_processor(images=image, return_tensors="pt"))

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Pixels]) -> torch.Tensor:
        """Return the embeddings of preprocessed images: float32 on the CPU, [images, dimensions], rows of length 1."""
        batch = {name: torch.cat([image[name] for image in images]).to(self._device) for name in images[0]}
        with self._autocast():
            output = self._model.get_image_features(**batch)
        return _normalised(output)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        """Return the embeddings of texts, those that are too long cut at the model's own length."""
        batch = self._tokenizer(
            list(texts), padding=self._padding, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        with self._autocast():
            output = self._model.get_text_features(**batch.to(self._device))
        return EncodedTexts(_normalised(output), self._truncated(texts, batch))

    def _truncated(self, texts: Sequence[str], batch: Any) -> list[bool]:
        if batch.encodings is not None:  # the fast tokenizers keep what they cut off
            return [bool(encoding.overflowing) for encoding in batch.encodings]
        return [len(ids) > self._max_tokens for ids in self._tokenizer(list(texts), verbose=False)["input_ids"]]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=_AUTOCAST[self._precision])


def _max_text_tokens(config: Any, tokenizer: Any) -> int:
    """Return how many tokens of a text the model reads, by the checkpoint's own word."""
    positions = int(config.text_config.max_position_embeddings)
    limit = int(min(tokenizer.model_max_length, _NO_LIMIT))
    if config.text_config.model_type in ("roberta", "xlm-roberta", "altclip_text_model"):
        positions -= int(config.text_config.pad_token_id) + 1  # RoBERTa numbers positions from after the padding id
    return min(positions, limit)


def _normalised(output: Any) -> torch.Tensor:
    """Return the pooled embeddings in float32 on the CPU, each row scaled to length 1."""
    pooled = output if isinstance(output, torch.Tensor) else output.pooler_output
    return torch.nn.functional.normalize(pooled.float(), dim=-1).cpu()
