"""A step that many workers score is, to the byte, the step that one would have scored."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from clip_operator.errors import Cancelled, JobError, RequestError
from clip_operator.job.evaluation import evaluate
from clip_operator.model import ClipEncoder
from clip_operator.proof.manifest import EvaluationManifest
from clip_operator.proof.standing import proof
from clip_operator.request import EvaluationRequest, Requester, parse_request
from clip_operator.sharding import ShardPlan, merge_shards, plan_shards, read_plan
from clip_operator.sharding.plan import PlanNotFound
from clip_operator.storage import Storage
from tests.conftest import S3, SHAPES
from tests.sharding.conftest import ROWS, SEGMENT, DataSet

MERGER = Requester(dag_id="d", run_id="r", task_id="merge")


def score(plan: ShardPlan, storage: Storage, names: Sequence[str] | None = None) -> list[EvaluationManifest]:
    """Score shards of a plan, in whatever order."""
    chosen = list(plan.names if names is None else names)
    random.Random(7).shuffle(chosen)
    return [evaluate(plan.shard_request(name, _scorer(plan, name)), storage) for name in chosen]


def _scorer(plan: ShardPlan, name: str) -> Requester:
    return Requester(dag_id="d", run_id="r", task_id="score", map_index=plan.names.index(name))


def in_shards(request: EvaluationRequest, storage: Storage | None = None, **wishes: Any) -> EvaluationManifest:
    storage = storage or Storage()
    plan = plan_shards(request, storage, **wishes)
    score(plan, storage)
    return merge_shards(plan.uri, storage, MERGER)


def many_times(table: Path, times: int) -> bytes:
    """Return the rows of a text file as often as that, one behind the other."""
    header, rows = b"", table.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip() + b"\n"
    if table.suffix == ".csv":
        header, _, rows = rows.partition(b"\n")
        header += b"\n"
    return header + rows * times


def assert_same_results(merged: EvaluationManifest, single: EvaluationManifest) -> None:
    assert merged.rows == single.rows
    assert merged.scores == single.scores
    assert merged.calibration == single.calibration
    for field in ("input", "output_columns", "model", "libraries"):
        assert getattr(merged, field) == getattr(single, field)
    assert (
        merged.request.fingerprint()
        == single.request.model_copy(update={"output": merged.request.output}).fingerprint()
    )


@pytest.mark.parametrize(
    ("input_name", "output_name"),
    [
        ("rows.jsonl", "out.jsonl"),
        ("rows.jsonl", "out.json"),
        ("rows.json", "out.json"),
        ("rows.json", "out.jsonl"),
        ("rows.csv", "out.csv"),
        ("rows.csv", "out.json"),
        ("rows.jsonl", "out.jsonl.gz"),
        ("rows.csv.gz", "out.csv.gz"),
    ],
)
def test_text_is_the_same_to_the_byte(data: DataSet, tmp_path: Path, input_name: str, output_name: str) -> None:
    if not (data.folder / input_name).exists():
        (data.folder / input_name).write_bytes(gzip.compress((data.folder / input_name[:-3]).read_bytes()))
    single = evaluate(data.request(input_name, tmp_path / f"single-{output_name}"))
    request = data.request(input_name, tmp_path / output_name)
    plan = plan_shards(request, Storage(), shards=5)
    assert len(plan.names) == 5
    score(plan, Storage())
    merged = merge_shards(plan.uri, Storage(), MERGER)
    assert (tmp_path / output_name).read_bytes() == (tmp_path / f"single-{output_name}").read_bytes()
    assert_same_results(merged, single)
    assert merged.shards is not None
    assert (merged.shards.count, sum(work.rows for work in merged.shards.scored_by)) == (5, ROWS)
    assert proof(Storage(), request.output) == merged
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == [
        output_name,
        f"{output_name}.manifest.json",
        f"{output_name}.report.html",
        f"{output_name}.samples.json",
        f"{output_name}.worst-rows.csv",
    ], "nothing is left behind"


def test_parquet_has_the_same_rows_schema_and_row_groups(data: DataSet, tmp_path: Path) -> None:
    single = evaluate(data.request("rows.parquet", tmp_path / "single.parquet"))
    merged = in_shards(data.request("rows.parquet", tmp_path / "out.parquet"), shards=4)
    whole, put_together = pq.ParquetFile(tmp_path / "single.parquet"), pq.ParquetFile(tmp_path / "out.parquet")
    assert put_together.read().equals(whole.read(), check_metadata=True)
    assert put_together.schema_arrow.equals(whole.schema_arrow, check_metadata=True)
    groups = [
        [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] for file in (whole, put_together)
    ]
    assert groups[0] == groups[1]
    assert_same_results(merged, single)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("bad.csv", b"image_path,text\na.png,x,y\n", "line 2 has 3 cells, but the header has 2"),
        ("bad.json", b'{"a": [{}], "b": [{}]}', "The file holds an object with 2 lists of objects"),
        ("bad.parquet", b"PAR1 no more", ""),
        ("bad.jsonl.gz", b"\x1f\x8bno gzip", ""),
    ],
)
def test_a_file_that_cannot_be_cut_is_named(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    wanted = parse_request({"input": str(tmp_path / name), "output": str(tmp_path / f"out-{name}"), "model": SHAPES})
    with pytest.raises(JobError) as raised:
        plan_shards(wanted, Storage(), shards=2)
    assert str(raised.value).startswith(f"{tmp_path / name}: {problem}")
    assert str(raised.value).count(name) == 1


@pytest.mark.parametrize(
    ("input_name", "segment", "chunk_bytes"),
    [
        ("rows.jsonl", 16, None),
        ("rows.jsonl", 300, None),
        ("rows.jsonl", 64, 3_000),
        ("rows.csv", 300, None),
        ("rows.parquet", 2 * SEGMENT, 1_000),
    ],
)
def test_shards_score_in_the_segments_of_a_single_task(
    data: DataSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    input_name: str,
    segment: int,
    chunk_bytes: int | None,
) -> None:
    """On this machine's processor embeddings do not depend on their batch; on others they do, as with this encoder."""
    encode = ClipEncoder.encode_images

    def as_the_batch_has_it(self: ClipEncoder, images: Sequence[Any]) -> torch.Tensor:
        return encode(self, images) + 1e-4 * len(images) + 1e-5 * float(encode(self, images[:1])[0, 0])

    monkeypatch.setattr(ClipEncoder, "encode_images", as_the_batch_has_it)
    if chunk_bytes is not None:  # as where rows are large
        monkeypatch.setattr("clip_operator.tables.table.CHUNK_BYTES", chunk_bytes)
    source = tmp_path / input_name
    if input_name.endswith("parquet"):
        shutil.copy2(data.folder / input_name, source)
    else:
        source.write_bytes(many_times(data.folder / input_name, 2 if segment < 300 else 3))
    fields = {"input": str(source), "resume_point_rows": segment, "report": False}
    single, output = (tmp_path / f"{name}-{input_name}" for name in ("single", "out"))
    evaluate(data.request(input_name, single, **fields))
    in_shards(data.request(input_name, output, **fields), shards=2)
    if input_name.endswith("parquet"):
        assert pq.read_table(output).equals(pq.read_table(single))
    else:
        assert output.read_bytes() == single.read_bytes()


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({"shards": 100}, 13),  # 203 rows are 13 segments of 16
        ({"shards": 7}, 7),
        ({"shard_rows": 2 * SEGMENT}, 7),
        ({"shard_rows": 2 * SEGMENT - 1}, 12),  # the last segment has 11 rows
        ({"shard_rows": SEGMENT}, 13),
        ({"shard_rows": SEGMENT - 1}, 13),
        ({"shard_rows": 1000}, 1),
        ({"shard_bytes": 1 << 20}, 1),
        ({}, 1),
        ({"most": 4, "shards": 4}, 4),
    ],
)
def test_a_text_is_cut_between_segments(data: DataSet, tmp_path: Path, wishes: dict[str, Any], expected: int) -> None:
    plan = plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), **wishes)
    assert len(plan.names) == expected
    assert all(first_row is not None and first_row % SEGMENT == 0 for _, _, first_row, _ in plan.shards)
    assert sum(rows or 0 for *_, rows in plan.shards) == plan.total_rows == ROWS


