"""Writes a new text file, plain or gzip, that is completed at the end or removed after an error."""

from __future__ import annotations

import gzip
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from clip_operator.errors import JobError
from clip_operator.machine.disk import written_to
from clip_operator.tables.file_types import FileType
from clip_operator.tables.table import TableWriter
from clip_operator.tables.text_files import gzipped


class TextWriter(TableWriter):
    """A text file that grows. The gzip header holds neither time nor name: the same text, the same bytes.

    :raises JobError: here and in all methods, where the disk does not take the file.
    """

    def __init__(self, path: Path, file_type: FileType) -> None:
        self._path = path
        with written_to(path):
            self._file = path.open("wb")
        self._stream: BinaryIO | gzip.GzipFile = gzipped(self._file) if file_type.gzip else self._file

    def _append(self, text: str) -> None:
        """Append text, encoded as UTF-8."""
        with written_to(self._path):
            self._stream.write(text.encode())

    def close(self) -> None:
        self._close_file()

    def discard(self) -> None:
        with suppress(JobError):
            self._close_file()
        self._path.unlink(missing_ok=True)

    def _close_file(self) -> None:
        with written_to(self._path):
            try:
                self._stream.close()
            finally:
                self._file.close()
