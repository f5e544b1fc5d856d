"""Loads a checkpoint's model, tokenizer and image processor, and refuses what would give wrong scores."""

from __future__ import annotations

import logging
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Literal

import torch
from transformers.utils import logging as transformers_logging

from clip_operator.errors import JobError
from clip_operator.model.batch_size import automatic_batch_size
from clip_operator.model.configuration import NotOfTheFamily
from clip_operator.model.cpu_memory import keep_freed_memory
from clip_operator.model.encoder import ClipEncoder
from clip_operator.model.formats import OPEN_CLIP, TRANSFORMERS
from clip_operator.model.json_file import UnfitFile
from clip_operator.model.open_clip_loading import load_open_clip
from clip_operator.model.packed_linear import can_pack, pack, unpack
from clip_operator.model.parts import Parts
from clip_operator.model.sealed import sealed
from clip_operator.model.transformers_loading import load_transformers
from clip_operator.model.weights import NotOnlyWeights

if TYPE_CHECKING:
    from clip_operator.model.checkpoint import Checkpoint
    from clip_operator.model.device import Device
    from clip_operator.request import Precision

log = logging.getLogger(__name__)


# Far below what may show in a score (1e-5), far above what another order of summation does (1e-7).
_PACKING_TOLERANCE = 2e-6


_LOADERS = {TRANSFORMERS: load_transformers, OPEN_CLIP: load_open_clip}


def load_encoder(
    checkpoint: Checkpoint, device: Device, precision: Precision, batch_size: int | Literal["auto"] = "auto"
) -> ClipEncoder:
    """Load a checkpoint and prove with one image and one text that it works.

    :param precision: ``fp32``; ``bf16`` or ``fp16`` for autocast; ``auto`` for fp16 on CUDA and fp32 elsewhere.
    :param batch_size: images that go through the model together; ``auto`` for as many as suit the device.
    :raises JobError: it is no CLIP-family model, lacks weights or a tokenizer, or cannot be read.
    """
    parts = _load_parts(checkpoint)
    _check_complete(parts, checkpoint)
    torch_device = torch.device(device.name)
    if precision == "auto":
        # It rounds eight times finer than bf16, and every CUDA device computes with it.
        precision = "fp16" if torch_device.type == "cuda" else "fp32"
    if torch_device.type == "cpu":
        keep_freed_memory()
    if precision == "fp32" and torch_device.type == "cuda":
        # Else PyTorch rounds the inputs of convolutions, such as the one that makes patches, to 10 bits.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    parts.model.eval().to(torch_device)
    encoder = ClipEncoder(
        parts.model,
        parts.tokenizer,
        parts.image_processor,
        checkpoint,
        device,
        precision,
    )
    proven = _prove(encoder, checkpoint)
    if precision == "fp32" and torch_device.type == "cpu" and can_pack():
        _pack(parts.model, encoder, proven)
    if batch_size == "auto":
        batch_size = automatic_batch_size(encoder, parts.model.config, torch_device)
    encoder.batch_size = batch_size
    log.info(
        "Model %s: %s, %.1f M parameters, %s, at most %d text tokens, %d images at a time, on %s (%s)",
        checkpoint.name,
        encoder.provenance.architecture,
        encoder.provenance.parameters / 1e6,
        precision,
        encoder.provenance.max_text_tokens,
        encoder.image_batch,
        device.name,
        device.reason,
    )
    return encoder


def _load_parts(checkpoint: Checkpoint) -> Parts:
    progress_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    folder = checkpoint.path
    try:
        with sealed(checkpoint) as folder:
            parts = _LOADERS[checkpoint.format](checkpoint, folder)
        checkpoint.check_unchanged()
        return parts
    except JobError:
        raise
    except NotOfTheFamily as error:
        raise JobError(
            f"model {checkpoint.name!r} is a {str(error)!r} model, not one of the CLIP family: it has no pair of image "
            "and text towers"
        ) from None
    except UnfitFile as error:
        raise JobError(f"model {checkpoint.name!r} cannot be loaded from {checkpoint.path}: {error}") from None
    except (UnpicklingError, NotOnlyWeights):  # the text of the former advises to run the code
        raise JobError(
            f"model {checkpoint.name!r}: the pickled weights in {checkpoint.path} hold more than weights, such as "
            "code to run, and are not loaded; give a checkpoint saved as safetensors"
        ) from None
    except BaseException as error:  # transformers, safetensors and tokenizers raise whatever they met in a bad file
        if not _is_failure(error):
            raise
        why = " ".join(str(error).replace(str(folder), str(checkpoint.path)).split())[:400]
        raise JobError(
            f"model {checkpoint.name!r} cannot be loaded from {checkpoint.path}: {type(error).__name__}: {why}"
        ) from None
    finally:
        if progress_bar:
            transformers_logging.enable_progress_bar()


def _is_failure(error: BaseException) -> bool:
    """Tell an error from what ends a program: tokenizers, written in Rust, raise one that is no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _check_complete(parts: Parts, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that transformers loads with only a warning and fills up with random or empty parts."""
    if absent := sorted(parts.missing):
        raise JobError(
            f"model {checkpoint.name!r}: the checkpoint lacks {len(absent)} weights of {type(parts.model).__name__} "
            f"({', '.join(absent[:3])}, …), so its scores would be random"
        )
    if mismatched := parts.mismatched:
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


def _prove(encoder: ClipEncoder, checkpoint: Checkpoint) -> torch.Tensor:
    """Encode one image and one text, so that a model that cannot do it fails before any row is read.

    :returns: their embeddings, [2, dimensions].
    """
    try:
        image, text = _probe(encoder)
    except BaseException as error:  # whatever an architecture that is not CLIP-like raises
        if not _is_failure(error):
            raise
        raise JobError(
            f"model {checkpoint.name!r} ({encoder.provenance.architecture}) cannot encode an image and a text: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from None
    if image.shape != text.shape or image.dim() != 2:
        raise JobError(
            f"model {checkpoint.name!r} ({encoder.provenance.architecture}) gives embeddings of shape "
            f"{tuple(image.shape)} for an image and {tuple(text.shape)} for a text; in the CLIP family they are equal"
        )
    return torch.cat([image, text])


def _probe(encoder: ClipEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    from PIL import Image

    image = Image.linear_gradient("L").convert("RGB")
    return encoder.encode_images([encoder.preprocess(image)]), encoder.encode_texts(encoder.tokenize(["a photo"]))


def _pack(model: torch.nn.Module, encoder: ClipEncoder, expected: torch.Tensor) -> None:
    """Compute the model's linear layers by oneDNN, if the embeddings stay what they were."""
    replaced = pack(model)
    try:
        difference = float((torch.cat(_probe(encoder)) - expected).abs().max())
    except Exception as error:  # an architecture that uses its linear layers in other ways than calling them
        why = f"{type(error).__name__}: {error}"
    else:
        if difference <= _PACKING_TOLERANCE:
            return
        why = f"embeddings would change by {difference:.1g}"
    unpack(replaced)
    log.info("The model's linear layers stay PyTorch's own, which may be slower: %s", why)
