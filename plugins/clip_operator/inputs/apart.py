"""Keeps what a job writes apart from what it reads, however their URIs are spelled."""

from __future__ import annotations

from clip_operator.errors import RequestError
from clip_operator.inputs.find import default_image_root
from clip_operator.inputs.input import Input
from clip_operator.inputs.listing import WILDCARDS, is_hidden, matches
from clip_operator.request import EvaluationRequest
from clip_operator.steps import (
    embeddings_part,
    is_beside_output,
    is_in_parts,
    objects_beside,
    part_name,
    resume_prefix,
    shards_prefix,
)
from clip_operator.storage import Storage, canonical, display, join, name_of, parent


def check_outputs_apart(storage: Storage, request: EvaluationRequest, data: Input) -> None:
    """Refuse outputs that are the input, a part of it now or the next time that it is read, or one another.

    :param data: the input as it was found.
    :raises RequestError: the message names the two.
    """
    files = {storage.canonical(info.uri) for info in data.files}
    written: dict[str, str] = {}
    for output in request.outputs:
        places = {storage.canonical(uri) for uri in (output, *objects_beside(output))}
        if places & files or (is_in_parts(output) and _replaces_part(storage, output, files)):
            raise RequestError(
                f"{display(output)} is the input {display(request.input)}, or would replace a part of it; a step is "
                "never written over the one it is read from. Choose another output"
            )
        if other := next((written[place] for place in sorted(places & written.keys())), None):
            raise RequestError(f"{display(output)} must be another object than {display(other)}")
        if [info.uri for info in data.files] != [request.input] and _would_be_read(storage, output, request.input):
            raise RequestError(
                f"{display(output)} would be a part of the input {display(request.input)} the next time that it is "
                "read. Write to a place outside of it, or read with a pattern that the output does not match"
            )
        written |= dict.fromkeys(places, output)
    if request.embeddings_path is not None:
        _check_folder_apart(storage, request, data, request.embeddings_path)


def _check_folder_apart(storage: Storage, request: EvaluationRequest, data: Input, folder: str) -> None:
    """Refuse a folder for embeddings that holds the input or an output, or would be read with the input."""
    inside = f"{storage.canonical(folder).rstrip('/')}/"
    others = {display(request.input): [info.uri for info in data.files]} | {display(o): [o] for o in request.outputs}
    for shown, uris in others.items():
        if any(storage.canonical(uri).startswith(inside) for uri in uris):
            raise RequestError(
                f"{shown} is in {display(folder)}: let embeddings_path name a folder for nothing but embeddings"
            )
    for output in request.outputs:
        for left in (resume_prefix(output), shards_prefix(output)):
            if inside.startswith(storage.canonical(left)):
                raise RequestError(
                    f"{display(folder)} is removed when the job is done: let embeddings_path name another folder"
                )
    part = embeddings_part(folder, None, 0)
    if [info.uri for info in data.files] != [request.input] and _would_be_read(storage, part, request.input):
        raise RequestError(
            f"{display(folder)} would be a part of the input {display(request.input)} the next time that it is read. "
            "Let embeddings_path name a folder outside of it"
        )


def _replaces_part(storage: Storage, output: str, files: set[str]) -> bool:
    """Tell whether a step in part files, which removes those that are not its own, would remove one of these."""
    folder = storage.canonical(parent(output))
    return any(parent(uri) == folder and matches(name_of(uri), output) for uri in files)


def _would_be_read(storage: Storage, output: str, source: str) -> bool:
    """Tell whether an output is where an input of many files, or a data set in a folder, is read from."""
    name = name_of(canonical(output))
    if is_in_parts(output):
        name = name.replace("*", part_name(0, 1))
    # Not the place that a link leads to: a new object takes the place of the link itself.
    place = join(storage.canonical(parent(output)), name)
    folder = f"{storage.canonical(default_image_root(source)).rstrip('/')}/"
    inner = place.removeprefix(folder)
    if inner == place or is_beside_output(inner):
        return False
    if WILDCARDS.search(name_of(source)):
        return "/" not in inner and matches(inner, source)
    return not is_hidden(inner.split("/"))
