"""Reads WebDataset tars: a row is a run of files whose names differ only behind the first dot.

The convention is WebDataset's own (github.com/webdataset/webdataset): the folder belongs to the key, the ending is in
lower case, and a key that comes again later is another row. A row's fields are ``__key__``; ``__url__``, the tar's file
name; ``image_path``, the image's name in the tar; ``text``, the .txt file or else the field ``caption`` or ``text`` of
the .json file; ``json``, the .json file's object; and ``members``, the names of all files that are in none of these. An
image or a caption that was asked for by another name is the file with that ending, or with ``json.`` in front a field
of the .json file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from clip_operator.errors import JobError
from clip_operator.image_formats import IMAGE_ENDINGS
from clip_operator.tables import paths, text_files
from clip_operator.tables.fragment import WHOLE
from clip_operator.tables.json.members import json_string
from clip_operator.tables.json.reader import parse_object
from clip_operator.tables.rows import RowReader, in_chunks
from clip_operator.tables.table import TableScan, UnreadableValue
from clip_operator.tables.tar.columns import NamedColumns, RowsSeen, field_of
from clip_operator.tables.tar.members import TarMember, shown, tar_members
from clip_operator.tables.tar.sample import COLUMNS, IMAGE, JSON, TEXT, Sample
from clip_operator.tables.text_files import BYTE_ORDER_MARK, is_too_long, row_too_long

if TYPE_CHECKING:
    import pyarrow as pa

    from clip_operator.tables.parquet.schema import Template

MAX_MEMBERS = 10_000
"""The most files that a row may have."""

MAX_NAMES_LENGTH = 16 * 1024 * 1024
"""The most characters that the names of a row's files may have together."""

_CAPTION_FIELDS = ("caption", "text")


class TarChunk:
    """Consecutive rows. The bytes of their images are read when they are asked for.

    :param first_row: the index of the first row in the table.
    :param named: the columns beside ``COLUMNS``.
    """

    def __init__(self, first_row: int, named: Sequence[str]) -> None:
        self.first_row = first_row
        self._named = named
        self.samples: list[Sample] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self.samples)

    def add(self, row: Sample) -> None:
        """Append a row."""
        self.samples.append(row)
        self.size += row.size

    def column(self, name: str) -> list[object]:
        """Return one field's values: of ``image_path`` the images' bytes, of ``json`` the objects; None where absent.

        :class:`UnreadableValue` for a text that is not UTF-8 or too long, and an image that is larger than any row may
        be (``MAX_ROW_LENGTH``).
        """
        if name == IMAGE:
            return list(self._images([sample.image for sample in self.samples]))
        if name in self._named:
            return list(self._images([sample.named.get(name) for sample in self.samples]))
        if name == TEXT:
            return [sample.text for sample in self.samples]
        if name == JSON:
            return [None if sample.json is None else parse_object(sample.json, "") for sample in self.samples]
        return [sample.fields.get(name) for sample in self.samples]

    def _images(self, values: Sequence[object]) -> Iterator[object]:
        """Yield each row's value, the bytes where it is a member."""
        with ExitStack() as opened:
            files: dict[Path, BinaryIO] = {}
            for sample, value in zip(self.samples, values, strict=True):
                if not isinstance(value, TarMember):
                    yield value
                elif value.size > text_files.MAX_ROW_LENGTH:
                    yield UnreadableValue()
                else:
                    if sample.tar not in files:
                        files[sample.tar] = opened.enter_context(sample.tar.open("rb"))
                    yield _read(files[sample.tar], value)

    def objects(self) -> Sequence[str]:
        """Return the rows as JSON objects."""
        return [_object(sample) for sample in self.samples]

    def batches(self) -> Sequence[pa.RecordBatch]:
        """Return the rows as one of Arrow's record batches."""
        from clip_operator.tables.tar.arrow import batch_of

        return [batch_of(self.samples, self._named)]

    def select(self, kept: Sequence[bool]) -> TarChunk:
        selected = TarChunk(self.first_row, self._named)
        for sample in compress(self.samples, kept):
            selected.add(sample)
        return selected


def _object(sample: Sample) -> str:
    literals = []
    for name, value in sample.fields.items():
        if isinstance(value, list):
            literal = "[" + ", ".join(map(json_string, value)) + "]"
        else:
            literal = value if name == JSON else json_string(value)
        literals.append(f"{json_string(name)}: {literal}")
    return "{" + ", ".join(literals) + "}"


