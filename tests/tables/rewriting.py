"""What the tests of this folder share: a table read and written again with added columns, through the front door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from clip_operator.errors import JobError
from clip_operator.tables import (
    WHOLE,
    AddedType,
    AddedValue,
    Fragment,
    TableScan,
    create_table,
    file_type_of,
    open_table,
)

Added = Mapping[str, Sequence[AddedValue]]


def types_of(added: Added) -> dict[str, AddedType]:
    """The type of each column, told from its values."""
    return {
        name: AddedType.STRING if any(isinstance(value, str) for value in values) else AddedType.FLOAT64
        for name, values in added.items()
    }


def rewrite(
    source: Path | Sequence[Path], target: Path, added: Added, rows: int = 1000, fragment: Fragment = WHOLE
) -> None:
    """Read the source in chunks of `rows` rows and write them to the target with the added columns.

    :param fragment: the place of the source in its table, and of the target in its.
    """
    source_type = file_type_of((source if isinstance(source, Path) else source[0]).name)
    with (
        open_table(source, source_type, fragment=fragment) as reader,
        create_table(target, file_type_of(target.name), reader, types_of(added), fragment=fragment) as writer,
    ):
        for chunk in reader.chunks(rows):
            end = chunk.first_row + len(chunk)
            writer.write(chunk, {name: values[chunk.first_row : end] for name, values in added.items()})


def rewritten(folder: Path, name: str, content: bytes, added: Added, rows: int = 1000, target: str = "") -> bytes:
    """The bytes that a file of this name and content becomes."""
    source = folder / name
    source.write_bytes(content)
    output = folder / ("out." + (target or name))
    rewrite(source, output, added, rows)
    return output.read_bytes()


def scan(path: Path) -> TableScan:
    """What one pass over a file tells."""
    with open_table(path, file_type_of(path.name)) as reader:
        return reader.scan()


def refusal(folder: Path, name: str, content: bytes, columns: Sequence[str] | None = None) -> str:
    """The words in which a file of this name and content is refused when these columns are asked for."""
    path = folder / name
    path.write_bytes(content)
    with pytest.raises(JobError) as caught, open_table(path, file_type_of(name), columns) as reader:
        reader.scan()
    return str(caught.value)