@pytest.mark.parametrize(
    ("wishes", "first_rows"),
    [
        ({"shards": 2}, [0, 128]),  # not 96, which is nearer to the middle
        ({"shards": 5}, [0, 32, 96, 128, 160]),  # there are but four segments
        ({"shard_rows": 100}, [0, 64, 128]),
        ({"shard_rows": 40}, [0, 32, 64, 96, 128, 160, 192]),
    ],
)
def test_parquet_is_cut_between_segments_where_row_groups_allow_it(
    data: DataSet, tmp_path: Path, wishes: dict[str, Any], first_rows: list[int]
) -> None:
    request = data.request("rows.parquet", tmp_path / "out.parquet", resume_point_rows=4 * SEGMENT)
    plan = plan_shards(request, Storage(), **wishes)
    assert [span.first_row for span in plan.shards] == first_rows


def test_the_same_work_comes_to_the_same_plan_and_other_work_to_another(data: DataSet, tmp_path: Path) -> None:
    request = data.request("rows.jsonl", tmp_path / "out.jsonl")
    plan = plan_shards(request, Storage(), shards=3)
    assert plan_shards(request, Storage(), shards=3).id == plan.id
    assert read_plan(plan.uri, Storage()).shards == plan.shards
    assert plan_shards(request, Storage(), shards=4).id != plan.id
    assert (
        plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl", on_error="zero"), Storage(), shards=3).id
        != plan.id
    )


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"shards": 3, "shard_rows": 10}, "shards and shard_rows say the same thing"),
        ({"shards": 0}, "shards must be 1 or more"),
        ({"shards": 8, "most": 7}, "more than the 7"),
        ({"shard_rows": 16, "most": 7}, "13 shards, more than the 7"),
    ],
)
def test_what_cannot_be_cut_as_asked_is_refused(
    data: DataSet, tmp_path: Path, wishes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), **wishes)
    assert list(tmp_path.iterdir()) == []


