"""Whole evaluations of tables that are texts in another dialect, encoding or compression than usual."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from clip_operator.errors import JobError, RequestError
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.storage import Storage
from clip_operator.tables import Compression, unpacked
from clip_operator.tables import packed as pack
from tests.conftest import S3, SHAPES

NAMES = ["id", "image_path", "text"]


@pytest.fixture(scope="module")
def rows(shapes_dataset: Path) -> list[list[str]]:
    """Rows of the demo data set, one of them without an image."""
    captions = [json.loads(line) for line in (shapes_dataset / "captions.jsonl").read_text().splitlines()[:12]]
    rows = [[str(number), row["image_path"], row["text"]] for number, row in enumerate(captions)]
    rows[3][1] = "nowhere.png"
    return rows


@pytest.fixture(scope="module")
def plain(rows: list[list[str]], shapes_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The scores of the rows as a plain CSV file's."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "in.csv").write_bytes(written([NAMES, *rows]).encode())
    evaluate(request(folder / "in.csv", folder / "out.csv", shapes_dataset))
    return [row[3] for row in csv.reader(io.StringIO((folder / "out.csv").read_text()))][1:]


def written(rows: list[list[str]], **form: Any) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, **form).writerows(rows)
    return text.getvalue()


def request(source: Path | str, output: Path | str, images: Path, **fields: Any) -> EvaluationRequest:
    places = {"input": str(source), "output": str(output), "image_root": str(images), "model": SHAPES}
    return parse_request({**places, "max_error_rate": 0.5, "resume_point_rows": 4, **fields})


def in_shards(wanted: EvaluationRequest, shards: int, storage: Storage) -> EvaluationManifest:
    plan = plan_shards(wanted, storage, shards=shards)
    assert len(plan.names) == shards
    for name in plan.names:
        evaluate(plan.shard_request(name, None), storage)
    return merge_shards(plan.uri, storage, None)


KINDS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "tsv": ("tsv", "", {"delimiter": "\t"}, {}),
    "semicolons": ("csv", "", {"delimiter": ";"}, {"delimiter": ";"}),
    "excel": ("csv", "\ufeffsep=;\r\n", {"delimiter": ";"}, {}),
    "utf-16": ("csv", "\ufeff", {}, {}),
    "cp1252": ("csv", "", {"quotechar": "'"}, {"quotechar": "'", "encoding": "cp1252"}),
    "backslashes": ("csv", "", {"doublequote": False, "escapechar": "\\"}, {"escapechar": "\\"}),
    "cc3m": ("tsv", "", {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}, {"quotechar": "none"}),
}


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_dialect_is_scored_as_the_plain_file_is_and_keeps_its_bytes(
    rows: list[list[str]], plain: list[str], shapes_dataset: Path, tmp_path: Path, kind: str, header: bool
) -> None:
    ending, preamble, form, said = KINDS[kind]
    encoding = {"utf-16": "utf-16-le", "cp1252": "cp1252"}.get(kind, "utf-8")
    said = said if header else {**said, "column_names": NAMES}
    content = preamble + written([NAMES, *rows] if header else rows, **form)
    (tmp_path / f"in.{ending}").write_bytes(content.encode(encoding))

    wanted = request(tmp_path / f"in.{ending}", tmp_path / f"out.{ending}", shapes_dataset, **said)
    evaluate(wanted)
    output = (tmp_path / f"out.{ending}").read_bytes()

    delimiter = form.get("delimiter", ",")
    added = (["clip_score"] if header else []) + plain
    lines = content.removeprefix(preamble).split("\r\n")[:-1]
    expected = "".join(f"{line}{delimiter}{cell}\r\n" for line, cell in zip(lines, added, strict=True))
    assert output.decode(encoding) == preamble + expected
    merged = in_shards(wanted.model_copy(update={"output": str(tmp_path / f"merged.{ending}")}), 3, Storage())
    assert Path(merged.output.uri).read_bytes() == output
    evaluate(request(tmp_path / f"in.{ending}", tmp_path / "out.jsonl", shapes_dataset, **said))
    objects = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [[row[name] for name in NAMES] for row in objects] == rows


@pytest.mark.parametrize("ending", ["csv.gz", "tsv.zst", "jsonl.zst", "csv.bz2", "json.xz"])
def test_a_compressed_file_is_scored_as_the_plain_file_is_by_one_task_and_in_shards(
    rows: list[list[str]], plain: list[str], shapes_dataset: Path, s3: S3, ending: str
) -> None:
    table, _, compression = ending.partition(".")
    objects = [dict(zip(NAMES, row, strict=True)) for row in rows]
    texts = {
        "csv": written([NAMES, *rows]),
        "tsv": written([NAMES, *rows], delimiter="\t"),
        "jsonl": "".join(json.dumps(row) + "\n" for row in objects),
        "json": json.dumps(objects),
    }
    packed = io.BytesIO()
    with pack(packed, Compression(compression)) as stream:
        stream.write(texts[table].encode())
    source = s3.put(f"in.{ending}", packed.getvalue())
    wanted = request(source, f"s3://{s3.bucket}/out.{ending}", shapes_dataset)
    evaluate(wanted, s3.storage)
    merged = wanted.model_copy(update={"output": f"s3://{s3.bucket}/merged.{ending}"})
    assert in_shards(merged, 3, s3.storage).output.size == len(s3.get(wanted.output))
    assert s3.get(merged.output) == s3.get(wanted.output)
    output = unpacked(io.BytesIO(s3.get(wanted.output)), Compression(compression)).read().decode()
    if table in ("csv", "tsv"):
        lines = list(csv.reader(io.StringIO(output), delimiter="\t" if table == "tsv" else ","))
        assert [line[3] for line in lines[1:]] == plain
    else:
        scored = json.loads(output) if table == "json" else [json.loads(line) for line in output.splitlines()]
        assert [row["clip_score"] for row in scored] == [float(score) if score else None for score in plain]


def test_what_needs_the_output_finds_its_columns_without_a_header(
    rows: list[list[str]], plain: list[str], shapes_dataset: Path, tmp_path: Path
) -> None:
    form: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
    (tmp_path / "in.tsv").write_text(written(rows, **form))
    fields = {"column_names": " ".join(NAMES), "quotechar": "none", "error_key": "why", "percentile_key": "percentile"}
    filtered = {"min_score": 0.0, "filtered_output": str(tmp_path / "filtered.tsv")}
    evaluate(request(tmp_path / "in.tsv", tmp_path / "out.tsv", shapes_dataset, **fields, **filtered))
    output = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert [row[3] for row in output] == plain
    assert [row[4] for row in output if row[4]] == ["image_not_found"]
    assert [bool(row[5]) for row in output] == [bool(score) for score in plain]
    kept = [line for line in (tmp_path / "out.tsv").read_text().splitlines(True) if "image_not_found" not in line]
    assert (tmp_path / "filtered.tsv").read_text() == "".join(kept)


def test_failed_rows_are_tried_again_in_an_output_without_a_header(
    rows: list[list[str]], plain: list[str], shapes_dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text(written(rows))
    wanted = request(tmp_path / "in.csv", tmp_path / "out.csv", shapes_dataset, column_names=NAMES)
    evaluate(wanted)
    first = (tmp_path / "out.csv").read_bytes()
    again = evaluate(wanted.model_copy(update={"rescore": "failed"}))
    assert again.rows.failures == {"image_not_found": 1}
    assert (tmp_path / "out.csv").read_bytes() == first


def test_a_wrong_dialect_is_refused_with_what_to_set(shapes_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("image_path;text\na.png;x\n")
    (tmp_path / "in.tsv").write_text("image_path,text\na.png,x\n")
    for ending, delimiter in (("csv", ";"), ("tsv", ",")):
        with pytest.raises(JobError, match=f"Is '{delimiter}' its delimiter\\? Then set delimiter to it"):
            evaluate(request(tmp_path / f"in.{ending}", tmp_path / f"out.{ending}", shapes_dataset))


def test_what_is_said_of_csv_alone_is_refused_elsewhere(shapes_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("")
    with pytest.raises(
        RequestError, match=r"in.jsonl is jsonl, and delimiter, column_names is said of csv and tsv only"
    ):
        evaluate(
            request(tmp_path / "in.jsonl", tmp_path / "out.jsonl", shapes_dataset, delimiter="tab", column_names="a b")
        )


def test_part_files_without_a_header_are_one_table(
    rows: list[list[str]], plain: list[str], shapes_dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "parts").mkdir()
    for part in range(3):
        (tmp_path / "parts" / f"{part}.csv").write_text("\ufeff" + written(rows[4 * part : 4 * part + 4]))
    evaluate(request(f"{tmp_path}/parts/", tmp_path / "out.csv", shapes_dataset, column_names=NAMES))
    expected = "".join(f"{','.join(row)},{score}\r\n" for row, score in zip(rows, plain, strict=True))
    assert (tmp_path / "out.csv").read_bytes().decode() == "\ufeff" + expected


def test_what_needs_the_output_finds_its_columns_behind_those_of_the_folders(
    rows: list[list[str]], plain: list[str], shapes_dataset: Path, tmp_path: Path
) -> None:
    """Hive writes its text tables so: without a header, a column in the names of folders."""
    for part, language in enumerate(("de", "en", "fr")):
        folder = tmp_path / "parts" / f"lang={language}"
        folder.mkdir(parents=True)
        (folder / "0.csv").write_text(written(rows[4 * part : 4 * part + 4]))
    fields = {"column_names": NAMES, "error_key": "why", "percentile_key": "percentile", "min_score": 0.0}
    places = {"filtered_output": str(tmp_path / "filtered.csv")}
    wanted = request(f"{tmp_path}/parts/", tmp_path / "out.csv", shapes_dataset, **fields, **places)
    evaluate(wanted)
    first = (tmp_path / "out.csv").read_text()
    output = list(csv.reader(io.StringIO(first)))
    assert [row[3] for row in output] == ["de"] * 4 + ["en"] * 4 + ["fr"] * 4
    assert [row[4] for row in output] == plain
    kept = [line for line in first.splitlines(True) if "image_not_found" not in line]
    assert (tmp_path / "filtered.csv").read_text() == "".join(kept)

    elsewhere = {"output": str(tmp_path / "merged.csv"), "filtered_output": str(tmp_path / "merged-filtered.csv")}
    in_shards(wanted.model_copy(update=elsewhere), 3, Storage())
    assert (tmp_path / "merged.csv").read_text() == first
    again = evaluate(wanted.model_copy(update={"rescore": "failed"}))
    assert again.rows.resumed == sum(map(bool, plain))
    assert (tmp_path / "out.csv").read_text() == first
