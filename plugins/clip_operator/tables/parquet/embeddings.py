"""Writes embeddings to Parquet: a row number, an image's embedding and a text's, each a list of one fixed size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clip_operator.machine.disk import written_to

IMAGE, TEXT = "image_embedding", "text_embedding"

_GROUP_ROWS = 4096  # of a row group, which is what is held in memory

Embeddings = Sequence[NDArray[np.float32] | None]


class EmbeddingsFile:
    """A file that is being written, as a context manager. The same rows make the same bytes.

    :param row_key: what the column of row numbers is called.
    :param dimensions: of an embedding.
    :param dtype: how its numbers are written.
    :param metadata: what the file says of itself.
    """

    def __init__(
        self,
        path: Path,
        row_key: str,
        dimensions: int,
        dtype: Literal["float16", "float32"],
        metadata: Mapping[str, str],
    ) -> None:
        self._path, self._dtype = path, np.dtype(dtype)
        self._vector = pa.list_(pa.float16() if dtype == "float16" else pa.float32(), dimensions)
        fields = [pa.field(row_key, pa.int64(), nullable=False), (IMAGE, self._vector), (TEXT, self._vector)]
        self._schema = pa.schema(fields, dict(metadata))
        with written_to(path):
            # Neither a dictionary nor a codec makes random numbers smaller.
            self._file = pq.ParquetWriter(
                path, self._schema, compression="none", use_dictionary=False, write_statistics=[row_key]
            )
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with written_to(self._path):
            if kind is None and self._pending:
                self._write_group()
            self._file.close()

    def write(self, first_row: int, images: Embeddings, texts: Embeddings) -> None:
        """Write the next rows; what they are given is copied.

        :param first_row: the number of the first of them.
        :param images: float32 [dimensions] each, or None where there is none.
        :param texts: the same.
        """
        numbers = pa.array(np.arange(first_row, first_row + len(images), dtype=np.int64))
        columns = [numbers, self._column(images), self._column(texts)]
        self._pending.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._pending_rows += len(images)
        if self._pending_rows >= _GROUP_ROWS:
            with written_to(self._path):
                self._write_group()

    def _column(self, embeddings: Embeddings) -> pa.Array:
        size = self._vector.list_size
        values = np.zeros((len(embeddings), size), self._dtype)
        for row, embedding in enumerate(embeddings):
            if embedding is not None:
                values[row] = embedding
        missing = pa.array([embedding is None for embedding in embeddings], pa.bool_())
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=self._vector, mask=missing)

    def _write_group(self) -> None:
        table = pa.Table.from_batches(self._pending)
        self._file.write_table(table, row_group_size=max(_GROUP_ROWS, table.num_rows))
        self._pending, self._pending_rows = [], 0
