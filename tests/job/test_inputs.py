"""Whole evaluations of inputs that are more, or something else, than one table in one object."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clip_operator.errors import JobError, RequestError
from clip_operator.inputs import many_files
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.storage import Storage
from clip_operator.tables import file_type_of, packed
from tests.conftest import S3, SHAPES


def request(source: str, output: Path | str, **fields: Any) -> EvaluationRequest:
    return parse_request({"input": source, "output": str(output), "model": SHAPES, **fields})


def in_shards(wanted: EvaluationRequest, storage: Storage, shards: int) -> EvaluationManifest:
    plan = plan_shards(wanted, storage, shards=shards)
    assert len(plan.names) == shards
    for name in plan.names:
        evaluate(plan.shard_request(name, None), storage)
    return merge_shards(plan.uri, storage, None)


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tars as img2dataset writes them, beside its tables of what was downloaded."""
    folder = tmp_path_factory.mktemp("laion")
    for shard in range(3):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for row in range(4):
                number = 4 * shard + row
                key = f"{shard:05d}{row:04d}"
                members = {
                    "jpg": picture(number),
                    "txt": f"a shape, number {number}".encode(),
                    "json": json.dumps({"url": f"https://example.org/{number}.jpg", "width": 64}).encode(),
                }
                if number == 6:
                    del members["jpg"]
                for ending, data in members.items():
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        (folder / f"{shard:05d}_stats.json").write_text("{}")
    return folder


