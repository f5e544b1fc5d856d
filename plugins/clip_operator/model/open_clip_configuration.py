"""Makes open_clip's configuration of a checkpoint: the known fields of open_clip_config.json, within bounds.

What else may stand there names other repositories, from which a model, a tokenizer or weights would be fetched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clip_operator.model.configuration import MAX_IMAGE_PATCHES, MAX_IMAGE_SIDE
from clip_operator.model.image_processor_file import check_deviation, check_mean
from clip_operator.model.json_file import UnfitFile, abridged, check_finite, read_object, whole_number

_MOST_OF_ANYTHING = 1 << 31
_MOST_LAYERS = 1024
_MOST_TOKENS = 8192
_LARGEST_FACTOR = 64

Check = Callable[[str, Any], Any]


def read_open_clip_configuration(path: Path, has_tokenizer: bool) -> dict[str, Any]:
    """Return what open_clip is to read of a checkpoint's configuration.

    :param path: its open_clip_config.json.
    :param has_tokenizer: whether a tokenizer is among the checkpoint's files.
    :raises UnfitFile: a field is not known or cannot be right, or names what is not among the checkpoint's files.
    """
    found = read_object(path)
    model = found.get("model_cfg")
    if not isinstance(model, dict):
        raise UnfitFile(f"{path.name} has no model_cfg, which says what the model is made of")
    kept = _checked(f"{path.name}: model_cfg", model, _MODEL)
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= kept.keys():
        raise UnfitFile(f"{path.name}: model_cfg lacks embed_dim, vision_cfg or text_cfg")
    _check_patches(f"{path.name}: model_cfg.vision_cfg", kept["vision_cfg"])
    text = kept["text_cfg"]
    if text.get("hf_tokenizer_name") and not has_tokenizer:
        raise UnfitFile(
            f"{path.name}: model_cfg.text_cfg.hf_tokenizer_name is {abridged(text['hf_tokenizer_name'])}, and nothing "
            "is fetched for a checkpoint from elsewhere; put that tokenizer's files (tokenizer.json, "
            "tokenizer_config.json) beside its weights"
        )
    preprocessing = found.get("preprocess_cfg")
    if not isinstance(preprocessing, dict | None):
        raise UnfitFile(f"{path.name}: preprocess_cfg is {abridged(preprocessing)}, and has to be an object")
    size = kept["vision_cfg"].get("image_size")
    if isinstance(size, list) and len(set(size)) > 1 and (preprocessing or {}).get("resize_mode") in (None, "shortest"):
        raise UnfitFile(
            f"{path.name}: preprocess_cfg.resize_mode is 'shortest' and images are not square, which is not supported"
        )
    known = {name: value for name, value in (preprocessing or {}).items() if name in _PREPROCESSING}
    return {"model_cfg": kept, "preprocess_cfg": _checked(f"{path.name}: preprocess_cfg", known, _PREPROCESSING)}


def _checked(where: str, found: Mapping[str, Any], fields: Mapping[str, Check]) -> dict[str, Any]:
    for name, value in found.items():
        if name not in fields:
            raise UnfitFile(f"{where} has {abridged(name)}, which is not supported")
        if value is not None:
            fields[name](f"{where}.{name}", value)
    return dict(found)


def _check_patches(where: str, vision: Mapping[str, Any]) -> None:
    """Refuse patches that are no part of an image, and more of them than fit into a memory."""
    if vision.get("timm_model_name") or isinstance(vision.get("layers"), list):
        return  # the architecture's own
    size, patch = vision.get("image_size", 224), vision.get("patch_size", 16)
    height, width = size if isinstance(size, list) else (size, size)
    patches = (height // patch) * (width // patch)
    if not 1 <= patches <= MAX_IMAGE_PATCHES:
        raise UnfitFile(
            f"{where}: image_size and patch_size make {patches} patches of an image; a model has from 1 to "
            f"{MAX_IMAGE_PATCHES}"
        )


def _within(least: int, most: int) -> Check:
    return lambda where, value: whole_number(where, value, least, most)


def _one_of(*words: object) -> Check:
    def check(where: str, value: Any) -> None:
        if value not in words:
            raise UnfitFile(f"{where} is {abridged(value)}, not one of {', '.join(map(repr, words))}")

    return check


def _flag(where: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise UnfitFile(f"{where} is {abridged(value)}, and has to be true or false")


def _number(where: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnfitFile(f"{where} is {abridged(value)}, and has to be a number")
    check_finite(where, value)


def _factor(where: str, value: Any) -> None:
    _number(where, value)
    if not 0 <= value <= _LARGEST_FACTOR:
        raise UnfitFile(f"{where} is {abridged(value)}; it has to be from 0 to {_LARGEST_FACTOR}")


def _sides(where: str, value: Any) -> None:
    sides = value if isinstance(value, list) else [value]
    if len(sides) not in (1, 2):
        raise UnfitFile(f"{where} is {abridged(value)}, and has to be a height and a width")
    for side in sides:
        whole_number(where, side, 1, MAX_IMAGE_SIDE)


def _layers(where: str, value: Any) -> None:
    for number in value if isinstance(value, list) and len(value) == 4 else [value]:  # a ResNet has four stages
        whole_number(where, number, 0, _MOST_LAYERS)


def _name_of_timm(where: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"\w{1,100}(\.\w{1,100})?", value, re.ASCII):
        raise UnfitFile(f"{where} is {abridged(value)}, which is no architecture of timm's; nothing is fetched by it")


def _elsewhere(where: str, value: Any) -> None:
    if value:
        raise UnfitFile(
            f"{where} is {abridged(value)}, another repository's text tower; its configuration is not among the "
            "checkpoint's files, and nothing is fetched for it"
        )


def _any_name(where: str, value: Any) -> None:
    """Accept a name by which nothing is looked for, as that of a tokenizer: the one beside the weights is meant."""
    if not isinstance(value, str):
        raise UnfitFile(f"{where} is {abridged(value)}, and has to be a name")


def _part(fields: Mapping[str, Check]) -> Check:
    def check(where: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise UnfitFile(f"{where} is {abridged(value)}, and has to be an object")
        _checked(where, value, fields)

    return check


_size = _within(1, _MOST_OF_ANYTHING)
_token = _within(0, _MOST_OF_ANYTHING)

_FLAGS = (
    "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc", "output_tokens",
    "final_ln_after_pool",
)  # fmt: skip
_OF_BOTH_TOWERS: dict[str, Check] = {
    "layers": _layers,
    "width": _size,
    "mlp_ratio": _factor,
    "ls_init_value": _number,
    "block_type": _one_of("default", "custom"),
    "act_kwargs": _part({"approximate": _one_of("none", "tanh")}),
    "norm_kwargs": _part({"eps": _factor}),
    **dict.fromkeys(_FLAGS, _flag),
}
_VISION: dict[str, Check] = {
    **_OF_BOTH_TOWERS,
    "head_width": _size,
    "patch_size": _within(1, MAX_IMAGE_SIDE),
    "image_size": _sides,
    "patch_dropout": _factor,
    "attentional_pool": _one_of(False, True, "parallel", "cascade"),
    "attn_pooler_queries": _within(1, _MOST_TOKENS),
    "attn_pooler_heads": _size,
    "no_ln_pre": _flag,
    "pos_embed_type": _one_of("learnable", "sin_cos_2d"),
    "pool_type": _one_of("tok", "avg", "none"),
    "timm_model_name": _name_of_timm,
    "timm_model_pretrained": _flag,  # open_clip sets it to false where there are the whole model's weights
    "timm_pool": _one_of("", "abs_attn", "rot_attn", "avg", "avgmax", "catavgmax", "max", "map", "token"),
    "timm_proj": _one_of("", "linear", "mlp", "none"),
    "timm_proj_bias": _flag,
    "timm_drop": _factor,
    "timm_drop_path": _factor,
}
_TEXT: dict[str, Check] = {
    **_OF_BOTH_TOWERS,
    "context_length": _within(1, _MOST_TOKENS),
    "vocab_size": _size,
    "heads": _size,
    "embed_cls": _flag,
    "pad_id": _token,
    "eos_id": _token,
    "no_causal_mask": _flag,
    "pool_type": _one_of("argmax", "first", "last", "eos", "none"),
    "proj_bias": _flag,
    "proj_type": _one_of("linear", "none"),
    "hf_tokenizer_name": _any_name,
    "tokenizer_mode": _one_of("", "clips"),
    "tokenizer_kwargs": _part({"clean": _one_of("canonicalize", "lower", "whitespace"), "strip_sep_token": _flag}),
    "hf_model_name": _elsewhere,
    "hf_model_pretrained": _flag,
    "hf_proj_type": _any_name,  # this and the next are of a tower that is refused
    "hf_pooler_type": _any_name,
}
_MODEL: dict[str, Check] = {
    "embed_dim": _size,
    "quick_gelu": _flag,
    "custom_text": _flag,
    "init_logit_scale": _number,
    "init_logit_bias": _number,
    "nonscalar_logit_scale": _flag,
    "vision_cfg": _part(_VISION),
    "text_cfg": _part(_TEXT),
    "multimodal_cfg": _part(
        {**_TEXT, "dim_head": _size, "n_queries": _within(1, _MOST_TOKENS), "attn_pooler_heads": _size}
    ),
}
_PREPROCESSING: dict[str, Check] = {
    "size": _sides,
    "mode": _one_of("RGB"),
    "mean": check_mean,
    "std": check_deviation,
    "interpolation": _one_of("bicubic", "bilinear", "random"),
    "resize_mode": _one_of("shortest", "longest", "squash"),
    "fill_color": _within(0, 255),
}
