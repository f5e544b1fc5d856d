"""What every kind of input offers, and what stands on the local disk when it has been fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from clip_operator.errors import JobError
from clip_operator.request import Shard
from clip_operator.storage import ObjectInfo, display
from clip_operator.tables import WHOLE, FileType, Fragment, Partitions, Span, TableReader, open_table

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class LocalInput:
    """An input, or a shard of one, as local files.

    :param path: the file; or, of an input of many files, those that are here, as few as they may be.
    :param file_type: the type of them all. The text of a shard of one file is unpacked, whatever the input is.
    :param fragment: whether the shard is the start or the end of the whole input.
    :param row_groups: those of a Parquet file that are here; None for all.
    :param schema: the columns of the whole input where those of its Parquet files differ; None where they do not, or
        where all files are here.
    :param partitions: the columns that the files have by their folders.
    """

    path: Path | tuple[Path, ...]
    file_type: FileType
    fragment: Fragment = WHOLE
    row_groups: range | None = None
    schema: pa.Schema | None = None
    partitions: Partitions | None = None

    def open(self, columns: Sequence[str] | None = None, pair: tuple[str, str] | None = None) -> TableReader:
        """Open it for reading as one table; the parameters and the errors are those of ``open_table``."""
        return open_table(
            self.path,
            self.file_type,
            columns,
            fragment=self.fragment,
            row_groups=self.row_groups,
            schema=self.schema,
            partitions=self.partitions,
            pair=pair,
        )


class Input(Protocol):
    """One version of one input."""

    @property
    def info(self) -> ObjectInfo:
        """The version of the whole. Of many files: the URI as given, the sum of their sizes, and a digest of them."""

    @property
    def file_type(self) -> FileType:
        """The type of the file, of every file, or of what a data set is written to."""

    @property
    def files(self) -> tuple[ObjectInfo, ...]:
        """The objects it consists of, in the order of their rows; none for a Hugging Face data set."""

    @property
    def columns_of(self) -> tuple[int, ...]:
        """Which of many files, from 0, tell the columns of all where these differ; none where each of them does."""

    @property
    def partitions(self) -> Partitions | None:
        """The columns that many files have by their folders; None where there are none."""

    def cut(self, rows_at_most: int, /) -> tuple[Span, ...]:
        """Return the finest spans that it can sensibly be cut into, in order: at least one, together all of it.

        What their ``start`` and ``stop`` count is what :class:`clip_operator.request.Shard` says.

        :param rows_at_most: rows of a span, where the input can be cut between any two rows.
        :raises JobError: it cannot be read.
        """

    def fetch(self, folder: Path, shard: Shard | None = None) -> LocalInput:
        """Bring it to the local disk, or what one shard needs of it.

        :param folder: an empty folder, or one in which nothing has a name that starts with ``input``.
        :param shard: the shard's part; None for all.
        :raises JobError: the input is not the version that was cut, or it cannot be read or stored.
        """


def columns_of_folders(source: Input) -> tuple[str, ...]:
    """Return the columns that an input has by the names of its folders, in their order."""
    return () if source.partitions is None else tuple(source.partitions.types)


def check_version(info: ObjectInfo, shard: Shard) -> None:
    """Compare the version that stands there with the one that was cut into shards.

    :raises JobError: it is another one, and the shard's offsets mean nothing in it.
    """
    if info.etag != shard.input_etag:
        raise JobError(
            f"the input {display(info.uri)} changed since the step was planned; clear the plan task and those after "
            "it, so that the new input is cut and scored"
        )


def fragment_of(shard: Shard) -> Fragment:
    """Return which ends of the whole input a shard has."""
    return Fragment(first=shard.index == 0, last=shard.index == shard.of - 1)
