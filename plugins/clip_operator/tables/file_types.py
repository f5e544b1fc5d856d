"""Which table formats exist, how a file name tells its format, and which format can become which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from clip_operator.dialect import USUAL, Dialect
from clip_operator.errors import RequestError


class TableFormat(StrEnum):
    """How the rows of a dataset step are written down."""

    JSONL = "jsonl"
    """One JSON object a line."""
    JSON = "json"
    """One JSON array of objects, or an object in which one member is such an array."""
    CSV = "csv"
    """RFC 4180: comma, double quotes, UTF-8, a header row, unless a dialect says otherwise."""
    TSV = "tsv"
    """The same with tabs."""
    PARQUET = "parquet"
    TAR = "tar"
    """WebDataset: a row is a run of files in a tar whose names differ only in their endings. It is only read."""


DELIMITED = (TableFormat.CSV, TableFormat.TSV)
"""The formats that are cells with a delimiter between them."""


class Compression(StrEnum):
    """What the file of a text or a tar is packed with as a whole, by the ending of its name."""

    GZIP = "gz"
    BZIP2 = "bz2"
    XZ = "xz"
    ZSTD = "zst"


@dataclass(frozen=True)
class FileType:
    """A table format, and what the file as a whole is compressed with, if it is (never Parquet).

    :param dialect: what is said of how cells are written; ``USUAL`` in all formats but CSV and TSV.
    """

    format: TableFormat
    compression: Compression | None = None
    dialect: Dialect = USUAL

    def written_in(self, dialect: Dialect) -> FileType:
        """Return the type of a table that is written in a dialect, which has none where there are no cells to mark."""
        return replace(self, dialect=dialect if self.format in DELIMITED else USUAL)

    def __str__(self) -> str:
        """Return the file name's ending without its first dot: ``jsonl``, ``csv.gz``."""
        return f"{self.format.value}.{self.compression}" if self.compression else self.format.value


_FORMAT_OF_ENDING = {
    "jsonl": TableFormat.JSONL,
    "jsonlines": TableFormat.JSONL,
    "ndjson": TableFormat.JSONL,
    "json": TableFormat.JSON,
    "csv": TableFormat.CSV,
    "tsv": TableFormat.TSV,
    "parquet": TableFormat.PARQUET,
    "pq": TableFormat.PARQUET,
    "tar": TableFormat.TAR,
}
_KNOWN_ENDINGS = (
    "jsonl, json, csv, tsv and parquet, and, to be read only, tar (each but parquet also with .gz, .zst, .bz2 or .xz)"
)
_COMPRESSIONS = frozenset(Compression)
_PACKED_TARS = {"tgz": "gz", "tbz": "bz2", "tbz2": "bz2", "txz": "xz", "tzst": "zst"}
_PICKLE_ENDINGS = frozenset({"pkl", "pickle"})


def file_type_of(name: str, dialect: Dialect = USUAL) -> FileType:
    """Tell a table's file type from a file name, a URI or a bare ending (``"jsonl"``, ``"csv.gz"``).

    Upper and lower case are the same. ``ndjson`` and ``jsonlines`` mean JSONL and ``pq`` means Parquet.

    :param dialect: how it is written, should it be CSV or TSV.
    :raises RequestError: if the ending is not one of a table format, or is one that is not read on purpose (pickle).
    """
    endings = name.rsplit("/", 1)[-1].lower().split(".")
    if (packed_with := _PACKED_TARS.get(endings[-1])) is not None:
        endings[-1:] = ["tar", packed_with]
    compression = None
    if len(endings) > 1 and endings[-1] in _COMPRESSIONS:
        compression = Compression(endings.pop())
    ending = endings[-1]
    if ending in _PICKLE_ENDINGS:
        raise RequestError(
            f"{name!r} is a pickle. Pickle files are not read, because unpickling runs whatever code the file holds. "
            "Write the step as parquet (it keeps the types) or as jsonl instead."
        )
    table_format = _FORMAT_OF_ENDING.get(ending)
    if table_format is None:
        raise RequestError(f"{name!r} does not end in a known table format. Known are {_KNOWN_ENDINGS}.")
    if table_format is TableFormat.PARQUET and compression:
        raise RequestError(f"{name!r}: Parquet compresses inside the file; name it without .{compression}.")
    return FileType(table_format, compression).written_in(dialect)


_LOSSLESS_TARGETS: dict[TableFormat, tuple[TableFormat, ...]] = {
    TableFormat.JSONL: (TableFormat.JSONL, TableFormat.JSON),
    TableFormat.JSON: (TableFormat.JSON, TableFormat.JSONL),
    TableFormat.CSV: (TableFormat.CSV, TableFormat.JSONL, TableFormat.JSON),
    TableFormat.TSV: (TableFormat.TSV, TableFormat.JSONL, TableFormat.JSON),
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
    elif source.format in DELIMITED and target.format in DELIMITED:
        why = "its delimiter would be another, and what stands in quotes as well"
    elif source.format is TableFormat.PARQUET:
        why = "text has no place for Parquet's column types, binary values and metadata"
    else:
        why = "CSV cannot tell a number from a string or a missing field from an empty one, and holds no nested values"
    raise RequestError(
        f"A {source.format} table cannot be written as {target.format} without loss: {why}. "
        f"Choose {' or '.join(choices)} for the output."
    )