def test_without_a_wish_shards_grow_where_there_would_be_too_many(data: DataSet, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    lines = (data.folder / "rows.jsonl").read_text(encoding="utf-8-sig").split()
    for number in range(9):
        (folder / f"{number}.jsonl").write_text(json.dumps({"image_path": "1.png", "text": lines[number]}) + "\n")
    request = data.request("rows.jsonl", tmp_path / "out.jsonl", input=f"{folder}/")
    assert len(plan_shards(request, Storage()).names) == 9
    assert len(plan_shards(request, Storage(), most=4).names) == 4


def test_a_missing_shard_is_named_and_scoring_it_alone_finishes_the_step(data: DataSet, tmp_path: Path) -> None:
    request = data.request("rows.csv", tmp_path / "out.csv")
    plan = plan_shards(request, Storage(), shards=6)
    score(plan, Storage(), [name for name in plan.names if not name.startswith("00004")])
    with pytest.raises(JobError, match=r"1 of 6 shards have no result .*: 00004-of-00006"):
        merge_shards(plan.uri, Storage(), MERGER)
    assert not (tmp_path / "out.csv").exists()
    score(plan, Storage(), ["00004-of-00006"])
    merge_shards(plan.uri, Storage(), MERGER)
    evaluate(data.request("rows.csv", tmp_path / "single.csv"))
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "single.csv").read_bytes()


def test_a_shard_that_finishes_twice_changes_nothing(data: DataSet, tmp_path: Path) -> None:
    plan = plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), shards=3)
    first = score(plan, Storage())
    again = score(plan, Storage())
    assert [manifest.output for manifest in first] == [manifest.output for manifest in again]
    assert [manifest.finished_at for manifest in first] == [manifest.finished_at for manifest in again]


