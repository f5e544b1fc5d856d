"""Keeps what a job writes apart from what it reads, however their URIs are spelled."""

from __future__ import annotations

from clip_operator.errors import RequestError
from clip_operator.inputs.find import default_image_root
from clip_operator.inputs.input import Input
from clip_operator.inputs.listing import WILDCARDS, is_hidden, matches
from clip_operator.request import EvaluationRequest
from clip_operator.steps import is_beside_output, is_in_parts, objects_beside, part_name
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
