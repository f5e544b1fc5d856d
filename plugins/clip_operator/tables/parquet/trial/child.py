"""The process that decodes Parquet to see what that takes. Nothing comes of it but the answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from clip_operator.errors import JobError
from clip_operator.tables.parquet.reader import FilePart
from clip_operator.tables.parquet.trial.limits import memory_held

_FOOTER_END_BYTES = 8


def main() -> None:
    """Answer, for each line of standard input, whether what it names could be decoded, until there are no more."""
    pa.set_cpu_count(1)  # a thread has memory of its own
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_problem(json.loads(line))) + "\n")
        sys.stdout.flush()


def _problem(task: dict[str, Any]) -> str:
    """Return what the reader is to raise, "" for nothing."""
    try:
        _decode(Path(task["path"]), task["group"], task["rows"])
    except JobError as error:
        # Of a footer that stands alone the rows are missing. What else is wrong with it the reader will see itself.
        return str(error) if task["rows"] else ""
    except OSError:
        return ""
    return ""


def _decode(path: Path, group: int | None, rows: int) -> None:
    with memory_held(_footer_bytes(path)):
        part = FilePart(path, None if group is None else range(group, group + 1))
    if group is None or not rows:
        return
    metadata = part.metadata.row_group(group)
    chunks = map(metadata.column, range(metadata.num_columns))
    held = sum(max(0, chunk.total_compressed_size) for chunk in chunks)
    with memory_held(min(held, path.stat().st_size)):
        for _ in part.batches(rows):
            pass


def _footer_bytes(path: Path) -> int:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _FOOTER_END_BYTES))
        return min(size, int.from_bytes(file.read(4), "little"))