class TarReader(RowReader):
    """One WebDataset tar, or several as one table, whose errors then name the tar. Nothing is unpacked.

    :param pair: what the image and the caption are called; by default ``image_path`` and ``text``.
    """

    def __init__(self, *given: Any, pair: tuple[str, str] | None = None) -> None:
        super().__init__(*given)
        self._names = NamedColumns(*(pair or ()))

    def scan(self) -> TableScan:
        """Count the rows, by the tar's headers alone. Every tar has the same columns.

        :raises JobError: if a tar is damaged or cut off, a row has two files with the same ending, or the files of one
            do not stand together; and where this is the whole table, if no row has an image, or none a caption.
        """
        rows, seen = 0, RowsSeen(self._names)
        for file, run in self._of_all_files(_runs):
            rows += 1
            seen.see(file.name, run.key, run.files)
        if self.fragment == WHOLE:
            seen.check()
        return TableScan(rows, (*COLUMNS, *self._names.own))

    def chunks(self, rows: int, segment_rows: int | None = None) -> Iterator[TarChunk]:
        samples = self._of_all_files(partial(_samples, self._names))
        return in_chunks(samples, rows, segment_rows, lambda first_row: TarChunk(first_row, self._names.own))

    def template(self) -> Template:
        """Return what a Parquet file of the rows is like; they are counted for it."""
        from clip_operator.tables.tar.arrow import template_of

        return template_of(sum(1 for _ in self._of_all_files(_runs)), self._names.own)


@dataclass
class _Run:
    """Files with the same key that stand behind one another, by their endings."""

    key: str
    files: dict[str, TarMember] = field(default_factory=dict)
    names_length: int = 0


def _samples(names: NamedColumns, path: Path) -> Iterator[Sample]:
    for file, run in _runs(path):
        yield _sample(names, path, file, run)


def _runs(path: Path) -> Iterator[tuple[BinaryIO, _Run]]:
    run: _Run | None = None
    with path.open("rb") as file:
        for member in tar_members(file):
            split = _key_and_ending(member.name)
            if split is None:
                continue
            key, ending = split
            if run is None or key != run.key:
                if run is not None:
                    yield file, run
                run = _Run(key)
            if ending in run.files:
                raise JobError(
                    f"The tar has two files {shown(member.name)!r} in one row: {shown(run.files[ending].name)!r} "
                    f"came before, and both have the key {shown(key)!r}. Give every row a key of its own, which has no "
                    "dot: it ends at the first one"
                )
            if len(run.files) == MAX_MEMBERS:
                raise JobError(f"The row {shown(key)!r} has more than {MAX_MEMBERS:,} files, the most it may have.")
            run.names_length += len(member.name)
            if run.names_length > MAX_NAMES_LENGTH:
                raise row_too_long(f"What the files of the row {shown(key)!r} are called", most=MAX_NAMES_LENGTH)
            run.files[ending] = member
        if run is not None:
            yield file, run


def _key_and_ending(name: str) -> tuple[str, str] | None:
    """Return what rows are told apart by, and what the file is in its row; None for a file that belongs to no row."""
    folder, slash, base = name.rpartition("/")
    stem, dot, ending = base.partition(".")
    if not stem or not dot or any(_is_not_data(part) for part in folder.split("/")) or _is_not_data(stem):
        return None
    return folder + slash + stem, ending.lower()


def _is_not_data(name: str) -> bool:
    """Tell whether the name is a hidden one, one of macOS's own, or, in WebDataset, one for what is not a row's."""
    hidden = name.startswith(".") and name not in (".", "..")
    return hidden or name == "__MACOSX" or (name.startswith("__") and name.endswith("__"))


def _sample(names: NamedColumns, path: Path, file: BinaryIO, run: _Run) -> Sample:
    image = next((member for ending, member in run.files.items() if ending in IMAGE_ENDINGS), None)
    text_file, json_file = run.files.get("txt"), run.files.get("json")
    text = None if text_file is None else _text(file, text_file)
    json = None if json_file is None else _json(file, json_file)
    told = [
        image,
        text_file if isinstance(text, str) else None,
        json_file if json is not None else None,
    ]
    fields = {} if json is None else parse_object(json, "")
    if text_file is None:
        text = next((value for name in _CAPTION_FIELDS if isinstance(value := fields.get(name), str)), None)
    named: dict[str, object] = {}
    for name in names.own:
        member, in_json = run.files.get(name.lower()), field_of(name)
        if in_json is not None:
            named[name] = paths.field_of(fields, in_json)
        elif member is not None:
            named[name] = member if name == names.image else _text(file, member)
            told.append(None if isinstance(named[name], UnreadableValue) else member)
    others = [member.name for member in run.files.values() if member not in told]
    return Sample(run.key, path, image, text, json, others, named)


def _text(file: BinaryIO, member: TarMember) -> str | UnreadableValue:
    if member.size > text_files.MAX_ROW_LENGTH:
        return UnreadableValue()
    data = _read(file, member)
    try:
        return UnreadableValue() if is_too_long(data) else data.decode().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError:
        return UnreadableValue()


def _json(file: BinaryIO, member: TarMember) -> str | None:
    """Return the text of a JSON object; None if the file holds anything else, which then stays in the tar."""
    text = _text(file, member)
    if not isinstance(text, str):
        return None
    text = text.strip()
    try:
        parse_object(text, member.name)
    except JobError:
        return None
    return text


def _read(file: BinaryIO, member: TarMember) -> bytes:
    file.seek(member.offset)
    data = file.read(member.size)
    if len(data) < member.size:
        raise JobError(f"The tar is cut off inside of the member {shown(member.name)!r}. Write or upload it again.")
    return data
