"""One row of a tar, and the fields that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    :param named: what else was asked for by its ending, an image, or by a text's ending; where the row has it. Or what
        is in a field of the .json file; of that only a text is written, for the rest stands in ``json``.
    """

    key: str
    tar: Path
    image: TarMember | None
    text: str | UnreadableValue | None
    json: str | None
    members: Sequence[str]
    named: Mapping[str, object]

    @property
    def fields(self) -> dict[str, str | list[str]]:
        """What is written of the row: the fields that it has, in the order of ``COLUMNS``, then what was named."""
        fields: dict[str, str | list[str]] = {KEY: self.key, URL: self.tar.name}
        if self.image is not None:
            fields[IMAGE] = self.image.name
        if isinstance(self.text, str):
            fields[TEXT] = self.text
        if self.json is not None:
            fields[JSON] = self.json
        if self.members:
            fields[MEMBERS] = list(self.members)
        for name, value in self.named.items():
            if isinstance(value, str | TarMember):
                fields[name] = value if isinstance(value, str) else value.name
        return fields

    @property
    def size(self) -> int:
        """Bytes of the image and characters of the rest."""
        values = (self.image, self.text, *self.named.values())
        images = sum(v.size for v in values if isinstance(v, TarMember) and v.size <= text_files.MAX_ROW_LENGTH)
        texts = sum(len(value) for value in values if isinstance(value, str))
        return images + texts + len(self.key) + len(self.json or "") + sum(map(len, self.members))