def test_webdataset_tars_become_a_table_with_scores(tars: Path, tmp_path: Path) -> None:
    single = evaluate(request(f"{tars}/*.tar", tmp_path / "single.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "single.jsonl").read_text().splitlines()]
    assert [row["__key__"] for row in rows] == [f"{n // 4:05d}{n % 4:04d}" for n in range(12)]
    assert (rows[5]["image_path"], rows[5]["text"]) == ("000010001.jpg", "a shape, number 5")
    assert rows[5]["json"] == {"url": "https://example.org/5.jpg", "width": 64}
    assert single.rows.failures == {"image_missing": 1}
    # The very scores of the same pictures and texts in a plain table.
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    table = [{"image_path": f"{n}.png", "text": f"a shape, number {n}"} for n in range(12) if n != 6]
    (tmp_path / "table.jsonl").write_text("\n".join(map(json.dumps, table)))
    evaluate(request(f"{tmp_path}/table.jsonl", tmp_path / "scored.jsonl"))
    plain = [json.loads(line)["clip_score"] for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert [row["clip_score"] for row in rows if row["clip_score"] is not None] == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("ending", ["tar.gz", "tgz", "tar.zst", "tar.bz2", "txz"])
def test_compressed_tars_are_scored_as_the_plain_ones_alone_and_in_shards(
    ending: str, tars: Path, s3: S3, tmp_path: Path
) -> None:
    evaluate(request(f"{tars}/*.tar", tmp_path / "plain.jsonl"))
    plain = [json.loads(line) for line in (tmp_path / "plain.jsonl").read_text().splitlines()]
    for tar in tars.glob("*.tar"):
        target = io.BytesIO()
        with packed(target, file_type_of(f"x.{ending}").compression) as file:
            file.write(tar.read_bytes())
        s3.put(f"packed/{tar.stem}.{ending}", target.getvalue())
    source = f"s3://{s3.bucket}/packed/*.{ending}"
    evaluate(request(source, f"s3://{s3.bucket}/single.jsonl"), s3.storage)
    in_shards(request(source, f"s3://{s3.bucket}/sharded.jsonl"), s3.storage, 3)
    for output in ("single", "sharded"):
        rows = [json.loads(line) for line in s3.get(f"s3://{s3.bucket}/{output}.jsonl").decode().splitlines()]
        assert [row.pop("clip_score") for row in rows] == pytest.approx([row["clip_score"] for row in plain], abs=1e-6)
        of_plain = [{**row, "__url__": row["__url__"].replace("tar", ending)} for row in plain]
        assert rows == [{name: value for name, value in row.items() if name != "clip_score"} for row in of_plain]


def test_a_compressed_tar_that_is_damaged_or_a_bomb_is_refused_by_name(
    tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gzip.compress((tars / "00000.tar").read_bytes())
    (tmp_path / "cut.tar.gz").write_bytes(whole[:-100])
    with pytest.raises(JobError, match=r"cut\.tar\.gz: The gzip data ends too early"):
        evaluate(request(f"{tmp_path}/cut.tar.gz", tmp_path / "out.jsonl"))
    (tmp_path / "no.tar.zst").write_bytes(whole)
    with pytest.raises(JobError, match=r"no\.tar\.zst: .* but the data is not whole zstd data"):
        evaluate(request(f"{tmp_path}/no.tar.zst", tmp_path / "out.jsonl"))
    monkeypatch.setattr(many_files, "_MOST_BYTES_BESIDE", 1 << 20)
    (tmp_path / "bomb.tgz").write_bytes(gzip.compress(bytes(64 << 20)))
    with pytest.raises(JobError, match=r"bomb\.tgz: The tar has more than 100 times as much in it as its file has"):
        evaluate(request(f"{tmp_path}/bomb.tgz", tmp_path / "out.jsonl"))
    assert not (tmp_path / "out.jsonl").exists()


def test_images_and_captions_of_tars_are_found_by_the_endings_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for number in range(2):
        with tarfile.open(tmp_path / "t" / f"{number}.tar", "w") as tar:
            for ending, data in {"img": picture(number), "json": b'{"prompt": "a shape"}'}.items():
                info = tarfile.TarInfo(f"0.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    fields = {"input_image_key": "img", "input_text_key": "json.prompt"}
    single = evaluate(request(f"{tmp_path}/t/", tmp_path / "single.jsonl", **fields))
    assert single.rows.scored == 2
    in_shards(request(f"{tmp_path}/t/", tmp_path / "out.jsonl", **fields), Storage(), shards=2)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "single.jsonl").read_bytes()
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert (first["img"], first["json.prompt"]) == ("0.img", "a shape")


def test_captions_of_tars_may_be_a_list_or_lie_deeper_in_their_json(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    about = {"captions": ["a shape", "a dot"], "more": {"caption": "a shape"}}
    with tarfile.open(tmp_path / "t" / "0.tar", "w") as tar:
        for ending, data in {"jpg": picture(1), "json": json.dumps(about).encode()}.items():
            info = tarfile.TarInfo(f"0.{ending}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    several = {"input_text_key": "json.captions", "aggregate": "all"}
    evaluate(request(f"{tmp_path}/t/", tmp_path / "several.jsonl", **several))
    [of_several] = json.loads((tmp_path / "several.jsonl").read_text())["clip_score"][:1]
    evaluate(request(f"{tmp_path}/t/", tmp_path / "deeper.jsonl", input_text_key="json.more.caption"))
    assert json.loads((tmp_path / "deeper.jsonl").read_text())["clip_score"] == pytest.approx(of_several, abs=1e-6)


def test_tars_in_s3_are_scored_by_shards_as_by_one_task(tars: Path, s3: S3) -> None:
    root = s3.put_folder(tars, "laion")
    single = evaluate(request(f"{root}/*.tar", f"{root}/steps/single.jsonl"), s3.storage)
    merged = in_shards(request(f"{root}/*.tar", f"{root}/steps/out.jsonl"), s3.storage, shards=3)
    assert merged.rows == single.rows
    first, second = ([json.loads(line) for line in s3.get(m.output.uri).splitlines()] for m in (single, merged))
    for row, other in zip(first, second, strict=True):
        assert row.pop("clip_score") == pytest.approx(other.pop("clip_score"), abs=1e-6)
        assert row == other


def test_part_files_are_one_table(shapes_dataset: Path, tmp_path: Path) -> None:
    lines = (shapes_dataset / "captions.jsonl").read_text().splitlines()
    (tmp_path / "parts").mkdir()
    for number in range(4):
        (tmp_path / "parts" / f"part-{number}.jsonl").write_text("\n".join(lines[16 * number : 16 * number + 16]))
    (tmp_path / "parts" / "_SUCCESS").touch()
    wanted = {"image_root": str(shapes_dataset)}
    evaluate(request(f"{shapes_dataset}/captions.jsonl", tmp_path / "whole.jsonl", **wanted))
    manifest = evaluate(request(f"{tmp_path}/parts/", tmp_path / "out.jsonl", **wanted))
    assert (tmp_path / "out.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert evaluate(request(f"{tmp_path}/parts/", tmp_path / "out.jsonl", **wanted)) == manifest, "recognised"
    (tmp_path / "parts" / "part-4.jsonl").write_text(lines[0])
    assert evaluate(request(f"{tmp_path}/parts/", tmp_path / "out.jsonl", **wanted)).rows.total == 65


def test_a_hugging_face_data_set_is_scored_alone_and_in_shards(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = [{"file_name": f"{number}.png", "text": f"a shape, number {number}"} for number in range(12)]
    for number in range(12):
        (folder / f"{number}.png").write_bytes(picture(number))
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fields = {"input_image_key": "image", "resume_point_rows": 4}
    single = evaluate(request(f"hf:{folder}", tmp_path / "single.parquet", **fields))
    merged = in_shards(request(f"hf:{folder}", tmp_path / "out.parquet", **fields), Storage(), shards=3)
    assert (single.rows.scored, merged.rows, merged.scores) == (12, single.rows, single.scores)
    whole, put_together = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("single", "out"))
    assert put_together.equals(whole, check_metadata=True)
    assert sorted(whole.column("text").to_pylist()) == sorted(row["text"] for row in rows)
    assert whole.column("image")[0]["bytes"].as_py()[:4] == b"\x89PNG"


def test_a_data_set_whose_types_a_text_cannot_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text(json.dumps({"image_path": "x", "text": "y"}) + "\n")
    with pytest.raises(RequestError, match="cannot be written as jsonl without loss"):
        evaluate(request(f"hf:{tmp_path}/data", tmp_path / "out.jsonl"))


def _write_table(path: Path, columns: dict[str, list[str]]) -> None:
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.table(columns), path)
        case ".csv":
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
        case _:
            rows = zip(*columns.values(), strict=True)
            path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))


def _scores(path: Path) -> list[float]:
    if path.suffix == ".parquet":
        values = pq.read_table(path)["clip_score"].to_pylist()
    elif path.suffix == ".csv":
        with path.open(newline="") as file:
            values = [row["clip_score"] for row in csv.DictReader(file)]
    else:
        values = [json.loads(line)["clip_score"] for line in path.read_text().splitlines()]
    return [float(value) for value in values]


def test_pictures_in_base64_have_the_scores_of_their_files_and_are_told_of_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of each format, in tables of each kind, in the alphabet for URLs, with the line breaks of MIME."""
    files, spelled = [], []
    for number, kind in enumerate(["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM"]):
        data = io.BytesIO()
        Image.open(io.BytesIO(picture(number))).save(data, kind)
        file = data.getvalue()
        (tmp_path / f"{number}.{kind.lower()}").write_bytes(file)
        text = base64.b64encode(file).decode()
        files += 4 * [f"{number}.{kind.lower()}"]
        spelled += [
            text,
            text.rstrip("="),
            base64.encodebytes(file).decode(),
            base64.urlsafe_b64encode(file).decode().rstrip("="),
        ]
    texts = [f"a shape, number {number}" for number in range(len(files))]
    _write_table(tmp_path / "files.jsonl", {"image_path": files, "text": texts})
    evaluate(request(f"{tmp_path}/files.jsonl", tmp_path / "plain.jsonl"))
    expected = _scores(tmp_path / "plain.jsonl")
    for kind in ("jsonl", "csv", "parquet"):
        _write_table(tmp_path / f"inline.{kind}", {"image_path": spelled, "text": texts})
        with caplog.at_level(logging.DEBUG):
            manifest = evaluate(request(f"{tmp_path}/inline.{kind}", tmp_path / f"scored.{kind}"))
        assert manifest.rows.scored == len(files)
        assert _scores(tmp_path / f"scored.{kind}") == pytest.approx(expected, abs=1e-5)
        told = caplog.text + "".join(path.read_text() for path in tmp_path.glob(f"scored.{kind}.*"))
        assert not any(text[:100] in told for text in spelled)
