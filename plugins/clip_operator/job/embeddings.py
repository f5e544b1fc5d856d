"""Writes the embeddings of the rows as they are scored, a part file for each segment, so that another try can go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clip_operator.errors import JobError
from clip_operator.proof.embeddings import EmbeddingsFolder, prove_embeddings
from clip_operator.proof.manifest import Embeddings, ModelProvenance, ObjectVersion
from clip_operator.proof.standing import version
from clip_operator.request import EvaluationRequest
from clip_operator.resume import Continuation
from clip_operator.scoring import CHUNK_ROWS, RowEmbeddings, Rows
from clip_operator.storage import AccessDenied, ObjectChanged, ObjectInfo, Storage, Unchanged, display, name_of
from clip_operator.tables import Chunk, file_type_of, open_table

if TYPE_CHECKING:
    from clip_operator.tables.parquet.embeddings import EmbeddingsFile

_Embedding = NDArray[np.float32] | None


class EmbeddingsWriter:
    """Writes part files to the folder that a request names.

    A segment whose results an earlier try has left keeps its part. Where some of its rows are tried again, a new part
    has the others' embeddings of the old one.

    :param before: what stands in the folder.
    :param model: what encodes.
    :param dimensions: of an embedding.
    :param source: the version of the input.
    :param folder: a folder on the local disk, with room for two parts.
    """

    def __init__(
        self,
        storage: Storage,
        request: EvaluationRequest,
        before: EmbeddingsFolder,
        model: ModelProvenance,
        dimensions: int,
        source: ObjectVersion,
        folder: Path,
    ) -> None:
        self._storage = storage
        self._before = before
        self._dtype = request.embeddings_dtype
        self._path, self._kept_path = folder / "embeddings.parquet", folder / "kept-embeddings.parquet"
        shard = request.shard
        offset = 0 if shard is None else shard.first_row
        self._row_key = "row" if offset is not None else "row_in_shard"
        self._offset = offset or 0
        self._metadata = {
            "clip_operator": json.dumps(
                {
                    "input": source.uri,
                    "input_etag": source.etag,
                    "model": model.name,
                    "model_revision": model.revision,
                    "model_digest": model.digest,
                    "precision": model.precision,
                    "dimensions": dimensions,
                    "dtype": self._dtype,
                    "normalised": True,
                }
            )
        }
        self._dimensions = dimensions
        self._written: dict[str, ObjectInfo] = {}  # the part files of all rows so far, by name
        self._rows = self._start = 0  # so far, and at the start of the segment
        self._file: EmbeddingsFile | None = None
        self._kept: ObjectVersion | None = None
        self._kept_rows: Iterator[tuple[_Embedding, _Embedding]] | None = None

    def add(self, rows: Rows[Chunk], embeddings: RowEmbeddings, continuation: Continuation) -> ObjectVersion | None:
        """Take in the next rows; where a segment ends with them, return its part file, which stands in the store.

        :param continuation: tells which part an earlier try has left.
        :raises JobError: another job writes there, or what an earlier try has left is damaged.
        """
        known = rows.known or [None] * len(embeddings.images)
        if self._rows == self._start:
            self._kept = continuation.take_part(self._start)
        if self._file is None and (self._kept is None or None in known):
            self._begin()
        if self._file is not None:
            self._file.write(self._offset + self._rows, *self._with_kept(embeddings))
        self._rows += len(known)
        return self.end_segment() if rows.ends_segment else None

    def end_segment(self) -> ObjectVersion | None:
        """Publish what came behind the last whole segment; return its part file, or None if there were no rows."""
        if self._rows == self._start:
            return None
        uri = self._before.part(self._start)
        if self._file is None:
            assert self._kept is not None, "rows whose results are not known are written"
            part = ObjectInfo(uri, self._kept.size, self._kept.etag)
        else:
            self._file.__exit__(None, None, None)
            part = self._published(uri)
        self._written[name_of(uri)] = part
        self._start, self._file, self._kept_rows = self._rows, None, None
        return version(part)

    def proved(self, storage: Storage, request: EvaluationRequest) -> Embeddings:
        """Return what the manifest says of the part files of all rows, having seen that they stand.

        :raises JobError: another job has written there meanwhile.
        """
        return prove_embeddings(storage, request, self._written, self._rows, self._dimensions)

    def _published(self, uri: str) -> ObjectInfo:
        with suppress(AccessDenied):  # a permission of its own, which few jobs have
            self._storage.discard_unfinished_uploads(uri)  # of a try that was killed right there
        try:
            return self._storage.upload(self._path, uri, Unchanged(self._before.parts.get(name_of(uri))))
        except ObjectChanged:
            raise JobError(
                f"another job has written {display(uri)} while this one was scoring. Let one job at a time write "
                "embeddings there, and run the task again: it goes on behind what is saved"
            ) from None

    def _begin(self) -> None:
        """Begin the segment's part file, with the rows of the segment that have passed already."""
        from clip_operator.tables.parquet.embeddings import EmbeddingsFile

        self._file = EmbeddingsFile(self._path, self._row_key, self._dimensions, self._dtype, self._metadata)
        if self._kept is None:
            return
        uri = self._before.part(self._start)
        self._storage.download(ObjectInfo(uri, self._kept.size, self._kept.etag), self._kept_path)
        self._kept_rows = self._rows_of(uri)
        for first in range(self._start, self._rows, CHUNK_ROWS):
            images, texts = self._take_kept(min(CHUNK_ROWS, self._rows - first))
            self._file.write(self._offset + first, images, texts)

    def _with_kept(self, new: RowEmbeddings) -> tuple[list[_Embedding], list[_Embedding]]:
        """Return the embeddings of rows as they were kept, and new ones where none were: what is encoded again beside
        other rows may differ in the last bit."""
        if self._kept_rows is None:
            return new.images, new.texts
        kept = self._take_kept(len(new.images))
        images, texts = (
            [after if before is None else before for before, after in zip(*pair, strict=True)]
            for pair in ((kept[0], new.images), (kept[1], new.texts))
        )
        return images, texts

    def _take_kept(self, rows: int) -> tuple[list[_Embedding], list[_Embedding]]:
        assert self._kept_rows is not None
        taken = list(islice(self._kept_rows, rows))
        if len(taken) < rows:
            raise self._not_ours(self._before.part(self._start))
        return [image for image, _ in taken], [text for _, text in taken]

    def _rows_of(self, uri: str) -> Iterator[tuple[_Embedding, _Embedding]]:
        """Yield the embeddings of the rows of the part that was kept."""
        from clip_operator.tables.parquet.embeddings import IMAGE, TEXT

        with open_table(self._kept_path, file_type_of("parquet"), (IMAGE, TEXT)) as table:
            for chunk in table.chunks(CHUNK_ROWS):
                for image, text in zip(chunk.column(IMAGE), chunk.column(TEXT), strict=True):
                    yield self._embedding(image, uri), self._embedding(text, uri)

    def _embedding(self, value: object, uri: str) -> _Embedding:
        if value is None:
            return None
        try:
            embedding = np.array(value, np.float32)
        except (TypeError, ValueError):
            raise self._not_ours(uri) from None
        if embedding.shape != (self._dimensions,):
            raise self._not_ours(uri)
        return embedding

    @staticmethod
    def _not_ours(uri: str) -> JobError:
        return JobError(f"{display(uri)} does not hold the embeddings that an earlier try has written: remove it")
