"""One Parquet file, cut between its row groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from clip_operator.inputs.input import LocalInput, check_version, fragment_of
from clip_operator.request import Shard
from clip_operator.storage import ObjectInfo, Storage
from clip_operator.tables import FileType, ParquetLayout, Span, parquet_layout

_MARK_BYTES = 4  # "PAR1", with which the file begins, and after its footer ends


@dataclass(frozen=True)
class OneParquet:
    """One Parquet file. A shard is some of its row groups, and nothing but these and the footer is downloaded."""

    storage: Storage
    info: ObjectInfo
    file_type: FileType
    columns_of: ClassVar[tuple[int, ...]] = ()
    partitions: ClassVar[None] = None

    @property
    def files(self) -> tuple[ObjectInfo, ...]:
        return (self.info,)

    def cut(self, _rows_at_most: int, /) -> tuple[Span, ...]:  # no row group is cut
        first_row = 0
        spans = []
        for index, group in enumerate(self._layout().row_groups):
            spans.append(Span(index, index + 1, first_row, group.rows))
            first_row += group.rows
        return tuple(spans) or (Span(0, 0, 0, 0),)

    def fetch(self, folder: Path, shard: Shard | None = None) -> LocalInput:
        path = folder / "input"
        if shard is None:
            self.storage.download(self.info, path)
            return LocalInput(path, self.file_type)
        check_version(self.info, shard)
        layout = self._layout()
        groups = layout.row_groups[shard.start : shard.stop]
        # A sparse file: every byte is where it is in the whole, as the footer says, and the rest takes no room.
        wanted = [(0, _MARK_BYTES), *((group.start, group.stop) for group in groups), layout.footer]
        for start, stop in _merged(wanted):
            self.storage.download_range(self.info, start, stop - start, path, at=start)
        return LocalInput(path, self.file_type, fragment_of(shard), range(shard.start, shard.stop))

    def _layout(self) -> ParquetLayout:
        with self.storage.open(self.info) as stream:
            return parquet_layout(stream)


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the ranges in order, those that touch as one."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    yield from merged
