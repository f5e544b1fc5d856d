"""Loads a checkpoint in open_clip's format by open_clip, and gives its parts the methods that transformers' have."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchEncoding

from clip_operator.errors import JobError, Reason, RowError
from clip_operator.model.json_file import VOCABULARIES, UnfitFile, abridged
from clip_operator.model.open_clip_configuration import read_open_clip_configuration
from clip_operator.model.parts import Parts
from clip_operator.model.weights import check_layers, check_room
from clip_operator.resizing import Resizing

if TYPE_CHECKING:
    from clip_operator.model.checkpoint import Checkpoint

_LEVELS = 256  # the values of an 8-bit pixel

# As open_clip has them, where a configuration leaves them out.
_CONTEXT_LENGTH = 77
_VOCABULARY = 49408

# Of words that were split before. A text of ten thousand letters is one word.
_MOST_WORDS_KEPT = 1 << 14


def load_open_clip(checkpoint: Checkpoint, folder: Path) -> Parts:
    """Load a checkpoint, from its sealed files alone.

    :param folder: where its files are sealed.
    :raises UnfitFile: its configuration asks for what is not supported, or for more than its weights hold.
    :raises JobError: open_clip cannot be imported.
    """
    open_clip = _library(checkpoint.name)
    name = checkpoint.format.configuration
    has_tokenizer = not {"tokenizer.json", *VOCABULARIES}.isdisjoint(checkpoint.files)
    configuration = read_open_clip_configuration(checkpoint.path / name, has_tokenizer)
    _check_timm(name, configuration["model_cfg"]["vision_cfg"])
    weights = [folder / file for file in checkpoint.weights]
    check_layers(_layers(name, configuration["model_cfg"]), weights)
    (folder / name).write_text(json.dumps(configuration), encoding="utf-8")
    place = f"local-dir:{folder}"
    with _without_messages(Path(open_clip.__file__).parent):
        with torch.device("meta"):
            check_room(name, open_clip.create_model(place, load_weights=False, device="meta"), weights)
        model, transform = open_clip.create_model_from_pretrained(place, precision="fp32", device="cpu")
        text = configuration["model_cfg"]["text_cfg"]
        options = {"local_files_only": True, "trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
        tokenizer = open_clip.get_tokenizer(place, **options)
    return Parts(
        OpenClipModel(model, configuration["model_cfg"]),
        OpenClipTokenizer(tokenizer),
        OpenClipImageProcessor(transform),
    )


def _library(model: str) -> Any:
    """Import open_clip.

    :raises JobError: it cannot be, as where a package is missing that it needs.
    """
    try:
        return import_module("open_clip")
    except Exception as error:  # of whatever class what it imports raises
        raise JobError(
            f"model {model!r} is loaded by open_clip, which is installed where it runs and cannot be imported: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}; install the extra open-clip there again"
        ) from None


def _check_timm(file: str, vision: Mapping[str, Any]) -> None:
    """Refuse an architecture that timm does not have itself."""
    if architecture := vision.get("timm_model_name"):
        import timm

        if not timm.is_model(architecture):
            raise UnfitFile(
                f"{file}: model_cfg.vision_cfg.timm_model_name is {abridged(architecture)}, which timm "
                f"{timm.__version__} does not know"
            )


def _layers(file: str, model: Mapping[str, Any]) -> dict[str, int]:
    layers: dict[str, int] = {}
    for tower in ("vision_cfg", "text_cfg", "multimodal_cfg"):
        found = (model.get(tower) or {}).get("layers") or 0
        layers[f"{file}: model_cfg.{tower}.layers"] = sum(found) if isinstance(found, list) else found
    return layers


@contextmanager
def _without_messages(library: Path) -> Iterator[None]:
    """Leave out what a library tells the program's own log, such as that a model without memory has no weights.

    :param library: its folder.
    """

    def is_another(record: logging.LogRecord) -> bool:
        return Path(record.pathname).parent != library

    logging.root.addFilter(is_another)  # which sees the records of this logger alone
    try:
        yield
    finally:
        logging.root.removeFilter(is_another)


class OpenClipModel(torch.nn.Module):
    """A model of open_clip with the methods, and what is asked of the configuration, that transformers' models have.

    :param model: of open_clip's class.
    :param configuration: its ``model_cfg``.
    """

    def __init__(self, model: torch.nn.Module, configuration: Mapping[str, Any]) -> None:
        super().__init__()
        self.model: Any = model
        text = configuration["text_cfg"]
        self.config = SimpleNamespace(
            model_type="open_clip",
            projection_dim=configuration["embed_dim"],
            text_config=SimpleNamespace(
                model_type="open_clip",
                vocab_size=text.get("vocab_size", _VOCABULARY),
                max_position_embeddings=text.get("context_length", _CONTEXT_LENGTH),
            ),
            vision_config=_vision(self.model.visual),
        )

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return embeddings of images: float32 [images, 3, height, width] → [images, dimensions]."""
        features: torch.Tensor = self.model.encode_image(pixel_values)
        return features

    def get_text_features(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return embeddings of texts: token ids [texts, context length] → [texts, dimensions]."""
        features: torch.Tensor = self.model.encode_text(input_ids)
        return features


def _vision(visual: Any) -> SimpleNamespace:
    """Return what an image tower says of the tokens that it makes of an image, and of their width."""
    vision = SimpleNamespace(image_size=list(_pair(visual.image_size)))
    if hasattr(visual, "grid_size"):  # open_clip's own transformer
        rows, columns = _pair(visual.grid_size)
        vision.num_patches = rows * columns
        vision.hidden_size = visual.conv1.out_channels
    elif trunk := getattr(visual, "trunk", None):
        vision.num_patches = getattr(getattr(trunk, "patch_embed", None), "num_patches", None)
        vision.hidden_size = trunk.num_features
    return vision


def _pair(size: Any) -> tuple[int, int]:
    return tuple(size) if isinstance(size, Sequence) else (size, size)


class OpenClipTokenizer:
    """A tokenizer of open_clip with the methods that transformers' slow tokenizers have.

    open_clip pads every text to the length that the model reads, and its models are given all of it.
    """

    long_text = 1_500
    """Characters. A word of so many letters is split in a tenth of a second, and one of ten times as many in ten."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.model_max_length = int(tokenizer.context_length)
        self._inner: Any = getattr(tokenizer, "tokenizer", None)  # transformers', where the checkpoint brings one
        self._tokens = int(tokenizer.vocab_size) if self._inner is None else len(self._inner)

    def __len__(self) -> int:
        return self._tokens

    def __call__(self, texts: Sequence[str] | str, truncation: bool = False, **_: Any) -> BatchEncoding:
        """Return ``input_ids`` of texts: cut and padded to the model's length, or with ``truncation`` false whole."""
        if truncation:
            return BatchEncoding({"input_ids": self._tokenizer(texts).tolist()})
        if isinstance(texts, str):
            return BatchEncoding({"input_ids": self._whole(texts)})
        return BatchEncoding({"input_ids": [self._whole(text) for text in texts]})

    def _whole(self, text: str) -> list[int]:
        if self._inner is None:
            cache = self._tokenizer.cache
            if len(cache) > _MOST_WORDS_KEPT:
                self._tokenizer.cache = {word: split for word, split in cache.items() if word == split}
            return [self._tokenizer.sot_token_id, *self._tokenizer.encode(text), self._tokenizer.eot_token_id]
        text = self._tokenizer.clean_fn(text)
        if self._tokenizer.tokenizer_mode == "clips":
            special = [self._inner.bos_token_id, self._inner.eos_token_id, self._inner.cls_token_id]
            return [*self._inner(text, add_special_tokens=False, verbose=False)["input_ids"], *special]
        return list(self._inner(text, verbose=False)["input_ids"])

    def pad(self, inputs: Mapping[str, Any], **_: Any) -> BatchEncoding:
        """Return texts that are padded already as tensors."""
        return BatchEncoding({name: torch.tensor(values) for name, values in inputs.items()})


class OpenClipImageProcessor:
    """What open_clip does to an image, called as transformers' image processors are."""

    def __init__(self, transform: Any) -> None:
        self._transform = transform

    def __call__(self, images: Image.Image, **_: Any) -> dict[str, torch.Tensor]:
        """Return ``pixel_values`` of one image: float32, [1, 3, height, width].

        :raises RowError: its shape is so thin that nothing would be left of its short side.
        """
        try:
            return {"pixel_values": self._transform(images).unsqueeze(0)}
        except ValueError:
            raise RowError(
                Reason.IMAGE_TOO_LARGE, f"resizing {images.width}x{images.height} pixels leaves nothing of one side"
            ) from None

    def steps(self) -> tuple[Resizing, torch.Tensor]:
        """Return its resize and crop, and what it makes of every 8-bit value of each channel: float32, [3 * 256].

        :raises ValueError: it does what :class:`Resizing` does not say.
        """
        from torchvision.transforms import CenterCrop, Resize

        resize, *others = self._transform.transforms[:-3]
        if type(resize) is not Resize or [type(step) for step in others] not in ([], [CenterCrop]):
            raise ValueError(f"it has other steps than a resize and a crop: {resize}")
        crop = tuple(reversed(others[0].size)) if others else None
        edge, size = (resize.size, None) if isinstance(resize.size, int) else (None, tuple(reversed(resize.size)))
        filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
        resample = filters[resize.interpolation.value].value
        resizing = Resizing(edge, size, resample, crop, onto_white=False, crop_to_even=True)
        values: Any = Image.fromarray(np.arange(_LEVELS, dtype=np.uint8)[np.newaxis]).convert("RGB")
        for step in self._transform.transforms[-3:]:
            values = step(values)
        return resizing, values.flatten()