def test_another_runs_plan_takes_over_the_shards_that_are_done(data: DataSet, tmp_path: Path) -> None:
    def asked_in(run: str) -> EvaluationRequest:
        asker = Requester(dag_id="d", run_id=run, task_id="plan")
        return data.request("rows.jsonl", tmp_path / "out.jsonl", requested_by=asker)

    first = plan_shards(asked_in("monday"), Storage(), shards=4)
    done = score(first, Storage(), first.names[:3])
    second = plan_shards(asked_in("tuesday"), Storage(), shards=4)
    taken_over = sorted(score(second, Storage()), key=lambda manifest: manifest.output.uri)[:3]
    assert {m.finished_at for m in taken_over} == {m.finished_at for m in done}
    assert merge_shards(second.uri, Storage(), MERGER).request.requested_by == asked_in("tuesday").requested_by


def test_overwriting_takes_over_nothing_that_another_has_asked_for(data: DataSet, tmp_path: Path) -> None:
    monday = Requester(dag_id="d", run_id="monday", task_id="plan")
    others = ({"run_id": "tuesday"}, {"dag_id": "other"}, {"task_id": "another"}, {"map_index": 3})

    def planned_for(asker: Requester | None) -> str:
        request = data.request("rows.jsonl", tmp_path / "out.jsonl", requested_by=asker, overwrite=True)
        return plan_shards(request, Storage(), shards=2).id

    askers = [monday, *(monday.model_copy(update=other) for other in others), None, None]
    assert len(set(map(planned_for, askers))) == len(askers)
    assert planned_for(monday) == planned_for(monday)


def test_a_shard_of_another_plan_is_not_merged(data: DataSet, tmp_path: Path) -> None:
    plan = plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), shards=3)
    score(plan, Storage())
    other = plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl", on_error="zero"), Storage(), shards=3)
    score(other, Storage())
    name = "00002-of-00003.jsonl"
    shutil.copy2(Path(other.folder) / name, Path(plan.folder) / name)
    manifest = json.loads((Path(other.folder) / f"{name}.manifest.json").read_text())
    manifest["output"]["uri"] = f"{plan.folder}{name}"  # else it would be no manifest of this object
    (Path(plan.folder) / f"{name}.manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(JobError, match=r"1 of 3 shards have no result that belongs to this plan: 00002-of-00003"):
        merge_shards(plan.uri, Storage(), MERGER)


def test_a_shard_that_was_replaced_behind_its_manifest_is_not_merged(data: DataSet, tmp_path: Path) -> None:
    plan = plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), shards=3)
    score(plan, Storage())
    (Path(plan.folder) / "00001-of-00003.jsonl").write_text("{}\n")
    with pytest.raises(JobError, match="00001-of-00003"):
        merge_shards(plan.uri, Storage(), MERGER)
    with pytest.raises(JobError, match="exists already and is not this job's"):
        score(plan, Storage(), ["00001-of-00003"])
    (Path(plan.folder) / "00001-of-00003.jsonl").unlink()
    score(plan, Storage(), ["00001-of-00003"])
    merge_shards(plan.uri, Storage(), MERGER)


def test_an_input_that_changed_after_the_plan_is_not_scored(data: DataSet, tmp_path: Path) -> None:
    shutil.copy(data.folder / "rows.jsonl", tmp_path / "rows.jsonl")
    request = data.request("rows.jsonl", tmp_path / "out.jsonl", input=str(tmp_path / "rows.jsonl"))
    plan = plan_shards(request, Storage(), shards=3)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("\n{}\n")
    with pytest.raises(JobError, match="changed since the step was planned; clear the plan task"):
        score(plan, Storage(), plan.names[:1])


@pytest.mark.usefixtures("drivers")
def test_an_input_without_a_version_is_not_cut(data: DataSet, tmp_path: Path) -> None:
    uri = "silent://data/rows.jsonl"
    Storage().write((data.folder / "rows.jsonl").read_bytes(), uri)
    with pytest.raises(JobError, match=f"store of {uri} tells no versions apart"):
        plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl", input=uri), Storage())


def test_shards_of_two_models_are_not_put_together(data: DataSet, tmp_path: Path) -> None:
    plan = plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), shards=3)
    score(plan, Storage())
    path = Path(plan.folder) / "00003-of-00003.jsonl.manifest.json"
    manifest = json.loads(path.read_text())
    manifest["model"]["digest"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(JobError, match=r"not all shards were scored by the same model.*: 00003-of-00003 differ"):
        merge_shards(plan.uri, Storage(), MERGER)


def test_merging_again_changes_nothing(data: DataSet, tmp_path: Path) -> None:
    plan = plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), shards=3)
    score(plan, Storage())
    merged = merge_shards(plan.uri, Storage(), MERGER)
    again = merge_shards(plan.uri, Storage(), MERGER)
    assert (again.output, again.finished_at, again.rows) == (merged.output, merged.finished_at, merged.rows)


