"""A disk that takes no more while a job writes: an error in words that says where, and nothing left behind."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import SHAPES
from tests.hostile.jobs import SECONDS
from tests.images.pictures import drawn, encoded

ROWS = 500

FORMATS = ("jsonl", "json", "csv", "jsonl.gz", "parquet", "metadata.parquet")

# One process for all jobs, because most of what each takes is to import torch.
_JOBS = """
import json, resource, sys
from clip_operator.errors import ClipOperatorError
from clip_operator.job.evaluation import evaluate
from clip_operator.request import parse_request
said = []
for most, fields in json.loads(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    try:
        evaluate(parse_request(fields))
        said.append(None)
    except ClipOperatorError as error:
        said.append([type(error).__name__, str(error)])
print(json.dumps(said))
"""


def rows() -> list[dict[str, str]]:
    draw = random.Random(3)
    # A column that does not compress, so that every file is larger than what writers hold back and than a resume point.
    return [
        {"image_path": "good.png", "text": f"a circle {row % 5}", "x": draw.randbytes(200).hex()} for row in range(ROWS)
    ]


def written(suffix: str) -> bytes:
    lines = [json.dumps(row) for row in rows()]
    match suffix:
        case "jsonl":
            return "\n".join(lines).encode()
        case "json":
            return f"[{','.join(lines)}]".encode()
        case "csv":
            return "\n".join(["image_path,text,x", *(",".join(row.values()) for row in rows())]).encode()
        case "jsonl.gz":
            return gzip.compress("\n".join(lines).encode())
        case _:
            sink = pa.BufferOutputStream()
            # The one is full while rows are written, the other when the file is completed.
            metadata = {"x": "y" * 100_000} if suffix == "metadata.parquet" else None
            many = rows()[:1] if metadata else rows()
            pq.write_table(pa.Table.from_pylist(many).replace_schema_metadata(metadata), sink)
            return bytes(sink.getvalue().to_pybytes())


def test_a_disk_that_fills_up_ends_a_job_in_words(tmp_path: Path) -> None:
    data, temporary = tmp_path / "data", tmp_path / "temporary"
    data.mkdir()
    temporary.mkdir()
    (data / "good.png").write_bytes(encoded(drawn()))
    jobs: list[tuple[int, dict[str, Any]]] = []
    for suffix in FORMATS:
        source = data / f"t.{suffix}"
        source.write_bytes(written(suffix))
        fields = {"input": str(source), "output": f"{data}/out/t.{suffix}", "model": SHAPES, "max_error_rate": 1}
        jobs.append((source.stat().st_size + 200, fields))  # room for the copy of the input, but not for the scores
    too_large = {**jobs[0][1], "output": f"{data}/out/input.jsonl"}
    *of_outputs, of_input = run_with_files_up_to([*jobs, (jobs[0][0] - 1000, too_large)], temporary)
    for name, words in of_outputs:
        assert name == "JobError"
        assert words.startswith(f"cannot write temporary files to {temporary}/clip-operator-")
        assert words.endswith("make room there, or let TMPDIR name a folder on a larger disk")
    assert str(temporary) in of_input[1]
    assert "TMPDIR" in of_input[1]
    # Results that the next try takes over may stay; neither an output nor a manifest nor a claim does.
    assert {path.suffix for path in (data / "out").glob("*")} <= {".resume"}
    assert not list(temporary.glob("clip-operator-*"))


def run_with_files_up_to(jobs: list[tuple[int, dict[str, Any]]], temporary: Path) -> list[tuple[str, str]]:
    """Do jobs in a process that may write no files over so many bytes; return each error's class and words."""
    done = subprocess.run(
        [sys.executable, "-c", _JOBS, json.dumps(jobs)],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return [(name, words) for name, words in json.loads(done.stdout)]
