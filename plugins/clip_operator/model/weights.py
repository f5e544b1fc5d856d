"""Looks at a checkpoint's weights before they are loaded: how many numbers they hold, and whether nothing else."""

from __future__ import annotations

import json
import math
import pickletools
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from clip_operator.model.json_file import UnfitFile, abridged, read_object

# A hundred bytes for each tensor, of which a model has a few hundred.
_MAX_HEADER_BYTES = 16 << 20
_MOST_DIMENSIONS = 16
_MAX_PICKLE_BYTES = 16 << 20

# What torch.save makes of a dictionary of tensors, and nothing else that a pickle can ask for. Even where no code is
# run, other functions and classes allocate what they are told to.
_STATE_DICT_NAMES = {
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int")),
    *(f"torch {kind}Storage" for kind in ("Long", "Short")),
}

# Before torch 1.6 a file was a number, a version, the machine, the dictionary, and the names of what follows.
_PICKLES_OF_OLD = 5

# A model that lacks weights is refused by their names, so it may be a little larger than what its files hold.
_ROOM_FOR_ABSENT_WEIGHTS = 1 << 24


class NotOnlyWeights(Exception):
    """A pickle asks for more than tensors."""


def check_pickles(paths: Iterable[Path]) -> None:
    """Look at pickled weights without unpickling them.

    :raises NotOnlyWeights: one names anything that a dictionary of tensors does not need.
    :raises UnfitFile: one is compressed, or no file of torch.save.
    """
    for path in paths:
        try:
            names = {name for data in _pickles(path) for name in _named(data)}
        except UnfitFile:
            raise
        except Exception as error:  # zipfile and pickletools raise whatever they met in a bad file
            raise UnfitFile(f"{path.name} cannot be read: {type(error).__name__}: {str(error)[:200]}") from None
        if not names <= _STATE_DICT_NAMES:
            raise NotOnlyWeights


def _pickles(path: Path) -> Iterator[BytesIO]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            head = BytesIO(file.read(_MAX_PICKLE_BYTES))
        yield from (head for _ in range(_PICKLES_OF_OLD))
        return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise UnfitFile(f"{path.name} is compressed at {abridged(info.filename)}, which torch.save never does")
            if info.filename.endswith(".pkl"):
                if info.file_size > _MAX_PICKLE_BYTES:
                    raise UnfitFile(f"{path.name} describes its tensors in more than {_MAX_PICKLE_BYTES >> 20} MiB")
                yield BytesIO(archive.read(info))


def _named(pickle: BytesIO) -> Iterator[str]:
    """Yield what a pickle imports; for what it puts together in ways that torch.save does not, a name of no use."""
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name == "GLOBAL":
            yield str(argument)
        elif opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
            yield opcode.name


def check_index(path: Path, weights: Iterable[str]) -> dict[str, Any]:
    """Return the index of weights in several files: which of them holds which tensor.

    :param weights: the names of the files that there are.
    :raises UnfitFile: it names any other file, which the checkpoint's digest would not cover.
    """
    places = read_object(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise UnfitFile(f"{path.name} has no weight_map, which says which file holds which weight")
    if foreign := sorted(set(places.values()) - set(weights)):
        raise UnfitFile(f"{path.name} names {abridged(foreign[0])}, which is not among the checkpoint's weights")
    return {"metadata": {}, "weight_map": places}


def check_room(name: str, model: torch.nn.Module, weights: Iterable[Path]) -> None:
    """Refuse a model that is larger than its weights, before memory is allocated for it.

    :param name: of the file that describes it.
    :param model: on the meta device.
    :raises UnfitFile: that file describes more numbers than the weights hold.
    """
    held = sum(_numbers(path) for path in weights)
    described = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if described > 2 * held + _ROOM_FOR_ABSENT_WEIGHTS:
        raise UnfitFile(f"{name} describes a model of {described:,} numbers, and its weights hold {held:,}")


def check_layers(layers: Mapping[str, int], weights: Iterable[Path]) -> None:
    """Refuse more layers than there are tensors, before any is made.

    :param layers: how many the model has, by the field that says so.
    """
    held = sum(len(read_header(path)) for path in weights)
    for where, number in layers.items():
        if number > held:
            raise UnfitFile(f"{where} is {number}, and the weights are {held} tensors")


def _numbers(path: Path) -> int:
    if path.suffix != ".safetensors":
        return path.stat().st_size  # each takes a byte at least
    return sum(math.prod(shape) for shape in read_header(path).values())


def read_header(path: Path) -> dict[str, list[int]]:
    """Return the shapes of the tensors in a safetensors file, by their names.

    :raises UnfitFile: its header is too large, or says other than the file holds.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise UnfitFile(f"{path.name} was cut off: its header has {length} bytes and the file {size}")
        if length > _MAX_HEADER_BYTES:
            raise UnfitFile(f"{path.name} has a header of {length >> 20} MiB, which no model needs")
        data = file.read(length)
    try:
        header = json.loads(data)
        header.pop("__metadata__", None)
        tensors = {name: (list(entry["shape"]), list(entry["data_offsets"])) for name, entry in header.items()}
        if sum(end - begin for _, (begin, end) in tensors.values()) > size - 8 - length:
            raise ValueError("its tensors overlap, or are longer than the file")
        return {name: _checked(shape, offsets, size) for name, (shape, offsets) in tensors.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UnfitFile(f"{path.name} has a header that cannot be read: {str(error)[:200]}") from None


def _checked(shape: list[int], offsets: list[int], size: int) -> list[int]:
    # No type takes less than half a byte, so that a shape cannot promise more than twice the file's bytes.
    begin, end = offsets
    is_one = len(shape) <= _MOST_DIMENSIONS and min(shape, default=1) >= 0
    if not (0 <= begin <= end <= size and is_one and math.prod(shape) <= 2 * (end - begin)):
        raise ValueError(f"the shape {abridged(shape)} does not fit into its {end - begin} bytes")
    return shape
