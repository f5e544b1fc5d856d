"""One row of a tar, and the fields that it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_operator.tables import text_files
from clip_operator.tables.table import UnreadableValue
from clip_operator.tables.tar.members import TarMember

KEY, URL, IMAGE, TEXT, JSON, MEMBERS = COLUMNS = ("__key__", "__url__", "image_path", "text", "json", "members")


@dataclass(frozen=True)
class Sample:
    """One row.

    :param image: the file that is the image, if there is one; its bytes stay in the tar.
    :param text: the caption; unreadable where its file is not UTF-8 or too long.
    :param json: the text of the .json file, if that is a JSON object.
    :param members: the names of the other files.
    """

    key: str
    tar: Path
    image: TarMember | None
    text: str | UnreadableValue | None
    json: str | None
    members: Sequence[str]

    @property
    def fields(self) -> dict[str, str | list[str]]:
        """What is written of the row: the fields that it has, in the order of ``COLUMNS``."""
        fields: dict[str, str | list[str]] = {KEY: self.key, URL: self.tar.name}
        if self.image is not None:
            fields[IMAGE] = self.image.name
        if isinstance(self.text, str):
            fields[TEXT] = self.text
        if self.json is not None:
            fields[JSON] = self.json
        if self.members:
            fields[MEMBERS] = list(self.members)
        return fields

    @property
    def size(self) -> int:
        """Bytes of the image and characters of the rest."""
        image = self.image.size if self.image and self.image.size <= text_files.MAX_ROW_LENGTH else 0
        text = len(self.text) if isinstance(self.text, str) else 0
        return image + text + len(self.key) + len(self.json or "") + sum(map(len, self.members))
