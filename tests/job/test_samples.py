"""The rows that stand for the others are the same however the rows were cut, and hold no more than they should."""

from __future__ import annotations

import base64
import json
import random
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageStat

from clip_operator.errors import Reason, RowError
from clip_operator.images import ImageLoader, ImagePolicy, thumbnail
from clip_operator.images.workers.pool import ImageWorkers
from clip_operator.job.evaluation import evaluate
from clip_operator.job.sampling import SampleCollector
from clip_operator.report.picked import PickedRows, merged, read_picked
from clip_operator.report.samples import MOST_FAILURES, MOST_PAIRS
from clip_operator.report.worst_rows import MOST_WORST_ROWS
from clip_operator.request import EvaluationRequest, Requester, Shard, parse_request
from clip_operator.scoring import RowResult, Rows
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.steps import report_uri, report_uris, worst_rows_uri
from clip_operator.storage import Storage
from tests.conftest import SHAPES


def drawn(rows: int) -> list[RowResult]:
    """Results with many equal scores, and failures of two kinds."""
    random_numbers = random.Random(5)
    return [
        RowResult(
            None, error=RowError(random_numbers.choice([Reason.TEXT_EMPTY, Reason.IMAGE_NOT_FOUND]), f"row {row}")
        )
        if random_numbers.random() < 0.1
        else RowResult(round(random_numbers.random(), 2))
        for row in range(rows)
    ]


def collected(
    results: list[RowResult], first: int, folder: Path, chunk: int = 64, first_is_known: bool = True
) -> PickedRows:
    first_row = first if first_is_known else None
    shard = Shard(index=0, of=2, input_etag="e", start=0, stop=1, first_row=first_row)
    collector = SampleCollector(shard)
    for start in range(0, len(results), chunk):
        some = results[start : start + chunk]
        names = [f"{first + start + n}.png" for n in range(len(some))]
        collector.add(Rows(None, names, [f"text of {name}" for name in names]), some)
    loader = ImageLoader(Storage(), ImagePolicy(root=str(folder)))
    with ImageWorkers(loader, Storage(), 30) as workers:
        return collector.picked(workers)


def test_they_are_the_best_the_worst_and_the_first_failures(tmp_path: Path) -> None:
    results = drawn(2000)
    picked = collected(results, 0, tmp_path)
    samples = picked.samples
    scored = [(result.score, row) for row, result in enumerate(results, 1) if result.score is not None]
    best = sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:MOST_PAIRS]
    assert [(sample.score, sample.row) for sample in samples.best] == best
    assert [(sample.score, sample.row) for sample in samples.worst] == sorted(scored)[:MOST_PAIRS]
    assert [(sample.score, sample.row) for sample in picked.worst] == sorted(scored)[:MOST_WORST_ROWS]
    for reason, failed in samples.failures.items():
        rows = [row for row, result in enumerate(results, 1) if result.error and result.error.reason == reason]
        assert [sample.row for sample in failed] == rows[:MOST_FAILURES]
        assert [sample.detail for sample in failed] == [f"row {row - 1}" for row in rows[:MOST_FAILURES]]
    assert len(samples.failures) == 2


@pytest.mark.parametrize("first_is_known", [True, False])
@pytest.mark.parametrize("cuts", [[1500], [1, 2, 1999], [300, 600, 900, 1900]])
def test_shards_come_to_those_of_the_whole(tmp_path: Path, cuts: list[int], first_is_known: bool) -> None:
    results = drawn(2000)
    pieces = list(zip([0, *cuts], [*cuts, 2000], strict=True))
    parts = [collected(results[a:b], a, tmp_path, chunk=7, first_is_known=first_is_known) for a, b in pieces]
    to_add = [0 if first_is_known else start for start, _ in pieces]
    assert merged(zip(parts, to_add, strict=True)) == collected(results, 0, tmp_path)


def test_what_is_shown_of_a_row_is_short_and_holds_no_secret(tmp_path: Path) -> None:
    collector = SampleCollector(None)
    references: list[Any] = [
        "https://user:hush@host.org/a.png?signature=hush",
        "data:image/png;base64,aHVzaA==" + "A" * (5 << 20),
        {"bytes": b"x" * (5 << 20), "path": None},
        b"12345",
        "\ud800.png",
    ]
    texts = ["word " * 1000, "b", "c", "d", "\ud83d half"]
    collector.add(Rows(None, references, texts), [RowResult(0.1 * n) for n in range(5)])
    with ImageWorkers(ImageLoader(Storage(), ImagePolicy(root=str(tmp_path))), Storage(), 30) as workers:
        samples = collector.picked(workers).samples
    text = samples.model_dump_json()
    assert "hush" not in text
    assert "aHVz" not in text
    assert len(text) < 12_000
    assert [sample.image for sample in samples.worst][2:4] == [
        "in the row itself, 5,242,880 bytes",
        "in the row itself, 5 bytes",
    ]
    first = samples.worst[0].text or ""
    assert (3990 < len(first) <= 4000, first[-1]) == (True, "…")
    assert all(sample.thumbnail is None for sample in samples.worst)


@pytest.mark.parametrize("size", [(1000, 500), (20, 3000), (10, 10)])
def test_a_thumbnail_has_the_pixels_and_nothing_else_of_the_file(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (200, 30, 60))
    image.info = {"comment": b"hush", "exif": b"Exif\0\0hush", "icc_profile": b"hush"}
    data = thumbnail(image)
    assert b"hush" not in data
    small = Image.open(BytesIO(data))
    assert small.format == "JPEG"
    assert max(small.size) <= min(240, max(size))
    assert ImageStat.Stat(small).mean == pytest.approx([200, 30, 60], abs=8)
    assert image.size == size


