"""A data set with quirks, small enough to be scored many times."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clip_operator.request import EvaluationRequest, parse_request
from tests.conftest import SHAPES

ROWS = 203
SEGMENT = 16


@dataclass(frozen=True)
class DataSet:
    """The same rows in every format, beside their images."""

    folder: Path

    def request(self, input_name: str, output: Path | str, **fields: Any) -> EvaluationRequest:
        """Return the request that scores one of its files."""
        defaults = {
            "input": f"{self.folder}/{input_name}",
            "output": str(output),
            "image_root": str(self.folder),
            "model": SHAPES,
            "error_key": "why",
            "resume_point_rows": SEGMENT,
        }
        return parse_request({**defaults, **fields})


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("data")
    drawn = np.random.default_rng(5)
    for number in range(40):
        Image.fromarray(drawn.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{number}.png")
    rows: list[dict[str, Any]] = []
    for number in range(ROWS):
        text = f'a "shape", number {drawn.integers(0, 150)},\nin two lines, 図形'
        rows.append({"id": number, "image_path": f"{drawn.integers(0, 40)}.png", "text": text, "ratio": number / 7})
    rows[30]["image_path"] = "nowhere.png"
    rows[100]["text"] = None
    rows[101]["text"] = "a very long text " * 40
    lines = "".join(json.dumps(row, ensure_ascii=False) + ("\r\n" if row["id"] % 5 else "\n\n") for row in rows)
    (folder / "rows.jsonl").write_text("\ufeff" + lines.rstrip(), newline="")
    (folder / "rows.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    text_file = io.StringIO(newline="")
    writer = csv.DictWriter(text_file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    (folder / "rows.csv").write_text("\ufeff" + text_file.getvalue(), newline="")
    schema = pa.schema(
        {"id": pa.int16(), "image_path": pa.string(), "text": pa.string(), "ratio": pa.float32()}, {"made": "here"}
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "rows.parquet", row_group_size=2 * SEGMENT)
    return DataSet(folder)
