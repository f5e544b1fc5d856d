"""Tells which version of a Hugging Face data set lies in a local folder, alike on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path


def folder_version(
    folder: Path, is_own: Callable[[Path], bool], is_saved: bool, chosen: Sequence[str]
) -> tuple[str, int]:
    """Return a digest of the files' names, sizes and contents, and the sum of their sizes in bytes.

    The fingerprint that ``datasets`` gives what it loads from a folder will not do: the folder's path and the files'
    times go into it. A folder that ``save_to_disk`` has written holds the fingerprint that the data had then, which
    stands for the contents of all but the small files of JSON.

    :param is_own: tells which files are the data set's: a link to elsewhere is none of them, and is not read.
    :param is_saved: the folder was written by ``save_to_disk``.
    :param chosen: what else decides the rows, such as the split.
    :raises OSError: a file cannot be read.
    """
    listed: list[tuple[str, int, str]] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in name.split("/")) or not (path.is_file() and is_own(path)):
            continue
        if is_saved and path.name.startswith("cache-"):  # what a reader has computed from the data
            continue
        content = "" if is_saved and path.suffix != ".json" else _digest(path)
        listed.append((name, path.stat().st_size, content))
    described = json.dumps([list(chosen), listed])
    return hashlib.sha256(described.encode(errors="surrogatepass")).hexdigest(), sum(size for _, size, _ in listed)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
