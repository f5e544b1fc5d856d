"""Makes a folder of what a checkpoint's digest covers and the loader needs, and of nothing that leads elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_operator.machine.scratch import scratch_folder
from clip_operator.model.image_processor_file import check_image_processor
from clip_operator.model.json_file import VOCABULARIES, UnfitFile, read_object
from clip_operator.model.tokenizer_files import (
    check_sentencepiece,
    check_special_tokens,
    check_tokenizer,
    check_tokenizer_config,
)
from clip_operator.model.weights import check_index

if TYPE_CHECKING:
    from clip_operator.model.checkpoint import Checkpoint

_INDEXES = {True: "model.safetensors.index.json", False: "pytorch_model.bin.index.json"}

IMAGE_PROCESSOR = "preprocessor_config.json"

_CHECKS = {
    "tokenizer.json": check_tokenizer,
    "tokenizer_config.json": check_tokenizer_config,
    "special_tokens_map.json": check_special_tokens,
    IMAGE_PROCESSOR: check_image_processor,
}


@contextmanager
def sealed(checkpoint: Checkpoint) -> Iterator[Path]:
    """Give a folder to load a checkpoint from, which is gone afterwards; config.json is not in it.

    Weights and vocabularies are linked to, and the configurations of the tokenizer and of the image processor written
    with the fields that are known. No chat template, adapter or generation configuration is in it.

    :raises UnfitFile: one of the files asks for what no model of the family needs.
    """
    with scratch_folder() as scratch:
        folder = scratch / "checkpoint"
        folder.mkdir()
        for name in checkpoint.files:
            if name in checkpoint.weights or name in VOCABULARIES:
                if name.endswith(".model"):
                    check_sentencepiece(name, (checkpoint.path / name).read_bytes())
                (folder / name).symlink_to((checkpoint.path / name).resolve())
        for name, content in dict(_rewritten(checkpoint)).items():
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
        yield folder


def _rewritten(checkpoint: Checkpoint) -> Iterator[tuple[str, Mapping[str, Any]]]:
    index = _INDEXES[checkpoint.safetensors]
    for name in checkpoint.files:
        path = checkpoint.path / name
        if name in _CHECKS:
            yield name, _CHECKS[name](name, read_object(path))
        elif name == "processor_config.json":
            # Where transformers 5 saves an image processor's fields, and looks first. All versions read the other file.
            inner = read_object(path).get("image_processor")
            if isinstance(inner, dict):
                yield IMAGE_PROCESSOR, check_image_processor(name, inner)
        elif name == "added_tokens.json":
            yield name, _added_tokens(name, read_object(path))
        elif name == index and index.removesuffix(".index.json") not in checkpoint.weights:
            yield name, check_index(path, checkpoint.weights)


def _added_tokens(name: str, found: Mapping[str, Any]) -> Mapping[str, Any]:
    if not all(type(number) is int and 0 <= number < 1 << 31 for number in found.values()):
        raise UnfitFile(f"{name} gives a token a number that is none")
    return found
