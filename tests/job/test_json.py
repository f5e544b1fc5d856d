"""Whole evaluations of JSON in the forms that other programs write: lines under another name, lists inside objects."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_operator.errors import JobError
from clip_operator.job.evaluation import evaluate
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.storage import Storage
from tests.conftest import S3, SHAPES


def request(source: Path | str, output: Path | str, folder: Path, **fields: Any) -> EvaluationRequest:
    return parse_request(
        {"input": str(source), "output": str(output), "image_root": str(folder), "model": SHAPES, **fields}
    )


@pytest.fixture
def lines(shapes_dataset: Path) -> list[str]:
    return (shapes_dataset / "captions.jsonl").read_text().splitlines()[:9]


def without_scores(text: str) -> list[Any]:
    rows = [json.loads(line) for line in text.splitlines()]
    assert all("clip_score" in row for row in rows)
    return [{name: value for name, value in row.items() if name != "clip_score"} for row in rows]


@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz", "rows.jsonlines", "rows.ndjson.gz"])
def test_json_lines_are_read_whatever_they_are_called(
    shapes_dataset: Path, lines: list[str], tmp_path: Path, s3: S3, name: str
) -> None:
    text = "\n".join(lines).encode()
    source = s3.put(name, gzip.compress(text) if name.endswith("gz") else text)
    (tmp_path / "rows.jsonl").write_bytes(text)
    for ending in ("jsonl", "json"):
        evaluate(request(tmp_path / "rows.jsonl", tmp_path / f"plain.{ending}", shapes_dataset))
        evaluate(request(source, tmp_path / f"out.{ending}", shapes_dataset), s3.storage)
        assert (tmp_path / f"out.{ending}").read_bytes() == (tmp_path / f"plain.{ending}").read_bytes()
    assert json.loads((tmp_path / "out.json").read_text())[0]["clip_score"] is not None


def test_a_folder_of_json_lines_called_json_is_one_table_though_a_part_has_one_row_or_none(
    shapes_dataset: Path, lines: list[str], tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    one_row = lines[0][:-1] + ', "words": [{"a": 1}]}'
    for number, some in enumerate([[], [one_row], lines[1:4], lines[4:5]]):
        (parts / f"part-{number}.json").write_text("".join(f"{line}\n" for line in some))
    evaluate(request(f"{parts}/", tmp_path / "out.jsonl", shapes_dataset))
    written = without_scores((tmp_path / "out.jsonl").read_text())
    assert written == [json.loads(line) for line in [one_row, *lines[1:5]]]


@pytest.mark.parametrize("as_lines", [True, False])
def test_shards_of_it_are_what_one_task_writes(
    shapes_dataset: Path, lines: list[str], tmp_path: Path, as_lines: bool
) -> None:
    text = "\n".join(lines) if as_lines else '{"info": {"n": 1},\n "data": [' + ",\n".join(lines) + '],\n "more": []}\n'
    (tmp_path / "rows.json").write_text(text)
    wanted = request(tmp_path / "rows.json", tmp_path / "out.json", shapes_dataset, resume_point_rows=2)
    evaluate(wanted.model_copy(update={"output": str(tmp_path / "single.json")}))
    plan = plan_shards(wanted, Storage(), shards=3)
    assert len(plan.names) == 3
    for name in plan.names:
        evaluate(plan.shard_request(name, None), Storage())
    merge_shards(plan.uri, Storage(), None)
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "single.json").read_bytes()


def test_the_object_around_the_rows_stays_with_percentiles_and_in_the_filtered_step(
    shapes_dataset: Path, lines: list[str], tmp_path: Path
) -> None:
    value = {"info": {"n": 1.50}, "data": [json.loads(line) for line in lines], "licences": ["a"]}
    (tmp_path / "rows.json").write_text(json.dumps(value, indent=2))
    evaluate(
        request(
            tmp_path / "rows.json",
            tmp_path / "out.json",
            shapes_dataset,
            percentile_key="percentile",
            min_score=0.55,
            filtered_output=str(tmp_path / "best.json"),
        )
    )
    written = json.loads((tmp_path / "out.json").read_text())
    assert (tmp_path / "out.json").read_text() == json.dumps(written, indent=2)
    best = [row for row in written["data"] if (row["clip_score"] or 0) >= 0.55]
    assert 0 < len(best) < len(lines)
    assert json.loads((tmp_path / "best.json").read_text()) == {**written, "data": best}
    for row in written["data"]:
        del row["clip_score"], row["percentile"]
    assert written == value


def test_lines_and_part_files_have_no_place_for_what_stands_around_the_rows(
    shapes_dataset: Path, lines: list[str], tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text('{"info": 1, "data": [' + ",".join(lines) + "]}")
    with pytest.raises(JobError, match=r"other members, too \('info'\).*with json for the format of the output"):
        evaluate(request(tmp_path / "rows.json", tmp_path / "out.jsonl", shapes_dataset))
    assert not (tmp_path / "out.jsonl").exists()


def nested(line: str) -> dict[str, Any]:
    row = json.loads(line)
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": row["text"]}]
    return {"id": row["id"], "images": [row["image_path"]], "conversation": turns}


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_captions_inside_of_conversations_are_scored_where_they_are(
    shapes_dataset: Path, lines: list[str], tmp_path: Path, ending: str
) -> None:
    rows = [nested(line) for line in lines]
    rows[1]["conversation"].pop()
    rows[2]["images"] = []
    source, output = tmp_path / f"rows.{ending}", tmp_path / f"out.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), source)
    else:
        source.write_text(json.dumps(rows) if ending == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    keys = {"input_image_key": "images[0]", "input_text_key": "conversation[1].value", "error_key": "why"}
    manifest = evaluate(request(source, output, shapes_dataset, max_error_rate=0.5, **keys))
    (tmp_path / "flat.jsonl").write_text("\n".join(lines))
    evaluate(request(tmp_path / "flat.jsonl", tmp_path / "flat_out.jsonl", shapes_dataset))
    flat = [json.loads(line)["clip_score"] for line in (tmp_path / "flat_out.jsonl").read_text().splitlines()]
    flat[1:3] = None, None
    text = "" if ending == "parquet" else output.read_text()
    written = (
        pq.read_table(output).to_pylist()
        if ending == "parquet"
        else json.loads(text if ending == "json" else f"[{','.join(text.splitlines())}]")
    )
    assert [row.pop("clip_score") for row in written] == flat
    assert [row.pop("why") for row in written][1:3] == ["text_missing", "image_missing"]
    assert written == rows
    assert manifest.rows.failures == {"text_missing": 1, "image_missing": 1}


def test_a_path_that_leads_nowhere_is_a_missing_column_and_those_that_do_are_told(
    shapes_dataset: Path, lines: list[str], tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(nested(line)) + "\n" for line in lines))
    keys = {"input_image_key": "images[0]", "input_text_key": "conversation[1].text"}
    with pytest.raises(JobError) as told:
        evaluate(request(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", shapes_dataset, **keys))
    assert str(told.value) == (
        f"{tmp_path}/rows.jsonl has no column 'conversation[1].text'; its columns are 'id', 'images', 'conversation'; "
        "inside of them there are 'images[0]', 'conversation[0].from', 'conversation[0].value', "
        "'conversation[1].from', 'conversation[1].value'"
    )


def test_a_column_to_add_is_no_path(shapes_dataset: Path, lines: list[str], tmp_path: Path) -> None:
    rows = [{**json.loads(line), "scores": {"clip": 1.0}} for line in lines]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = request(
        tmp_path / "rows.jsonl",
        tmp_path / "out.jsonl",
        shapes_dataset,
        output_key="scores.clip",
        min_score=0.0,
        filtered_output=str(tmp_path / "all.jsonl"),
    )
    evaluate(wanted)
    written = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert all(row["scores"] == {"clip": 1.0} for row in written)
    assert any(row["scores.clip"] not in (None, 1.0) for row in written)


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_cocos_captions_are_scored_with_the_images_that_they_are_of(
    shapes_dataset: Path, lines: list[str], tmp_path: Path, ending: str
) -> None:
    rows = [json.loads(line) for line in lines]
    value: dict[str, Any] = {
        "info": {"year": 2014},
        "licenses": [{"id": 1}],
        "images": [{"id": number + 100, "file_name": row["image_path"]} for number, row in enumerate(rows)],
        "annotations": [
            {"image_id": number + 100, "id": number, "caption": row["text"]} for number, row in enumerate(rows)
        ],
    }
    value["annotations"].append({"image_id": 99, "id": 99, "caption": "of no image"})
    (tmp_path / "captions.json").write_text(json.dumps(value))
    keys = {"input_image_key": "file_name", "input_text_key": "caption", "error_key": "why", "max_error_rate": 0.5}
    output = tmp_path / f"out.{ending}"
    evaluate(request(tmp_path / "captions.json", output, shapes_dataset, **keys))
    (tmp_path / "flat.jsonl").write_text("\n".join(lines))
    evaluate(request(tmp_path / "flat.jsonl", tmp_path / "flat_out.jsonl", shapes_dataset))
    flat = [json.loads(line)["clip_score"] for line in (tmp_path / "flat_out.jsonl").read_text().splitlines()]
    written = json.loads(output.read_text()) if ending == "json" else {**value}
    if ending == "jsonl":
        written["annotations"] = [json.loads(line) for line in output.read_text().splitlines()]
        assert [row.pop("file_name") for row in written["annotations"]] == [*(row["image_path"] for row in rows), None]
    assert [row.pop("clip_score") for row in written["annotations"]] == [*flat, None]
    assert written["annotations"][-1].pop("why") == "image_missing"
    assert all(row.pop("why", None) is None for row in written["annotations"])
    assert written == value
