"""What differs from one version of transformers to the next, from 4.48 on; nothing else in the package depends on it.

Each difference is found by what the library has, and is said with the versions in which it was met.
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig

from clip_operator.model.json_file import VOCABULARIES, UnfitFile

try:
    from transformers.image_processing_backends import PilBackend
except ImportError:  # 4.48 to 5.0: each class of image processors has a method of its own for the same steps
    from transformers import ChineseCLIPImageProcessor, CLIPImageProcessor, SiglipImageProcessor

    PilBackend = None  # type: ignore[assignment, misc]
    # Of these it is known that they do no more than to resize, crop the centre, rescale and normalise.
    _PLAIN_CLASSES: tuple[type, ...] = (ChineseCLIPImageProcessor, CLIPImageProcessor, SiglipImageProcessor)
    _PIL: dict[str, Any] = {"use_fast": False}
    CALL_OPTIONS: dict[str, Any] = {"input_data_format": "channels_last"}
else:
    _PIL = {"backend": "pil"}
    CALL_OPTIONS = {}
"""What an image processor is told of an image: until 5.0, that one of three pixels' height has its channels last."""

# Until 4.55 there was the old name alone, and since 4.56 the new one is another's property.
_HAS_DTYPE = isinstance(getattr(PretrainedConfig, "torch_dtype", None), property)
IN_FLOAT32: dict[str, Any] = {"dtype" if _HAS_DTYPE else "torch_dtype": torch.float32}
"""What has a model's weights loaded as float32, whatever they are saved as."""


GENERATION = "" if PilBackend is not None else ", until 5.0"
"""What is said behind the name of a way to prepare images: a few of them come to other pixels since (see
:func:`puts_onto_white`), and no score of the one generation is to be taken for one of the other."""


def own_fields(config_class: Any) -> set[str]:
    """Return the names of the fields that a class of configurations declares itself."""
    if dataclasses.is_dataclass(config_class):
        inherited = {field.name for field in dataclasses.fields(PretrainedConfig)}
        return {field.name for field in dataclasses.fields(config_class)} - inherited
    # 4.48 to 5.0: an ordinary class, whose parameters they are.
    return set(inspect.signature(config_class.__init__).parameters) - {"self", "kwargs"}


def load_tokenizer(folder: Path, **options: Any) -> Any:
    """Return a checkpoint's tokenizer.

    :raises UnfitFile: its files are missing, or its SentencePiece model cannot be read.
    """
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **options)
    except TypeError:  # 4.48 to 4.57, where the paths of its files are None
        if any((folder / name).is_file() for name in (*VOCABULARIES, "tokenizer.json")):
            raise
        raise UnfitFile("the tokenizer's files (tokenizer.json, or vocab.json and merges.txt) are missing") from None
    if tokenizer is False:  # 4.48 to 4.57, for such a model
        raise UnfitFile("could not parse the tokenizer's SentencePiece model")
    # 4.48 to 4.57 warn that to pad afterwards is slower; texts are padded once it is known which go together.
    tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
    return tokenizer


def load_image_processor(folder: Path, **options: Any) -> Any:
    """Return a checkpoint's image processor that works with Pillow, since torchvision's gives other pixels."""
    return transformers.AutoImageProcessor.from_pretrained(folder, **_PIL, **options)


def check_plain_steps(image_processor: Any) -> None:
    """Raise ValueError unless all that it does is to resize by Pillow, crop the centre, rescale and normalise."""
    ancestors = type(image_processor).__mro__
    if PilBackend is None:
        if type(image_processor) not in _PLAIN_CLASSES:
            raise ValueError("its steps are not known with this version of transformers")
        return
    if PilBackend not in ancestors:
        raise ValueError("it is not of transformers' Pillow backend")
    classes = ancestors[: ancestors.index(PilBackend)]
    own = {name for cls in classes for name, value in vars(cls).items() if inspect.isroutine(value)} - {"__init__"}
    if own:
        raise ValueError(f"it has methods of its own: {', '.join(sorted(own))}")
    if image_processor.do_pad:
        raise ValueError("it pads images")


def puts_onto_white(image_processor: Any) -> bool:
    """Tell whether an RGB image with a colour that is transparent comes to stand on white; until 5.0 it did not."""
    return PilBackend is not None and bool(image_processor.do_convert_rgb)