@pytest.fixture
def data(shapes_dataset: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shapes_dataset, tmp_path / "data")


def request(data: Path, output: str, **fields: Any) -> EvaluationRequest:
    defaults = {
        "input": f"{data}/captions.jsonl",
        "output": f"{data}/{output}",
        "model": SHAPES,
        "resume_point_rows": 16,
    }
    return parse_request({**defaults, **fields})


def test_samples_of_a_step_are_its_rows_with_their_pictures_alone_and_in_shards(data: Path) -> None:
    evaluate(request(data, "alone.jsonl"))
    alone = read_picked(Storage(), f"{data}/alone.jsonl")
    rows = [json.loads(line) for line in (data / "alone.jsonl").read_text().splitlines()]
    for sample in alone.samples.best + alone.samples.worst:
        assert sample.row is not None
        row = rows[sample.row - 1]
        assert (row["clip_score"], row["text"], row["image_path"]) == (sample.score, sample.text, sample.image)
        picture = Image.open(BytesIO(base64.b64decode(sample.thumbnail or "")))
        with Image.open(data / row["image_path"]) as image:
            assert picture.size == (image.size if max(image.size) <= 240 else picture.size)
    scores = [row["clip_score"] for row in rows if row["clip_score"] is not None]
    assert [sample.score for sample in alone.worst] == sorted(scores)
    plan = plan_shards(request(data, "together.jsonl"), Storage(), shards=3)
    for index in range(3):
        evaluate(plan.nth_request(index, None))
    merge_shards(plan.uri, Storage(), Requester(dag_id="d", run_id="r", task_id="merge"))
    assert read_picked(Storage(), f"{data}/together.jsonl") == alone
    lists = [Path(worst_rows_uri(f"{data}/{name}.jsonl")).read_bytes() for name in ("alone", "together")]
    assert lists[0] == lists[1]
    assert Path(report_uri(f"{data}/together.jsonl")).exists()


def test_rows_of_many_files_have_the_numbers_that_they_have_in_the_whole(data: Path) -> None:
    """Where files are not opened to plan, no shard knows with which row it begins."""
    lines = (data / "captions.jsonl").read_bytes().splitlines(keepends=True)
    (data / "many").mkdir()
    for number, start in enumerate(range(0, len(lines), 16)):
        (data / "many" / f"{number}.jsonl").write_bytes(b"".join(lines[start : start + 16]))
    fields = {"input": f"{data}/many/*.jsonl", "image_root": str(data)}
    evaluate(request(data, "alone.jsonl", **fields))
    plan = plan_shards(request(data, "together.jsonl", **fields), Storage(), shards=3)
    assert plan.shards[1].first_row is None
    for index in range(3):
        evaluate(plan.nth_request(index, None))
    merge_shards(plan.uri, Storage(), None)
    alone, together = (read_picked(Storage(), f"{data}/{name}.jsonl") for name in ("alone", "together"))
    assert together == alone
    rows = [json.loads(line) for line in (data / "together.jsonl").read_text().splitlines()]
    assert [sample.text for sample in together.worst] == [rows[(sample.row or 0) - 1]["text"] for sample in alone.worst]


def test_of_a_long_caption_all_is_there_and_its_worst_sentence(data: Path) -> None:
    calm = "The picture is simple and calm. " * 20
    long = f"A green dot on a beige background. {calm}A huge red star stands beside it."
    rows = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    rows[0]["text"] = long
    (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(request(data, "out.jsonl", sentence_key="least"))
    scored = json.loads((data / "out.jsonl").read_text().splitlines()[0])
    picked = read_picked(Storage(), f"{data}/out.jsonl")
    [listed] = [sample for sample in picked.worst if sample.row == 1]
    assert (listed.text, listed.sentence, listed.sentence_score) == (long, scored["least"], scored["least_score"])
    assert [sample.row for sample in picked.worst if sample.sentence] == [1]


def test_a_resumed_or_rescored_row_is_sampled_as_any_other_and_images_in_rows_are_shown(data: Path) -> None:
    rows = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    files = [data / (row["image_path"] or "none") for row in rows]
    table = pa.table(
        {
            "image_path": pa.array([f.read_bytes() if f.is_file() else None for f in files], pa.binary()),
            "text": pa.array([row["text"] for row in rows]),
        }
    )
    pq.write_table(table, data / "inline.parquet")
    work = request(data, "inline_step1.parquet", input=f"{data}/inline.parquet", rescore="failed")
    evaluate(work)
    first = read_picked(Storage(), work.output)
    again = evaluate(work.model_copy(update={"error_key": "why"}))
    assert again.rows.resumed == again.rows.scored
    assert read_picked(Storage(), work.output) == first
    assert all(sample.thumbnail and sample.image.startswith("in the row itself") for sample in first.samples.best)


def test_without_a_report_none_is_written_and_that_of_an_earlier_output_goes(data: Path) -> None:
    beside = report_uris(f"{data}/out.jsonl")
    evaluate(request(data, "out.jsonl"))
    assert [Path(uri).exists() for uri in beside] == [True] * 3
    evaluate(request(data, "out.jsonl", report=False, overwrite=True))
    assert [Path(uri).exists() for uri in beside] == [False] * 3
