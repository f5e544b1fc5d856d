"""Loads a checkpoint's model, tokenizer and image processor, and refuses what would give wrong scores."""

from __future__ import annotations

import logging
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from clip_operator.errors import JobError
from clip_operator.model.encoder import ClipEncoder

if TYPE_CHECKING:
    from clip_operator.model.checkpoint import Checkpoint
    from clip_operator.model.device import Device

log = logging.getLogger(__name__)


class _Parts(NamedTuple):
    """What a checkpoint holds, by transformers' own classes."""

    model: Any
    loading: dict[str, Any]
    """Transformers' report of the weights that were missing, or had another shape."""
    tokenizer: Any
    image_processor: Any


def load_encoder(checkpoint: Checkpoint, device: Device, precision: str) -> ClipEncoder:
    """Load a checkpoint and prove with one image and one text that it works.

    :param precision: ``fp32``, or ``bf16`` / ``fp16`` for autocast.
    :raises JobError: it is no CLIP-family model, lacks weights or a tokenizer, or cannot be read.
    """
    parts = _load_parts(checkpoint)
    _check_complete(parts, checkpoint)
    parts.model.eval().to(torch.device(device.name))
    encoder = ClipEncoder(parts.model, parts.tokenizer, parts.image_processor, checkpoint, device, precision)
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


def _load_parts(checkpoint: Checkpoint) -> _Parts:
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
    return _Parts(model, loading, tokenizer, image_processor)


def _check_complete(parts: _Parts, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that transformers loads with only a warning and fills up with random or empty parts."""
    absent = sorted(parts.loading["missing_keys"])
    if absent:
        raise JobError(
            f"model {checkpoint.name!r}: the checkpoint lacks {len(absent)} weights of {type(parts.model).__name__} "
            f"({', '.join(absent[:3])}, …), so its scores would be random"
        )
    mismatched = parts.loading["mismatched_keys"]
    if mismatched:
        key, found, expected = min(mismatched)
        raise JobError(
            f"model {checkpoint.name!r}: {len(mismatched)} weights do not fit config.json, such as {key}, which "
            f"has the shape {tuple(found)} and not {tuple(expected)}"
        )
    # Transformers makes an empty tokenizer where its files are missing, and then every text is the same text.
    tokens, vocabulary = len(parts.tokenizer), parts.model.config.text_config.vocab_size
    if 2 * tokens < vocabulary:
        raise JobError(
            f"model {checkpoint.name!r}: its tokenizer knows {tokens} tokens and the model {vocabulary}; the "
            f"tokenizer's files (tokenizer.json, or vocab.json and merges.txt) are missing from {checkpoint.path}, or "
            "another model's"
        )


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
