"""Which table formats exist, how a file name tells its format, and which format can become which."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from clip_operator.errors import RequestError


class TableFormat(StrEnum):
    """How the rows of a dataset step are written down."""

    JSONL = "jsonl"
    """One JSON object a line."""
    JSON = "json"
    """One JSON array of objects."""
    CSV = "csv"
    """RFC 4180: comma, double quotes, UTF-8, a header row."""
    PARQUET = "parquet"
    TAR = "tar"
    """WebDataset: a row is a run of files in a tar whose names differ only in their endings. It is only read."""


@dataclass(frozen=True)
class FileType:
    """A table format, and whether the file as a whole is gzip-compressed (text formats only)."""

    format: TableFormat
    gzip: bool = False

    def __str__(self) -> str:
        """Return the file name's ending without its first dot: ``jsonl``, ``csv.gz``."""
        return f"{self.format.value}.gz" if self.gzip else self.format.value


_FORMAT_OF_ENDING = {
    "jsonl": TableFormat.JSONL,
    "ndjson": TableFormat.JSONL,
    "json": TableFormat.JSON,
    "csv": TableFormat.CSV,
    "parquet": TableFormat.PARQUET,
    "pq": TableFormat.PARQUET,
    "tar": TableFormat.TAR,
}
_KNOWN_ENDINGS = "jsonl, json, csv (each also with .gz) and parquet; and tar, to be read only"
_PACKERS = frozenset({"gz", "bz2", "xz", "zst", "lz4"})
_PACKED_TARS = frozenset({"tgz", "tbz", "tbz2", "txz", "tzst"})
_PICKLE_ENDINGS = frozenset({"pkl", "pickle"})


def file_type_of(name: str) -> FileType:
    """Tell a table's file type from a file name, a URI or a bare ending (``"jsonl"``, ``"csv.gz"``).

    Upper and lower case are the same. ``ndjson`` means JSONL and ``pq`` means Parquet.

    :raises RequestError: if the ending is not one of a table format, or is one that is not read on purpose: a pickle, a
        compressed tar.
    """
    endings = name.rsplit("/", 1)[-1].lower().split(".")
    if endings[-1] in _PACKED_TARS or (endings[-1] in _PACKERS and endings[-2:-1] == ["tar"]):
        raise RequestError(
            f"{name!r} is a compressed tar. Its files could not be found without unpacking all of it, and images are "
            "compressed already, so tars are read as they are: unpack it once, as with gzip -d or zstd -d."
        )
    compressed = len(endings) > 1 and endings[-1] == "gz"
    if compressed:
        endings.pop()
    ending = endings[-1]
    if ending in _PICKLE_ENDINGS:
        raise RequestError(
            f"{name!r} is a pickle. Pickle files are not read, because unpickling runs whatever code the file holds. "
            "Write the step as parquet (it keeps the types) or as jsonl instead."
        )
    table_format = _FORMAT_OF_ENDING.get(ending)
    if table_format is None:
        raise RequestError(f"{name!r} does not end in a known table format. Known are {_KNOWN_ENDINGS}.")
    if table_format is TableFormat.PARQUET and compressed:
        raise RequestError(f"{name!r}: Parquet compresses inside the file; name it without .gz.")
    return FileType(table_format, compressed)


_LOSSLESS_TARGETS: dict[TableFormat, tuple[TableFormat, ...]] = {
    TableFormat.JSONL: (TableFormat.JSONL, TableFormat.JSON),
    TableFormat.JSON: (TableFormat.JSON, TableFormat.JSONL),
    TableFormat.CSV: (TableFormat.CSV, TableFormat.JSONL, TableFormat.JSON),
    TableFormat.PARQUET: (TableFormat.PARQUET,),
    TableFormat.TAR: (TableFormat.JSONL, TableFormat.JSON, TableFormat.PARQUET),
}


def check_conversion(source: FileType, target: FileType) -> None:
    """Accept a pair of file types only if the target can hold every row of the source as it is.

    :raises RequestError: if it cannot; the text says why, and which formats can.
    """
    choices = _LOSSLESS_TARGETS[source.format]
    if target.format in choices:
        return
    if target.format is TableFormat.TAR:
        why = "tars are only read, because the output of a tar is the table of its rows, without the images"
    elif target.format is TableFormat.PARQUET:
        why = "Parquet has one type a column, so numbers, missing fields and nested values would be altered"
    elif source.format is TableFormat.PARQUET:
        why = "text has no place for Parquet's column types, binary values and metadata"
    else:
        why = "CSV cannot tell a number from a string or a missing field from an empty one, and holds no nested values"
    raise RequestError(
        f"A {source.format} table cannot be written as {target.format} without loss: {why}. "
        f"Choose {' or '.join(choices)} for the output."
    )