@pytest.mark.parametrize("in_parts", [False, True], ids=["file", "parts"])
def test_a_step_that_is_complete_is_not_divided_and_its_merge_confirms_it_as_often_as_it_is_asked(
    data: DataSet, tmp_path: Path, in_parts: bool
) -> None:
    request = data.request("rows.jsonl", tmp_path / ("out/part-*.jsonl" if in_parts else "out.jsonl"))
    merged = in_shards(request, shards=3)
    plan = plan_shards(request, Storage(), shards=3)
    assert plan.names == ()
    for _ in range(2):
        confirmed = merge_shards(plan.uri, Storage(), MERGER)
        assert (confirmed.output, confirmed.confirmed_by) == (merged.output, MERGER)
        assert not Path(plan.folder).exists() or not any(Path(plan.folder).iterdir())


def test_no_merge_confirms_what_another_plan_found_complete(data: DataSet, tmp_path: Path) -> None:
    request = data.request("rows.jsonl", tmp_path / "out.jsonl")
    evaluate(request)
    plan = plan_shards(request, Storage())
    Path(plan.uri).unlink()
    evaluate(request.model_copy(update={"on_error": "zero"}))
    with pytest.raises(PlanNotFound):
        merge_shards(plan.uri, Storage(), MERGER)


class _Killed(BaseException):
    pass


class _KilledWhileItCleansUp(Storage):
    """Removes of a folder what comes first by name, and dies."""

    def delete_folder(self, uri: str) -> None:
        for info in self.list(uri):
            self.delete(info.uri)
            raise _Killed


@pytest.mark.parametrize("is_complete", [False, True], ids=["of shards", "of a complete step"])
def test_a_merge_that_was_killed_while_it_cleaned_up_is_ended_by_the_next_try(
    data: DataSet, tmp_path: Path, is_complete: bool
) -> None:
    request = data.request("rows.jsonl", tmp_path / "out.jsonl")
    if is_complete:
        evaluate(request)
    plan = plan_shards(request, Storage(), shards=3)
    score(plan, Storage())
    with suppress(_Killed):
        merge_shards(plan.uri, _KilledWhileItCleansUp(), MERGER)
    merged = merge_shards(plan.uri, Storage(), MERGER)
    assert (merged.confirmed_by, proof(Storage(), request.output)) == (MERGER, merged)
    assert not any(path.is_file() for path in Path(plan.folder).parent.rglob("*"))


def test_a_single_task_and_shards_recognise_each_others_work(data: DataSet, tmp_path: Path) -> None:
    request = data.request("rows.jsonl", tmp_path / "out.jsonl")
    single = evaluate(request)
    assert plan_shards(request, Storage(), shards=3).names == ()
    (tmp_path / "out.jsonl").unlink()
    merged = in_shards(request, shards=3)
    assert evaluate(request).finished_at == merged.finished_at > single.finished_at


def test_an_output_of_another_is_protected(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine\n")
    with pytest.raises(JobError, match="exists already and is not this job's"):
        plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), shards=3)


def test_failures_are_judged_over_the_whole_step(data: DataSet, tmp_path: Path) -> None:
    """All of the second of four shards has no image: a quarter of the rows."""
    rows = [json.dumps({"image_path": "gone.png" if 48 <= n < 96 else "1.png", "text": "x"}) for n in range(192)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))

    def request(rate: float) -> EvaluationRequest:
        return data.request("", tmp_path / f"out{rate}.jsonl", input=str(tmp_path / "rows.jsonl"), max_error_rate=rate)

    merged = in_shards(request(0.25), shards=4)
    assert merged.rows.failures == {"image_not_found": 48}
    plan = plan_shards(request(0.2), Storage(), shards=4)
    with pytest.raises(JobError, match=r"48 of all 192 rows \(25 %\), more than the 20 % of max_error_rate"):
        score(plan, Storage())


