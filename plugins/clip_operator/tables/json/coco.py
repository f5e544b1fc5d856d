"""COCO's layout: captions are one list of an object, and the images that they are of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clip_operator.tables import text_files
from clip_operator.tables.json.members import json_literal
from clip_operator.tables.json.reader import FILE_NAME, JsonRow
from clip_operator.tables.text_files import row_too_long, width_of

ANNOTATIONS = "annotations"

_IMAGES = "images"
_MEMBERS = {_IMAGES: {"id", FILE_NAME}, ANNOTATIONS: {"image_id", "caption"}}
_BYTES_OF_AN_IMAGE = 256  # beside its name: its id, both as objects, and their place in a dictionary


class CocoImages:
    """The names of a file's images by their ids, gathered before it is known whether the file is COCO's.

    :raises JobError: it is, and they take more memory than a row may.
    """

    def __init__(self) -> None:
        self._first: dict[str, bool] = {}
        self._names: dict[object, str] = {}
        self._size = 0

    def add(self, table: str, fields: Mapping[str, object]) -> None:
        """Take in an element of a list of objects.

        :param table: the name of the list.
        """
        if table not in _MEMBERS:
            return
        is_like_coco = self._first.setdefault(table, _MEMBERS[table] <= fields.keys())
        name, key = fields.get(FILE_NAME), fields.get("id")
        if table != _IMAGES or not (is_like_coco and isinstance(name, str) and isinstance(key, (int, str))):
            return
        self._size += len(name) * width_of(name) + _BYTES_OF_AN_IMAGE if name else 0
        if self._size <= text_files.MAX_ROW_LENGTH:
            self._names[key] = name

    def of(self, tables: Sequence[str]) -> Mapping[object, str] | None:
        """Return the names by id, or None if the file is not COCO's.

        :param tables: the names of all lists of objects in the file.
        """
        if not all(tables.count(name) == 1 and self._first.get(name) for name in _MEMBERS):
            return None
        if self._size > text_files.MAX_ROW_LENGTH:
            raise row_too_long("The list of images", "Write each annotation with its file_name, as JSON lines.")
        return self._names


def joined(row: JsonRow, images: Mapping[object, str]) -> JsonRow:
    """Return an annotation with the name of its image, None if the file has no such image."""
    if FILE_NAME in row.fields:
        return row
    key = row.fields.get("image_id")
    name = images.get(key) if isinstance(key, (int, str)) else None
    return row._replace(fields={**row.fields, FILE_NAME: name}, joined=json_literal(name))
