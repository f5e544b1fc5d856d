"""Peak memory at 10,000 and at 200,000 rows: how large a data set is must not show."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.captions import captions
from benchmarks.checkpoints import tiny
from benchmarks.contestant import Contestant, Reply
from benchmarks.kept import kept
from benchmarks.photos import THUMBNAIL, thumbnails
from benchmarks.record import Goal, Record, Table, median, spread
from benchmarks.workbench import Workbench

_ROW_GROUP = 1000
_IMAGE_PIXELS = 224
"""What the model resizes images to. The size of real models, so that pixels that are kept too long show."""
_LARGEST_RATIO = 1.10


def run(bench: Workbench) -> Record:
    """Evaluate the smaller data set, the larger, and the smaller again, with a tiny model, each in a fresh process."""
    checkpoint = tiny(bench.data, _IMAGE_PIXELS)
    few, many = bench.pick(10_000, 300), bench.pick(200_000, 1200)
    record = Record("memory", {"rows": [few, many, few], "image": THUMBNAIL, "model": checkpoint.name})
    found: dict[int, list[Reply]] = {few: [], many: []}
    for rows in (few, many, few):
        print(f"  {rows:,} rows", flush=True)
        found[rows].append(_evaluate(bench, checkpoint, _dataset(bench.data, rows)))
    peaks = {rows: [reply["peak_bytes"] for reply in replies] for rows, replies in found.items()}
    table = [
        [
            f"{rows:,}",
            spread([peak / 2**20 for peak in peaks[rows]], 0),
            spread([reply["rows_per_second"] for reply in replies], 0),
        ]
        for rows, replies in found.items()
    ]
    record.tables.append(Table("Peak resident memory of one evaluation", ["rows", "MiB", "rows/s"], table))
    growth = median(peaks[many]) / median(peaks[few])
    record.goals.append(Goal(f"peak at {many:,} rows over the one at {few:,}", growth, at_most=_LARGEST_RATIO))
    record.measurements = {str(rows): replies for rows, replies in found.items()}
    return record


def _evaluate(bench: Workbench, checkpoint: Path, dataset: Path) -> Reply:
    request = {"model": str(checkpoint), "device": "cpu", "input_image_key": "image"}
    output = bench.scratch / "memory-scored.parquet"
    with Contestant("evaluation", {"request": request}, bench.log("memory")) as fresh:
        reply = fresh.ask(input=str(dataset), output=str(output))
    output.unlink()
    return reply


def _dataset(data: Path, rows: int) -> Path:
    """Return a Parquet file with a different small JPEG and caption in each row, written as a stream."""
    return kept(data / f"thumbnails-{rows}.parquet", partial(_write, rows=rows))


def _write(path: Path, rows: int) -> None:
    schema = pa.schema({"image": pa.binary(), "text": pa.string()})
    pictures = thumbnails(rows)
    with pq.ParquetWriter(path, schema) as writer:
        for group in range(0, rows, _ROW_GROUP):
            images = list(islice(pictures, _ROW_GROUP))
            texts = captions(len(images), seed=group)
            writer.write_table(pa.table({"image": images, "text": texts}, schema=schema))
