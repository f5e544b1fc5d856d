"""Loads a checkpoint in transformers' format by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModel

from clip_operator.model.configuration import read_configuration
from clip_operator.model.json_file import UnfitFile
from clip_operator.model.parts import Parts
from clip_operator.model.sealed import IMAGE_PROCESSOR
from clip_operator.model.transformers_versions import IN_FLOAT32, load_image_processor, load_tokenizer
from clip_operator.model.weights import check_layers, check_pickles, check_room

if TYPE_CHECKING:
    from clip_operator.model.checkpoint import Checkpoint


def load_transformers(checkpoint: Checkpoint, folder: Path) -> Parts:
    """Load a checkpoint, from local files alone and never with code from it.

    :param folder: where its files are sealed.
    :raises UnfitFile: it asks for what no model of the family needs.
    """
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    weights = [folder / name for name in checkpoint.weights]
    config = read_configuration(checkpoint.path / "config.json")
    if checkpoint.safetensors:
        check_layers(
            {
                f"config.json: {name}.num_hidden_layers": getattr(getattr(config, name), "num_hidden_layers", 0)
                for name in ("text_config", "vision_config")
            },
            weights,
        )
    else:
        check_pickles(weights)
    with torch.device("meta"):
        check_room("config.json", AutoModel.from_config(config), weights)
    model, loading = AutoModel.from_pretrained(
        folder,
        config=config,
        use_safetensors=checkpoint.safetensors,
        weights_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused afterwards, with their names
        **IN_FLOAT32,
        **options,
    )
    if not (folder / IMAGE_PROCESSOR).is_file():
        raise UnfitFile(f"{IMAGE_PROCESSOR} is missing, which says how images are prepared")
    tokenizer = load_tokenizer(folder, config=config, **options)
    image_processor = load_image_processor(folder, config=config, **options)
    return Parts(model, tokenizer, image_processor, loading["missing_keys"], loading["mismatched_keys"])
