"""How the versioned steps of a data set are named: step 0 is the first entry, step n is written by a task.

DataFlow's convention: step 0 is ``first_entry_file_name``; step n >= 1 is
``{cache_path}/{file_name_prefix}_step{n}.{cache_type}``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clip_operator.errors import RequestError
from clip_operator.storage.uri import join, name_of, parent

if TYPE_CHECKING:
    from clip_operator.storage import ObjectInfo, Storage

MANIFEST_SUFFIX = ".manifest.json"

SHARDS_FOLDER = ".shards/"

_PART = re.compile(r"part-[0-9]+-of-[0-9]+\..+")


def beside(output: str) -> str:
    """Return what the URIs of all that belongs to an output, and is no data, start with.

    That is the output's own URI; for a pattern of part files their folder's; and for one part file a name that begins
    with an underscore, which readers of such folders pass over.
    """
    folder, name = parent(output), name_of(output)
    if "*" in name:
        return folder
    return join(folder, f"_{name}") if _PART.fullmatch(name) else output


def manifest_uri(output: str) -> str:
    """Return where the manifest of an output stands: beside it, under its whole name."""
    return beside(output) + MANIFEST_SUFFIX


def shards_prefix(output: str) -> str:
    """Return what the URIs of all that shards leave for each other, until an output is put together, start with."""
    return beside(output) + SHARDS_FOLDER


def part_name(index: int, of: int) -> str:
    """Return what one of so many shards is called: ``00003-of-00007`` for index 2, in the order of the rows."""
    width = max(5, len(str(of)))
    return f"{index + 1:0{width}}-of-{of:0{width}}"


def part_files(storage: Storage, pattern: str) -> list[ObjectInfo]:
    """Return the part files of one step, in the order of their rows; there may be none.

    :param pattern: as :meth:`StepSeries.parts_uri` gives it.
    """
    start, _, end = pattern.partition("*")
    parts = (info for info in storage.list(start) if "/" not in info.uri.removeprefix(start))
    return sorted((info for info in parts if info.uri.endswith(end)), key=lambda info: info.uri)


@dataclass(frozen=True)
class StepSeries:
    """The steps of one data set.

    :param first_entry_file_name: URI of step 0; may be empty when no task reads step 0.
    :param cache_path: URI of the folder that holds the later steps.
    :param file_name_prefix: what their names start with.
    :param cache_type: their suffix without the dot: ``jsonl``, ``json``, ``csv``, ``parquet``, ``jsonl.gz``, …
    """

    first_entry_file_name: str
    cache_path: str
    file_name_prefix: str
    cache_type: str

    def uri(self, step: int) -> str:
        """Return the URI of a step.

        :raises RequestError: the step is negative, or it is 0 and there is no ``first_entry_file_name``.
        """
        if step < 0:
            raise RequestError(f"step must be 0 or more, not {step}")
        if step > 0:
            return join(self.cache_path, f"{self.file_name_prefix}_step{step}.{self.cache_type}")
        if not self.first_entry_file_name:
            raise RequestError("step 0 is the file that first_entry_file_name names, and it is empty")
        return self.first_entry_file_name

    def parts_uri(self, step: int) -> str:
        """Return the URI of a step (1 and up) that is kept in part files: a pattern."""
        return join(self.cache_path, f"{self.file_name_prefix}_step{step}/part-*.{self.cache_type}")

    def filtered_uri(self, step: int) -> str:
        """Return the URI of the kept rows of a step (1 and up): a step of the series ``{prefix}_filtered``."""
        return join(self.cache_path, f"{self.file_name_prefix}_filtered_step{step}.{self.cache_type}")

    def existing(self, storage: Storage) -> dict[int, str]:
        """Return the written steps (1 and up) that stand in the store, the highest first, and their URIs.

        The URI of a step in part files is a pattern. Where there is one file, too, that one counts.
        """
        start = join(self.cache_path, f"{self.file_name_prefix}_step")
        ending = re.escape(self.cache_type)
        name = re.compile(re.escape(start) + rf"([1-9][0-9]*)(\.{ending}|/part-[^/]*\.{ending})")
        found: dict[int, str] = {}
        for info in storage.list(start):
            if match := name.fullmatch(info.uri):
                step, is_file = int(match[1]), match[2][0] == "."
                if is_file or step not in found:
                    found[step] = self.uri(step) if is_file else self.parts_uri(step)
        return dict(sorted(found.items(), reverse=True))

    def find(self, step: int, storage: Storage) -> str:
        """Return the URI to read a step from: its file or, where there is none but part files, their pattern."""
        if step == 0 or storage.find(self.uri(step)) is not None:
            return self.uri(step)
        parts = self.parts_uri(step)
        any_part = next(iter(storage.list(parts.partition("*")[0])), None)
        return self.uri(step) if any_part is None else parts
