"""Turns images and texts into CLIP embeddings with a loaded checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from clip_operator.errors import JobError
from clip_operator.manifest import ModelProvenance

if TYPE_CHECKING:
    from PIL import Image

    from clip_operator.model.checkpoint import Checkpoint
    from clip_operator.model.device import Device

log = logging.getLogger(__name__)

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


def load_encoder(checkpoint: Checkpoint, device: Device, precision: str) -> ClipEncoder:
    """Load a checkpoint and prove with one image and one text that it works.

    :param precision: ``fp32``, or ``bf16`` / ``fp16`` for autocast.
    :raises JobError: it is no CLIP-family model, lacks weights or a tokenizer, or cannot be read.
    """
    # Local files only, and never code from the checkpoint.
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    progress_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(checkpoint.path, **options)
        if not (hasattr(config, "text_config") and hasattr(config, "vision_config")):
            raise JobError(
                f"model {checkpoint.name!r} is a {config.model_type!r} model, not one of the CLIP family: "
                "it has no pair of image and text towers"
            )
        model, loading = AutoModel.from_pretrained(
            checkpoint.path,
            config=config,
            dtype=torch.float32,
            use_safetensors=checkpoint.safetensors,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
            **options,
        )
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, **options)
        # The torchvision processor gives other pixels than the original PIL one; name the one that is meant.
        image_processor = AutoImageProcessor.from_pretrained(checkpoint.path, backend="pil", **options)
    except JobError:
        raise
    except UnpicklingError:  # its text advises to run the code
        raise JobError(
            f"model {checkpoint.name!r}: the pickled weights in {checkpoint.path} hold more than weights, such as "
            "code to run, and are not loaded; give a checkpoint saved as safetensors"
        ) from None
    except Exception as error:  # transformers, safetensors and tokenizers raise whatever they met in a bad file
        why = " ".join(str(error).split())[:400]
        raise JobError(
            f"model {checkpoint.name!r} cannot be loaded from {checkpoint.path}: {type(error).__name__}: {why}"
        ) from None
    finally:
        if progress_bar:
            transformers_logging.enable_progress_bar()
    absent = sorted(loading["missing_keys"])
    if absent:
        raise JobError(
            f"model {checkpoint.name!r}: the checkpoint lacks {len(absent)} weights of {type(model).__name__} "
            f"({', '.join(absent[:3])}, …), so its scores would be random"
        )
    if loading["mismatched_keys"]:
        count = len(loading["mismatched_keys"])
        key, found, expected = min(loading["mismatched_keys"])
        raise JobError(
            f"model {checkpoint.name!r}: {count} weights do not fit config.json, such as {key}, which "
            f"has the shape {tuple(found)} and not {tuple(expected)}"
        )
    # transformers makes an empty tokenizer where its files are missing, and then every text is the same text.
    if 2 * len(tokenizer) < config.text_config.vocab_size:
        raise JobError(
            f"model {checkpoint.name!r}: its tokenizer knows {len(tokenizer)} tokens and the model "
            f"{config.text_config.vocab_size}; the tokenizer's files (tokenizer.json, or vocab.json and merges.txt) "
            f"are missing from {checkpoint.path}, or another model's"
        )
    model.eval().to(torch.device(device.name))
    encoder = ClipEncoder(model, tokenizer, image_processor, checkpoint, device, precision)
    _prove(encoder, checkpoint)
    log.info(
        "Model %s: %s, %.1f M parameters, %s, at most %d text tokens, on %s (%s)",
        checkpoint.name,
        encoder.provenance.architecture,
        encoder.provenance.parameters / 1e6,
        precision,
        encoder.provenance.max_text_tokens,
        device.name,
        device.reason,
    )
    return encoder


def _prove(encoder: ClipEncoder, checkpoint: Checkpoint) -> None:
    """Encode one image and one text, so that a model that cannot do it fails before any row is read."""
    from PIL import Image

    try:
        image = encoder.encode_images([encoder.preprocess(Image.new("RGB", (64, 64)))])
        text = encoder.encode_texts(["a photo"]).embeddings
    except Exception as error:  # whatever an architecture that is not CLIP-like raises
        raise JobError(
            f"model {checkpoint.name!r} ({encoder.provenance.architecture}) cannot encode an image and a text: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from None
    if image.shape != text.shape or image.dim() != 2:
        raise JobError(
            f"model {checkpoint.name!r} ({encoder.provenance.architecture}) gives embeddings of shape "
            f"{tuple(image.shape)} for an image and {tuple(text.shape)} for a text; in the CLIP family they are equal"
        )


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
