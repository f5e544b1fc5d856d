"""One JSONL, JSON, CSV or TSV file, plain or compressed, cut between its records."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, ClassVar

from clip_operator.errors import JobError
from clip_operator.inputs.input import LocalInput, check_version, fragment_of
from clip_operator.machine.disk import written_to
from clip_operator.machine.stopping import check_not_stopped
from clip_operator.request import Shard
from clip_operator.storage import ObjectInfo, Storage, display
from clip_operator.tables import DELIMITED, FileType, NotUnpacked, Span, cut_text, header_of, unpacked

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class OneText:
    """One text file. A shard is a span of the bytes of its text, unpacked, which is all that is downloaded.

    Of a compressed file all bytes up to the end of the shard are read, for there is no other way to it; none is kept.
    """

    storage: Storage
    info: ObjectInfo
    file_type: FileType
    columns_of: ClassVar[tuple[int, ...]] = ()
    partitions: ClassVar[None] = None

    @property
    def files(self) -> tuple[ObjectInfo, ...]:
        return (self.info,)

    def cut(self, rows_at_most: int, /) -> tuple[Span, ...]:
        with self.storage.open(self.info) as stream:
            return cut_text(stream, self.file_type, rows_at_most).spans

    def fetch(self, folder: Path, shard: Shard | None = None) -> LocalInput:
        path = folder / "input"
        if shard is None:
            self.storage.download(self.info, path)
            return LocalInput(path, self.file_type)
        check_version(self.info, shard)
        header = self._header(path) if self.file_type.format in DELIMITED else b""
        with _errors_explained(self.info, path):
            path.write_bytes(header)
            if self.file_type.compression:
                self._unpack(shard, path)
        if not self.file_type.compression and shard.stop > shard.start:
            self.storage.download_range(self.info, shard.start, shard.stop - shard.start, path, at=len(header))
        return LocalInput(path, replace(self.file_type, compression=None), fragment_of(shard))

    def _header(self, path: Path) -> bytes:
        with _errors_explained(self.info, path), self._text() as text:
            return header_of(text, replace(self.file_type, compression=None))

    def _unpack(self, shard: Shard, path: Path) -> None:
        """Append the shard's text to the file."""
        with self._text() as text, path.open("ab") as out:
            _copy(text, None, shard.start)
            if (missing := _copy(text, out, shard.stop - shard.start)) > 0:
                raise JobError(f"{display(self.info.uri)} ends {missing:,} bytes before the end of the shard to score")

    @contextmanager
    def _text(self) -> Iterator[BinaryIO]:
        with self.storage.open(self.info) as stream:
            yield io.BufferedReader(unpacked(stream, self.file_type.compression))


def _copy(source: BinaryIO, target: BinaryIO | None, length: int) -> int:
    """Read ``length`` bytes, write them to ``target`` if there is one, and return how many were missing."""
    while length > 0 and (block := source.read(min(length, _BLOCK_BYTES))):
        check_not_stopped()
        if target is not None:
            target.write(block)
        length -= len(block)
    return length


@contextmanager
def _errors_explained(info: ObjectInfo, path: Path) -> Iterator[None]:
    """Say which object cannot be unpacked, or what is wrong with the disk that ``path`` is on."""
    with written_to(path):
        try:
            yield
        except NotUnpacked as error:
            raise JobError(f"{display(info.uri)}: {error}") from None
