"""Makes a model's configuration of a checkpoint's config.json: a known family's own fields, and no others.

What else may stand there tells transformers which other weights, adapters, kernels, code or packages to load.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from clip_operator.model.json_file import UnfitFile, abridged, check_finite, read_object, whole_number
from clip_operator.model.transformers_versions import own_fields


class NotOfTheFamily(Exception):
    """A checkpoint is of another type of model; the text is that type's name."""


FAMILIES = (
    "aimv2", "align", "altclip", "blip", "chinese_clip", "clip", "clipseg", "groupvit", "metaclip_2", "owlv2",
    "owlvit", "siglip", "siglip2", "tipsv2", "vision-text-dual-encoder",
)  # fmt: skip
"""The types of models, in transformers' words, that give embeddings of images and of texts."""

# What a dual encoder may be put together of: towers that transformers has itself, with code that reads no other file.
_TOWERS = (
    "albert", "bert", "camembert", "clip", "clip_text_model", "clip_vision_model", "deit", "dinov2", "distilbert",
    "electra", "mpnet", "roberta", "siglip_text_model", "siglip_vision_model", "vit", "xlm-roberta",
)  # fmt: skip

_ACTIVATIONS = (
    "gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "leaky_relu",
    "linear", "mish", "quick_gelu", "relu", "relu2", "relu6", "selu", "sigmoid", "silu", "swish", "tanh",
)  # fmt: skip

# To leave these out would give other scores than the checkpoint's author meant, or none.
_NOT_SUPPORTED = ("quantization_config", "compression_config", "transformers_weights", "configuration_files")

_SUBCONFIGS = ("text_config", "vision_config")
_OLD_NAMES = tuple(f"{name}_dict" for name in _SUBCONFIGS)  # as the first conversions of CLIP have them, beside the new

MAX_IMAGE_SIDE = 4096
"""Pixels. No model of the family was trained with more than a quarter of it."""
MAX_IMAGE_PATCHES = 16_384
_MOST_OF_ANYTHING = 1 << 31
_MOST_LAYERS = 1024
_LONGEST_LIST = 64
_PLAIN_WORD = re.compile(r"[A-Za-z][\w-]{0,40}")


def read_configuration(path: Path) -> PretrainedConfig:
    """Return the configuration of a model of the CLIP family.

    :param path: its config.json.
    :raises NotOfTheFamily: it is of another type.
    :raises UnfitFile: it asks for what is not supported, or has numbers that no model has.
    """
    found = read_object(path)
    model_type = found.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UnfitFile(
            f"config.json: model_type is {abridged(model_type)}, which transformers does not know, and a checkpoint's "
            "own code is not run"
        )
    if model_type not in FAMILIES:
        raise NotOfTheFamily(model_type)
    for name in _NOT_SUPPORTED:
        if any(part.get(name) for part in (found, *_parts(found))):
            raise UnfitFile(f"config.json has {name}, which is not supported; save the model's plain weights")
    config_class = CONFIG_MAPPING[model_type]
    kept = _own_fields(config_class, found, "")
    for name in (*_SUBCONFIGS, *_OLD_NAMES):
        if isinstance(part := found.get(name), dict):
            kept[name] = _tower_fields(config_class, name, part)
        elif part is not None:
            raise UnfitFile(f"config.json: {name} is {abridged(part)}, and has to be an object")
    config: PretrainedConfig = config_class(**kept)
    if not all(isinstance(getattr(config, name), PretrainedConfig) for name in _SUBCONFIGS):
        raise UnfitFile("config.json lacks text_config or vision_config")
    _check_patches(config.vision_config)
    return config


def _parts(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (part for name in (*_SUBCONFIGS, *_OLD_NAMES) if isinstance(part := found.get(name), dict))


def _tower_fields(config_class: Any, name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    tower_class = config_class.sub_configs[name.removesuffix("_dict")]
    if tower_class.__name__ != "AutoConfig":
        return _own_fields(tower_class, found, f"{name}.")
    if (model_type := found.get("model_type")) not in _TOWERS:
        raise UnfitFile(f"config.json: {name}.model_type is {abridged(model_type)}, not one of {', '.join(_TOWERS)}")
    return {"model_type": model_type, **_own_fields(CONFIG_MAPPING[model_type], found, f"{name}.")}


def _own_fields(config_class: Any, found: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the fields that the class declares itself and the file has, each of them checked."""
    own = own_fields(config_class) | config_class.attribute_map.keys()
    own -= {*_SUBCONFIGS, "backbone_config"}
    kept = {name: value for name, value in found.items() if name in own}
    for name, value in kept.items():
        _check(f"config.json: {prefix}{name}", name, value)
    return kept


def _check(where: str, name: str, value: Any) -> None:
    if isinstance(value, str):
        if name.endswith(("_act", "activation")) and value not in _ACTIVATIONS:
            raise UnfitFile(f"{where} is {abridged(value)}, not one of {', '.join(_ACTIVATIONS)}")
        if not _PLAIN_WORD.fullmatch(value):
            raise UnfitFile(f"{where} is {abridged(value)}, which is no word that a model's code knows")
    elif isinstance(value, list):
        if len(value) > _LONGEST_LIST or not all(item is None or isinstance(item, (int, float, str)) for item in value):
            raise UnfitFile(f"{where} is {abridged(value)}, and has to be at most {_LONGEST_LIST} plain values")
        for item in value:
            _check(where, name, item)
    elif isinstance(value, dict):
        raise UnfitFile(f"{where} is {abridged(value)}, which is not supported")
    elif value is not None and not isinstance(value, bool):
        check_finite(where, value)
        _check_size(where, name, value)


def _check_size(where: str, name: str, value: Any) -> None:
    if name in ("image_size", "patch_size"):
        whole_number(where, value, 1, MAX_IMAGE_SIDE)
    elif name.endswith("_layers"):
        whole_number(where, value, 0, _MOST_LAYERS)
    elif name.endswith(("_size", "_dim", "_heads", "_positions", "_embeddings", "_channels", "num_patches")):
        whole_number(where, value, 0, _MOST_OF_ANYTHING)


def _check_patches(vision: Any) -> None:
    """Refuse patches that are no part of an image, and more of them than fit into a memory."""
    patch = min(_sides(getattr(vision, "patch_size", 1)))
    sides = _sides(getattr(vision, "image_size", patch))
    patches = getattr(vision, "num_patches", None) or (max(sides) // patch) ** 2
    if patch > max(sides) or (hasattr(vision, "patch_size") and patches > MAX_IMAGE_PATCHES):
        raise UnfitFile(
            f"config.json: vision_config.image_size and patch_size make {patches} patches of an image; a model has "
            f"from 1 to {MAX_IMAGE_PATCHES}"
        )


def _sides(size: int | Iterable[int] | None) -> list[int]:
    return [size or 1] if isinstance(size, int) or size is None else list(size) or [1]
