"""How the steps of a data set are named, and all that stands beside them: made and recognised here, and nowhere else.

DataFlow's convention: step 0 is ``first_entry_file_name``; step n >= 1 is
``{cache_path}/{file_name_prefix}_step{n}.{cache_type}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from clip_operator.errors import RequestError
from clip_operator.storage.uri import join, name_of, parent

if TYPE_CHECKING:
    from clip_operator.storage import ObjectInfo, Storage

MANIFEST_SUFFIX = ".manifest.json"

_CLAIM_SUFFIX = ".claim.json"
_SAMPLES_SUFFIX = ".samples.json"
_WORST_ROWS_SUFFIX = ".worst-rows.csv"
_REPORT_SUFFIX = ".report.html"
_RESUME_FOLDER = ".resume/"
_SHARDS_FOLDER = ".shards/"
_PLAN_NAME = "plan.json"

_PART = re.compile(r"part-[0-9]+-of-[0-9]+\..+")
_PARTS = re.compile(r"part-\*\.[^*]+")

_EMBEDDINGS_PART = re.compile(r"part-(?:(?P<shard>[0-9]+-of-[0-9]+)-)?[0-9]{12}\.parquet")
_EMBEDDINGS_OWNER = "_owner.json"

# An output has the ending of its type; one in part files is a step, and its folder has none. Another's data may well be
# called such as train.samples.json.
_BESIDE = re.compile(
    r"(?P<output>.+?(?:\.[A-Za-z]+|_step[0-9]+))"
    rf"(?:(?P<left>{re.escape(_CLAIM_SUFFIX)}|{re.escape(_RESUME_FOLDER)}.+|{re.escape(_SHARDS_FOLDER)}.+)"
    rf"|{re.escape(MANIFEST_SUFFIX)}|{re.escape(_SAMPLES_SUFFIX)}|{re.escape(_WORST_ROWS_SUFFIX)}"
    rf"|{re.escape(_REPORT_SUFFIX)})",
    re.DOTALL,
)
_OF_PLAN = re.compile(rf"(?P<output>.+){re.escape(_SHARDS_FOLDER)}(?P<plan>[0-9a-f]+)/(?P<name>[^/]+)", re.DOTALL)


def beside(output: str) -> str:
    """Return what the URIs of all that belongs to an output, and is no data, start with.

    That is the output's own URI; for a pattern of part files their folder's; and for one part file a name that begins
    with an underscore, which readers of such folders pass over.
    """
    folder, name = parent(output), name_of(output)
    if is_in_parts(output):
        return folder
    return join(folder, f"_{name}") if _PART.fullmatch(name) else output


def is_beside_output(uri: str) -> bool:
    """Tell whether an object belongs to an output and is no data, by its name."""
    return _BESIDE.fullmatch(uri) is not None


def output_left_beside(uri: str) -> str | None:
    """Return what :func:`beside` gives for the output of which an object is left when its run has died; or None."""
    match = _BESIDE.fullmatch(uri)
    return match["output"] if match is not None and match["left"] else None


def objects_beside(output: str) -> tuple[str, ...]:
    """Return where the objects stand that belong to an output and are no data, but for what has a folder of its own."""
    return claim_uri(output), manifest_uri(output), *report_uris(output)


def claim_uri(output: str) -> str:
    """Return where the claim on an output stands."""
    return beside(output) + _CLAIM_SUFFIX


def manifest_uri(output: str) -> str:
    """Return where the manifest of an output stands: beside it, under its whole name."""
    return beside(output) + MANIFEST_SUFFIX


def samples_uri(output: str) -> str:
    """Return where the samples of an output stand."""
    return beside(output) + _SAMPLES_SUFFIX


def worst_rows_uri(output: str) -> str:
    """Return where the list of an output's rows with the lowest scores stands."""
    return beside(output) + _WORST_ROWS_SUFFIX


def report_uri(output: str) -> str:
    """Return where the report on an output stands."""
    return beside(output) + _REPORT_SUFFIX


def report_uris(output: str) -> tuple[str, ...]:
    """Return where the report on an output stands, and all that comes and goes with it."""
    return samples_uri(output), worst_rows_uri(output), report_uri(output)


def resume_prefix(output: str) -> str:
    """Return what the URIs of all resume points of an output start with."""
    return beside(output) + _RESUME_FOLDER


def shards_prefix(output: str) -> str:
    """Return what the URIs of all that shards leave for each other, until an output is put together, start with."""
    return beside(output) + _SHARDS_FOLDER


def plan_uri(output: str, plan: str) -> str:
    """Return where the plan of this id stands, which divides the step that is written to an output."""
    return f"{shards_prefix(output)}{plan}/{_PLAN_NAME}"