def test_the_merge_judges_what_no_shard_could_know(data: DataSet, tmp_path: Path) -> None:
    """Nobody knows how many rows text files have together before all are read."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for number, image in enumerate(["1.png", "gone.png", "2.png"]):
        (folder / f"{number}.jsonl").write_text(json.dumps({"image_path": image, "text": "x"}) + "\n")
    request = data.request("", tmp_path / "out.jsonl", input=f"{folder}/", max_error_rate=0.3)
    plan = plan_shards(request, Storage(), shards=3)
    score(plan, Storage())
    with pytest.raises(JobError, match=r"1 of the 3 rows .*more than the 30 % of max_error_rate"):
        merge_shards(plan.uri, Storage(), MERGER)


def test_a_table_without_rows_is_one_shard(data: DataSet, tmp_path: Path) -> None:
    for name, text in (("empty.jsonl", ""), ("empty.json", "[\n]\n"), ("empty.csv", "image_path,text\n")):
        (tmp_path / name).write_text(text)
    pq.write_table(pq.read_table(data.folder / "rows.parquet").slice(0, 0), tmp_path / "empty.parquet")
    for name in ("empty.jsonl", "empty.json", "empty.csv", "empty.parquet"):
        evaluate(data.request("", tmp_path / f"single-{name}", input=str(tmp_path / name)))
        in_shards(data.request("", tmp_path / f"out-{name}", input=str(tmp_path / name)), shards=3)
        if name.endswith("parquet"):
            assert pq.read_table(tmp_path / f"out-{name}").equals(pq.read_table(tmp_path / f"single-{name}"))
        else:
            assert (tmp_path / f"out-{name}").read_bytes() == (tmp_path / f"single-{name}").read_bytes()


def test_what_is_wrong_in_a_shard_is_said_with_the_shard(data: DataSet, tmp_path: Path) -> None:
    lines = [json.dumps({"image_path": "1.png", "text": "x"}) for _ in range(64)]
    lines[40] = "{broken"
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    plan = plan_shards(
        data.request("", tmp_path / "out.jsonl", input=str(tmp_path / "rows.jsonl")), Storage(), shards=4
    )
    with pytest.raises(JobError, match=r"line 9 is not valid JSON.*in shard 3 of 4, whose first row is row 33"):
        score(plan, Storage())


def test_a_column_that_no_row_of_one_shard_has_is_not_missing(data: DataSet, tmp_path: Path) -> None:
    rows = [{"image_path": "1.png", "text": "x"}] * 48 + [{"image_path": "1.png"}] * 4
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    merged = in_shards(data.request("", tmp_path / "out.jsonl", input=str(tmp_path / "rows.jsonl")), shards=4)
    assert merged.rows.failures == {"text_missing": 4}


def test_files_without_rows_leave_no_gap_in_an_array(data: DataSet, tmp_path: Path) -> None:
    row = json.dumps({"image_path": "1.png", "text": "x"}) + "\n"
    (tmp_path / "parts").mkdir()
    for number, text in enumerate(["", row, "", row, ""]):
        (tmp_path / "parts" / f"{number}.jsonl").write_text(text)
    request = data.request("", tmp_path / "out.json", input=f"{tmp_path}/parts/")
    in_shards(request, shards=5)
    evaluate(request.model_copy(update={"output": str(tmp_path / "single.json")}))
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "single.json").read_bytes()
    assert len(json.loads((tmp_path / "out.json").read_text())) == 2


def test_a_merge_that_is_stopped_writes_nothing(data: DataSet, tmp_path: Path) -> None:
    plan = plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), shards=3)
    score(plan, Storage())
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        merge_shards(plan.uri, Storage(), MERGER, stop)
    assert not (tmp_path / "out.jsonl").exists()


def test_of_two_merges_at_once_one_writes_and_nothing_is_lost(data: DataSet, tmp_path: Path) -> None:
    plan = plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), shards=3)
    score(plan, Storage())

    def merge(_: int) -> EvaluationManifest | JobError:
        try:
            return merge_shards(plan.uri, Storage(), MERGER)
        except JobError as error:
            return error

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(merge, range(2)))
    assert any(isinstance(result, EvaluationManifest) for result in found)
    evaluate(data.request("rows.jsonl", tmp_path / "single.jsonl"))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "single.jsonl").read_bytes()
    merged = merge_shards(plan.uri, Storage(), MERGER)
    assert proof(Storage(), str(tmp_path / "out.jsonl")) == merged


def test_a_merge_that_comes_when_another_removes_the_plan_confirms_what_that_one_has_made(
    data: DataSet, tmp_path: Path
) -> None:
    plan = plan_shards(data.request("rows.jsonl", tmp_path / "out.jsonl"), Storage(), shards=3)
    score(plan, Storage())

    class ComesLate(Storage):
        def read(self, uri: str, max_bytes: int | None = None) -> bytes:
            if uri == plan.uri:
                merge_shards(plan.uri, Storage(), MERGER)
            return super().read(uri, max_bytes)

    assert merge_shards(plan.uri, ComesLate(), MERGER) == proof(Storage(), str(tmp_path / "out.jsonl"))


class TestPartFiles:
    def request(self, data: DataSet, tmp_path: Path, **fields: Any) -> EvaluationRequest:
        return data.request("rows.json", tmp_path / "rows_step1" / "part-*.json", **fields)

    def test_each_shard_is_a_table_of_its_own_and_together_they_are_the_step(
        self, data: DataSet, tmp_path: Path
    ) -> None:
        single = evaluate(data.request("rows.json", tmp_path / "single.json"))
        merged = in_shards(self.request(data, tmp_path), shards=4)
        parts = sorted(path for path in (tmp_path / "rows_step1").iterdir() if not path.name.startswith("_"))
        assert [path.name for path in parts] == [f"part-0000{n}-of-00004.json" for n in range(1, 5)]
        rows = [row for path in parts for row in json.loads(path.read_text())]
        assert rows == json.loads((tmp_path / "single.json").read_text())
        assert_same_results(merged, single)
        assert proof(Storage(), merged.output.uri) == merged
        assert (tmp_path / "rows_step1.manifest.json").exists()
        assert not (tmp_path / "rows_step1.claim.json").exists()

    def test_they_are_the_input_of_the_next_step(self, data: DataSet, tmp_path: Path) -> None:
        in_shards(self.request(data, tmp_path), shards=4)
        following = {"input": str(tmp_path / "rows_step1" / "part-*.json"), "output_key": "again", "error_key": None}
        second = in_shards(data.request("", tmp_path / "rows_step2.json", **following), shards=2)
        assert second.rows.total == ROWS
        rows = json.loads((tmp_path / "rows_step2.json").read_text())
        assert [row["clip_score"] for row in rows] == [row["again"] for row in rows]

    def test_those_of_an_earlier_plan_go_with_the_merge(self, data: DataSet, tmp_path: Path) -> None:
        in_shards(self.request(data, tmp_path), shards=4)
        merged = in_shards(self.request(data, tmp_path, overwrite=True), shards=3)
        names = sorted(path.name for path in (tmp_path / "rows_step1").glob("part-*"))
        assert names == [f"part-0000{n}-of-00003.json" for n in range(1, 4)]
        assert proof(Storage(), merged.output.uri) == merged

    def test_what_overwrites_is_not_put_together_with_what_another_run_had_scored(
        self, data: DataSet, tmp_path: Path
    ) -> None:
        """Part files stand in the same places for every run."""

        def asked_in(run: str) -> EvaluationRequest:
            asker = {"dag_id": "d", "run_id": run, "task_id": "plan"}
            return self.request(data, tmp_path, overwrite=True, requested_by=asker)

        earlier = plan_shards(asked_in("earlier"), Storage(), shards=2)
        evaluate(earlier.nth_request(0, asked_in("earlier").requested_by))
        plan = plan_shards(asked_in(MERGER.run_id), Storage(), shards=2)
        score(plan, Storage(), plan.names[1:])
        with pytest.raises(JobError, match="1 of 2 shards have no result that belongs to this plan: 00001-of-00002"):
            merge_shards(plan.uri, Storage(), MERGER)
        score(plan, Storage(), plan.names[:1])
        merge_shards(plan.uri, Storage(), MERGER)

    def test_part_files_of_another_are_protected(self, data: DataSet, tmp_path: Path) -> None:
        (tmp_path / "rows_step1").mkdir()
        (tmp_path / "rows_step1" / "part-1.json").write_text("[]")
        with pytest.raises(JobError, match="exists already and is not this job's"):
            plan_shards(self.request(data, tmp_path), Storage(), shards=4)

    def test_a_plan_may_be_made_again_while_its_shards_are_being_scored(self, data: DataSet, tmp_path: Path) -> None:
        plan = plan_shards(self.request(data, tmp_path), Storage(), shards=4)
        score(plan, Storage(), plan.names[:2])
        again = plan_shards(self.request(data, tmp_path), Storage(), shards=4)
        assert again.id == plan.id
        score(again, Storage())
        merge_shards(again.uri, Storage(), MERGER)

    @pytest.mark.parametrize(
        ("before", "wishes", "kept"),
        [({"shards": 4}, {"shards": 4}, 27), ({"shards": 2}, {"shards": 4}, 0), ({"shard_rows": 48}, {"shards": 2}, 0)],
        ids=["cut alike", "other parts", "other rows under the same names"],
    )
    def test_what_failed_is_tried_again_part_by_part(
        self, data: DataSet, tmp_path: Path, before: dict[str, Any], wishes: dict[str, Any], kept: int
    ) -> None:
        """An image is away for a while: 3 rows of the first quarter and 2 of the third have none."""
        rows = [{"image_path": f"{1 + n % 2}.png", "text": f"number {n}"} for n in range(4 * SEGMENT)]
        for n in (0, 1, 2, 40, 41):
            rows[n]["image_path"] = "away.png"
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for image in ("1.png", "2.png"):
            shutil.copy2(data.folder / image, tmp_path)

        def request(output: str, **fields: Any) -> EvaluationRequest:
            places = {"input": str(tmp_path / "rows.jsonl"), "image_root": str(tmp_path)}
            return data.request("", tmp_path / output, **places, max_error_rate=0.2, report=False, **fields)

        first = in_shards(request("out/part-*.jsonl"), **before)
        assert first.rows.failures == {"image_not_found": 5}
        shutil.copy2(data.folder / "3.png", tmp_path / "away.png")
        again = in_shards(request("out/part-*.jsonl", rescore="failed"), **wishes)
        assert (again.rows.scored, again.rows.resumed) == (64, kept)
        anew = evaluate(request("anew.jsonl"))
        assert again.scores is not None
        assert anew.scores is not None
        assert again.scores.mean == pytest.approx(anew.scores.mean, abs=1e-6)
        lines = "".join(part.read_text() for part in sorted((tmp_path / "out").glob("part-*.jsonl"))).splitlines()
        for line, alone in zip(lines, (tmp_path / "anew.jsonl").open(), strict=True):
            whole = json.loads(alone)
            assert json.loads(line) == whole | {"clip_score": pytest.approx(whole["clip_score"], abs=1e-5)}
        assert plan_shards(request("out/part-*.jsonl", rescore="failed"), Storage()).is_complete


@pytest.fixture
def in_s3(data: DataSet, s3: S3) -> str:
    return s3.put_folder(data.folder, "data")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_in_s3_shards_come_to_what_a_single_task_comes_to(
    data: DataSet, in_s3: str, s3: S3, tmp_path: Path, name: str
) -> None:
    def request(output: str) -> EvaluationRequest:
        return data.request("", f"{in_s3}/steps/{output}-{name}", input=f"{in_s3}/{name}", image_root=in_s3)

    single = evaluate(request("single"), s3.storage)
    merged = in_shards(request("out"), s3.storage, shards=4)
    assert_same_results(merged, single)
    if name.endswith("parquet"):
        assert merged.rows.total == ROWS
    else:
        assert s3.get(merged.output.uri) == s3.get(single.output.uri)
    assert not [key for key in s3.object_keys() if ".shards/" in key or ".claim" in key]
