"""A run that dies goes on where it was, with the same bytes in the end, whenever and however it dies."""

from __future__ import annotations

import itertools
import json
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_operator.evaluation import evaluate
from clip_operator.manifest import parse_manifest
from clip_operator.request import EvaluationRequest, parse_request
from tests.conftest import S3, SHAPES
from tests.tries import Access, Death, Tries

SEGMENT = 64
ROWS = 1000


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of a thousand rows, with 400 images, so that segments have some in common, and a few bad rows."""
    folder = tmp_path_factory.mktemp("pictures")
    drawn = np.random.default_rng(11)
    for number in range(400):
        pixels = drawn.integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).resize((96, 96)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG, but no image")
    rows: list[dict[str, Any]] = []
    for number in range(ROWS):
        image = f"{drawn.integers(0, 400)}.png"
        rows.append({"id": number, "image_path": image, "text": f"a shape, number {drawn.integers(0, 700)}"})
    rows[100]["image_path"] = "nowhere.png"
    rows[350]["text"] = None
    rows[351]["image_path"] = "broken.png"
    rows[700]["text"] = "a very long text " * 40
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def request(folder: Path | str, output: Path | str, **fields: Any) -> EvaluationRequest:
    defaults = {
        "input": f"{folder}/rows.jsonl",
        "output": str(output),
        "image_root": str(folder),
        "model": SHAPES,
        "error_key": "why",
        "resume_point_rows": SEGMENT,
    }
    return parse_request({**defaults, **fields})


@pytest.fixture(scope="session")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of an output whose run nothing happened to."""
    output = tmp_path_factory.mktemp("undisturbed") / "rows_step1.jsonl"
    evaluate(request(pictures, output))
    return output.read_bytes()


@pytest.fixture
def tries(tmp_path: Path) -> Iterator[Tries]:
    folder = tmp_path / "tries"
    folder.mkdir()
    running = Tries(folder)
    yield running
    running.end()


def scored_twice(tries: Tries) -> int:
    return sum(times - 1 for times in tries.scored().values())


def run_to_the_end(tries: Tries, work: EvaluationRequest, seconds: Callable[[], float]) -> int:
    """Kill each try so many seconds after its start, until one is done before; return how many were killed."""
    for kills in itertools.count():
        process = tries.start(work)
        process.join(seconds())
        if not process.is_alive():
            assert process.exitcode == 0
            return kills
        process.kill()
        process.join()
    raise AssertionError


def test_a_run_that_is_killed_again_and_again_ends_with_the_bytes_of_one_that_was_not(
    pictures: Path, undisturbed: bytes, tries: Tries, tmp_path: Path
) -> None:
    for name in ("first", "second"):  # the first also starts what starts processes
        started = time.monotonic()
        tries.start(request(pictures, tmp_path / f"{name}.jsonl")).join()
        whole = time.monotonic() - started
    moments = random.Random(3)
    all_kills, resumed = 0, 0
    while all_kills < 30:
        output = tmp_path / f"story-{all_kills}" / "rows_step1.jsonl"
        story = Tries(Path(tempfile.mkdtemp(dir=tmp_path)))
        kills = run_to_the_end(story, request(pictures, output), lambda: moments.uniform(0, whole))
        assert output.read_bytes() == undisturbed
        assert sorted(path.name for path in output.parent.iterdir()) == [output.name, f"{output.name}.manifest.json"]
        assert scored_twice(story) <= kills * SEGMENT
        manifest = parse_manifest(Path(f"{output}.manifest.json").read_bytes())
        assert manifest is not None
        resumed += manifest.rows.resumed
        all_kills += kills
    assert resumed > ROWS


SMALL = 150


def changes_of_a_run(rows: int, segment: int) -> int:
    """How many changes a run makes: claim, resume points, output, manifest, and the removals of what is left over."""
    points = -(-rows // segment)
    return 1 + points + 1 + 1 + 1 + 1


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_run_that_is_killed_at_any_change_of_the_store_is_completed_by_the_next(
    pictures: Path, s3: S3, tmp_path: Path, before: bool
) -> None:
    """Also between the output and its manifest, and while what is left over is being removed."""
    rows = (pictures / "rows.jsonl").read_text().splitlines(keepends=True)[:SMALL]
    s3.put("rows.jsonl", "".join(rows).encode())
    access = Access(s3.store.endpoint_url, s3.store.access_key, s3.store.secret_key)
    input = f"s3://{s3.bucket}/rows.jsonl"
    work = request(pictures, f"s3://{s3.bucket}/out.jsonl", input=input)
    manifest = evaluate(work, s3.storage)
    expected = s3.get(work.output)
    for change in range(1, changes_of_a_run(SMALL, SEGMENT) + 1):
        for key in set(s3.object_keys()) - {"rows.jsonl"}:
            s3.client.delete_object(Bucket=s3.bucket, Key=key)
        tries = Tries(Path(tempfile.mkdtemp(dir=tmp_path)), access)
        killed = tries.start(work, Death(change, before))
        killed.join()
        assert killed.exitcode == -signal.SIGKILL
        last = tries.start(work)
        last.join()
        assert last.exitcode == 0
        assert s3.get(work.output) == expected
        assert set(s3.object_keys()) == {"rows.jsonl", "out.jsonl", "out.jsonl.manifest.json"}
        assert scored_twice(tries) <= SEGMENT
    assert manifest.rows.resumed == 0