def planned_manifest(uri: str) -> tuple[str, str] | None:
    """Return where the manifest of the planned output stands, and the plan's id; None where no plan can stand."""
    match = _OF_PLAN.fullmatch(uri)
    return None if match is None or match["name"] != _PLAN_NAME else (match["output"] + MANIFEST_SUFFIX, match["plan"])


def whole_manifest(uri: str) -> tuple[str, str] | None:
    """Return where the manifest of the output stands that a shard is put into, and the plan's id.

    :param uri: of anything that the shard leaves for the merge; of whatever else, None is returned.
    """
    match = _OF_PLAN.fullmatch(uri)
    return None if match is None else (match["output"] + MANIFEST_SUFFIX, match["plan"])


def embeddings_prefix(folder: str, shard: str | None) -> str:
    """Return what the URIs of a folder's part files of embeddings start with: of one shard, or of all."""
    return join(folder, "part-" if shard is None else f"part-{shard}-")


def embeddings_part(folder: str, shard: str | None, first_row: int) -> str:
    """Return where the embeddings of a task's, or of a shard's, rows from this one on stand: sorted as the rows are.

    :param shard: what :func:`part_name` calls it; None where one task scores all rows.
    :param first_row: of the table that the task reads, from 0.
    """
    return f"{embeddings_prefix(folder, shard)}{first_row:012d}.parquet"


def is_embeddings_part(name: str) -> bool:
    """Tell whether a file holds embeddings, by its name."""
    return _EMBEDDINGS_PART.fullmatch(name) is not None


def shard_of_part(name: str) -> str | None:
    """Return which shard has written a part file of embeddings; None for one of a single task."""
    match = _EMBEDDINGS_PART.fullmatch(name)
    return None if match is None else match["shard"]


def embeddings_owner_uri(folder: str) -> str:
    """Return where it stands whose embeddings a folder holds; readers of such folders pass over such a name."""
    return join(folder, _EMBEDDINGS_OWNER)


def part_name(index: int, of: int) -> str:
    """Return what one of so many shards is called: ``00003-of-00007`` for index 2, in the order of the rows."""
    width = max(5, len(str(of)))
    return f"{index + 1:0{width}}-of-{of:0{width}}"


def is_in_parts(output: str) -> bool:
    """Tell whether an output is the pattern of part files that :meth:`StepSeries.parts_uri` gives."""
    return _PARTS.fullmatch(name_of(output)) is not None


def part_files(storage: Storage, pattern: str) -> list[ObjectInfo]:
    """Return the part files of one step, in the order of their rows; there may be none.

    :param pattern: as :meth:`StepSeries.parts_uri` gives it.
    """
    return sorted(_parts(storage, pattern), key=lambda info: info.uri)


def _parts(storage: Storage, pattern: str) -> Iterator[ObjectInfo]:
    start, _, end = pattern.partition("*")
    parts = (info for info in storage.list(start) if "/" not in info.uri.removeprefix(start))
    return (info for info in parts if info.uri.endswith(end))


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

    def selection(self, kind: Literal["filtered", "rejected"]) -> StepSeries:
        """Return the series of the rows of this one's steps that a filter keeps, or rejects."""
        return replace(self, file_name_prefix=f"{self.file_name_prefix}_{kind}")

    def number(self, uri: str) -> int | None:
        """Return which step (1 and up) is kept in the file, or the part files, that a URI names; None for none."""
        start = re.escape(join(self.cache_path, f"{self.file_name_prefix}_step"))
        ending = re.escape(self.cache_type)
        match = re.fullmatch(rf"{start}([1-9][0-9]*)(?:\.{ending}|/part-[^/]*\.{ending})", uri)
        return None if match is None else int(match[1])

    def existing(self, storage: Storage) -> dict[int, str]:
        """Return the written steps (1 and up) that stand in the store, the highest first, and their URIs.

        The URI of a step in part files is a pattern. Where there is one file, too, that one counts.
        """
        found: dict[int, str] = {}
        for uri in storage.list_level(join(self.cache_path, f"{self.file_name_prefix}_step")):
            step = self.number(f"{uri}part-*.{self.cache_type}" if uri.endswith("/") else uri)
            if step is None:
                continue
            if uri == self.uri(step):
                found[step] = uri
            elif step not in found and any(_parts(storage, self.parts_uri(step))):
                found[step] = self.parts_uri(step)
        return dict(sorted(found.items(), reverse=True))

    def find(self, step: int, storage: Storage) -> str:
        """Return the URI to read a step from: its file or, where there is none but part files, their pattern."""
        if step == 0 or storage.find(self.uri(step)) is not None:
            return self.uri(step)
        parts = self.parts_uri(step)
        any_part = next(iter(storage.list(parts.partition("*")[0])), None)
        return self.uri(step) if any_part is None else parts
