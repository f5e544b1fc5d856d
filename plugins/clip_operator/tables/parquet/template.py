"""What a new Parquet file takes over of the table whose rows it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Template:
    """The shape of a table in Parquet.

    :param schema: its columns, with their metadata.
    :param metadata: a footer that tells how the columns are written; None for Arrow's own way.
    :param group_sizes: the number of rows of each row group.
    """

    schema: pa.Schema
    metadata: pq.FileMetaData | None
    group_sizes: Sequence[int]
