"""How the versioned steps of a data set are named: step 0 is the first entry, step n is written by a task.

DataFlow's convention: step 0 is ``first_entry_file_name``; step n >= 1 is
``{cache_path}/{file_name_prefix}_step{n}.{cache_type}``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clip_operator.errors import RequestError
from clip_operator.storage.uri import join

if TYPE_CHECKING:
    from clip_operator.storage import Storage

MANIFEST_SUFFIX = ".manifest.json"


def manifest_uri(output: str) -> str:
    """Return where the manifest of an output object stands: beside it, under its whole name."""
    return output + MANIFEST_SUFFIX


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

    def existing(self, storage: Storage) -> list[int]:
        """Return the written steps (1 and up) that stand in the store, the highest first."""
        start = join(self.cache_path, f"{self.file_name_prefix}_step")
        name = re.compile(re.escape(start) + r"([1-9][0-9]*)\." + re.escape(self.cache_type))
        matches = (name.fullmatch(found.uri) for found in storage.list(start))
        return sorted((int(match[1]) for match in matches if match), reverse=True)
