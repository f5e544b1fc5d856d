"""What the readers and writers of the text formats share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from clip_operator.tables.file_types import FileType
from clip_operator.tables.text_files import TextOutput


class TextReader:
    """A text file that every pass opens for itself.

    :param columns: the names whose values chunks hold ready.
    """

    def __init__(self, path: Path, file_type: FileType, columns: Sequence[str] | None) -> None:
        self._path = path
        self._file_type = file_type
        self._columns = tuple(dict.fromkeys(columns or ()))

    @property
    def file_type(self) -> FileType:
        """The format and compression of the file."""
        return self._file_type

    def close(self) -> None:
        """Nothing stays open between passes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TextWriter:
    """One new text file, completed at the end or removed after an error."""

    def __init__(self, path: Path, file_type: FileType) -> None:
        self._output = TextOutput(path, file_type.gzip)

    def close(self) -> None:
        """Complete the file."""
        self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._output.discard()
