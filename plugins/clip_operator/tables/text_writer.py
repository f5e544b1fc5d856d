"""Writes a new text file, plain or compressed, that is completed at the end or removed after an error."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from clip_operator.errors import JobError
from clip_operator.machine.disk import written_to
from clip_operator.tables.compression import packed
from clip_operator.tables.file_types import FileType
from clip_operator.tables.table import TableWriter


class TextWriter(TableWriter):
    """A text file that grows. The same text gives the same bytes.

    :param encoding: the text's; that of a byte order, and not one that begins with a mark.
    :raises JobError: here and in all methods, where the disk does not take the file.
    """

    def __init__(self, path: Path, file_type: FileType, encoding: str = "utf-8") -> None:
        self._path = path
        self._encoding = encoding
        with written_to(path):
            self._file = path.open("wb")
        self._stream = packed(self._file, file_type.compression)

    def _append(self, text: str) -> None:
        """Append text.

        :raises JobError: as in all methods, or the encoding has no place for it.
        """
        try:
            encoded = text.encode(self._encoding)
        except UnicodeEncodeError as error:
            raise JobError(
                f"{error.object[error.start]!r}, in a value or a name to add, cannot be written in {self._encoding}, "
                "the encoding of the input; write the step as jsonl, or the input as UTF-8"
            ) from None
        with written_to(self._path):
            self._stream.write(encoded)

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
