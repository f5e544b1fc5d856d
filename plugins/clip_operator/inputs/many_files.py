"""Many part files, or tars, of one type as one table, cut between the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from clip_operator.errors import Cancelled, JobError
from clip_operator.inputs.input import LocalInput, check_version, fragment_of
from clip_operator.inputs.partitions import inside
from clip_operator.machine.disk import written_to
from clip_operator.machine.threads import in_threads
from clip_operator.request import Shard
from clip_operator.storage import ObjectInfo, Storage, display, parent
from clip_operator.tables import (
    FileType,
    NotUnpacked,
    ParquetLayout,
    Partitions,
    Span,
    TableFormat,
    parquet_layout,
    unified_schema,
    unpacked,
)

if TYPE_CHECKING:
    import pyarrow as pa

_DOWNLOADS = 4  # each of them reads several ranges of a large file at once
_FOOTERS = 16
_LONGEST_NAME_BYTES = 255

# A compressed tar may have so much in it: images are compressed already, and only empty ones shrink to less.
_MOST_TIMES_PACKED, _MOST_BYTES_BESIDE = 100, 1 << 30
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class ManyFiles:
    """Files of one type, whose rows follow one another in the order of the files. A shard is some of the files."""

    storage: Storage
    info: ObjectInfo
    file_type: FileType
    files: tuple[ObjectInfo, ...]
    partitions: Partitions | None = None

    def cut(self, _rows_at_most: int, /) -> tuple[Span, ...]:  # no file is cut
        first_row: int | None = 0
        spans = []
        for index, rows in enumerate(self._rows()):
            spans.append(Span(index, index + 1, first_row if rows is not None else None, rows))
            first_row = first_row + rows if first_row is not None and rows is not None else None
        return tuple(spans)

    def _rows(self) -> Sequence[int | None]:
        """Return how many rows each file has, where that can be told from a few small requests."""
        if self.file_type.format is not TableFormat.PARQUET:
            return [None] * len(self.files)
        return [layout.rows for layout in self._layouts]

    @property
    def columns_of(self) -> tuple[int, ...]:
        if self.file_type.format is not TableFormat.PARQUET:
            return ()
        names = [display(info.uri) for info in self.files]
        _, telling = unified_schema(zip(names, (layout.schema for layout in self._layouts), strict=True))
        return tuple(telling) if len(telling) > 1 else ()

    @cached_property
    def _layouts(self) -> list[ParquetLayout]:
        return in_threads(_FOOTERS, self._layout_of, self.files)

    def _layout_of(self, info: ObjectInfo) -> ParquetLayout:
        try:
            with self.storage.open(info) as stream:
                return parquet_layout(stream)
        except JobError as error:
            if info.uri in str(error) or isinstance(error, Cancelled):
                raise
            raise JobError(f"{display(info.uri)}: {error}") from error

    def _local(self, info: ObjectInfo) -> Path:
        """Return where a file lies from the input's folder on."""
        inner = inside(f"{parent(self.info.uri)}/", info.uri)
        return Path(*(_local_name(segment) for segment in inner.split("/") if segment not in ("", ".", "..")))

    def _schema(self, columns_of: Sequence[int]) -> pa.Schema | None:
        """Return the columns of all files, which these tell."""
        if not columns_of:
            return None
        if max(columns_of) >= len(self.files):
            raise JobError(f"{display(self.info.uri)} has {len(self.files):,} files, and no file {max(columns_of):,}")
        files = [self.files[index] for index in columns_of]
        layouts = in_threads(_FOOTERS, self._layout_of, files)
        named = zip(files, layouts, strict=True)
        return unified_schema((display(info.uri), layout.schema) for info, layout in named)[0]

    def fetch(self, folder: Path, shard: Shard | None = None) -> LocalInput:
        if shard is not None:
            check_version(self.info, shard)
        first, last = (0, len(self.files)) if shard is None else (shard.start, shard.stop)
        wanted, partitions = self.files[first:last], self.partitions and self.partitions.of(slice(first, last))
        # A folder for each: files of different folders may have the same name, and errors are to tell it.
        paths = [folder / "input" / f"{first + index:06d}" / self._local(info) for index, info in enumerate(wanted)]
        with written_to(folder / "input"):
            for path in paths:
                path.parent.mkdir(parents=True)
        in_threads(_DOWNLOADS, lambda pair: self._bring(*pair), zip(wanted, paths, strict=True))
        # Of an input that is one file, it is said already which one an error speaks of.
        local = paths[0] if self.files == (self.info,) else tuple(paths)
        file_type = replace(self.file_type, compression=None) if self._is_packed_tar else self.file_type
        if shard is None:
            return LocalInput(local, file_type, partitions=partitions)
        schema = self._schema(shard.columns_of)
        return LocalInput(local, file_type, fragment_of(shard), schema=schema, partitions=partitions)

    @property
    def _is_packed_tar(self) -> bool:
        """Whether the files are unpacked when they are fetched: their members are then found where they stand."""
        return self.file_type.format is TableFormat.TAR and self.file_type.compression is not None

    def _bring(self, info: ObjectInfo, path: Path) -> None:
        if not self._is_packed_tar:
            self.storage.download(info, path)
            return
        room = info.size * _MOST_TIMES_PACKED + _MOST_BYTES_BESIDE
        with written_to(path), self.storage.open(info) as stream, path.open("wb") as out:
            source = unpacked(stream, self.file_type.compression)
            try:
                while block := source.read(_BLOCK_BYTES):
                    out.write(block)
                    room -= len(block)
                    if room < 0:
                        raise NotUnpacked(
                            f"The tar has more than {_MOST_TIMES_PACKED} times as much in it as its file has, which is "
                            "not unpacked here. Unpack it once"
                        )
            except NotUnpacked as error:
                raise JobError(f"{display(info.uri)}: {error}") from None


def _local_name(name: str) -> str:
    return (
        name if len(name.encode(errors="surrogatepass")) <= _LONGEST_NAME_BYTES else name[-_LONGEST_NAME_BYTES // 4 :]
    )
