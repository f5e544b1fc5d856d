"""A run that dies goes on where it was, with the same bytes in the end, whenever and however it dies."""

from __future__ import annotations

import csv
import itertools
import json
import logging
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import call, patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clip_operator import model
from clip_operator.errors import Cancelled, JobError
from clip_operator.job import progress
from clip_operator.job.evaluation import evaluate
from clip_operator.proof.manifest import EvaluationManifest, parse_manifest
from clip_operator.proof.standing import proof
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.resume import find_leftovers
from clip_operator.sharding import merge_shards, plan_shards
from clip_operator.storage import ObjectChanged, ObjectInfo, Storage, StorageError, Unchanged
from tests.conftest import S3, SHAPES
from tests.faulty_store import Request, faulty_store
from tests.meetings import MeetsAnotherRun
from tests.tries import Access, Death, Tries

SEGMENT = 32
ROWS = 300


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 300 rows, with 120 images, so that segments have some in common, and a few bad rows."""
    folder = tmp_path_factory.mktemp("pictures")
    drawn = np.random.default_rng(11)
    for number in range(120):
        pixels = drawn.integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).resize((96, 96)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG, but no image")
    rows: list[dict[str, Any]] = []
    for number in range(ROWS):
        image = f"{drawn.integers(0, 120)}.png"
        rows.append({"id": number, "image_path": image, "text": f"a shape, number {drawn.integers(0, 210)}"})
    rows[60]["image_path"] = "nowhere.png"
    rows[170]["text"] = None
    rows[171]["image_path"] = "broken.png"
    rows[80]["text"] = rows[210]["text"] = "a very long text " * 40
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


def beside(output: str) -> list[str]:
    """The names of an output and of what belongs to it, and nothing that was left over."""
    return [
        output,
        *(f"{output}.{name}" for name in ("manifest.json", "report.html", "samples.json", "worst-rows.csv")),
    ]


def scored_twice(tries: Tries) -> int:
    return sum(times - 1 for times in tries.scored().values())


def run_to_the_end(tries: Tries, work: EvaluationRequest, seconds: Callable[[], float], most_kills: int) -> int:
    """Kill each try so many seconds after its start, until one is done before; return how many were killed."""
    for kills in itertools.count():
        process = tries.start(work)
        process.join(seconds() if kills < most_kills else None)
        if not process.is_alive():
            assert process.exitcode == 0
            return kills
        process.kill()
        process.join()
    raise AssertionError


@pytest.mark.slow
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
        kills = run_to_the_end(story, request(pictures, output), lambda: moments.uniform(0, whole), 30 - all_kills)
        assert output.read_bytes() == undisturbed
        assert sorted(path.name for path in output.parent.iterdir()) == beside(output.name)
        assert scored_twice(story) <= kills * SEGMENT
        manifest = parse_manifest(Path(f"{output}.manifest.json").read_bytes())
        assert manifest is not None
        resumed += manifest.rows.resumed
        all_kills += kills
    # How many rows depends on the machine: where starting takes most of a run, all kills may be in one story.
    assert resumed > 0


SMALL = 75


def changes_of_a_run(rows: int, segment: int) -> int:
    """How many changes a run makes: claim, resume points, output, samples, report, manifest, and the removals of what
    is left over."""
    points = -(-rows // segment)
    return 1 + points + 1 + 1 + 1 + 1 + 1 + 1


@pytest.mark.slow
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
        assert set(s3.object_keys()) == {"rows.jsonl", *beside("out.jsonl")}
        assert scored_twice(tries) <= SEGMENT
    assert manifest.rows.resumed == 0


@pytest.mark.parametrize("replaces", [False, True], ids=["a new output", "an output that is replaced"])
def test_of_two_runs_of_one_task_at_once_one_writes_the_output_and_the_other_says_so(
    pictures: Path, s3: S3, tmp_path: Path, replaces: bool
) -> None:
    """A try that was given up but lives on, and the next one: both are done at the same moment."""
    rows = (pictures / "rows.jsonl").read_text().splitlines(keepends=True)[:SMALL]
    work = request(pictures, f"s3://{s3.bucket}/out.jsonl", input=f"s3://{s3.bucket}/rows.jsonl")
    if replaces:
        s3.put("rows.jsonl", "".join(reversed(rows)).encode())
        evaluate(work, s3.storage)
    s3.put("rows.jsonl", "".join(rows).encode())
    evaluate(request(pictures, tmp_path / "alone.jsonl", input=f"s3://{s3.bucket}/rows.jsonl"), s3.storage)
    both = threading.Barrier(2, timeout=60)

    def meet(seen: Request) -> None:
        if seen.method == "PUT" and seen.key == "out.jsonl":
            both.wait()

    with faulty_store(s3.store.endpoint_url, before=meet) as proxy:
        tries = Tries(Path(tempfile.mkdtemp(dir=tmp_path)), Access(proxy.url, s3.store.access_key, s3.store.secret_key))
        processes = [tries.start(work), tries.start(work)]
        for process in processes:
            process.join()
    assert sorted(process.exitcode for process in processes) == [0, 1]
    [loser] = [process for process in processes if process.exitcode == 1]
    assert f"another run has written s3://{s3.bucket}/out.jsonl while this one was scoring" in tries.error(loser)
    assert s3.get(work.output) == (tmp_path / "alone.jsonl").read_bytes()
    manifest = proof(s3.storage, work.output)
    assert manifest is not None
    assert manifest.rows.total == SMALL
    assert evaluate(work, s3.storage) == manifest
    assert set(s3.object_keys()) == {"rows.jsonl", *beside("out.jsonl")}


@pytest.mark.parametrize("suffix", [".samples.json", ".worst-rows.csv", ".report.html", ".manifest.json"])
def test_a_run_whose_output_was_replaced_before_it_was_proved_leaves_the_proof_to_the_other(
    pictures: Path, tmp_path: Path, suffix: str
) -> None:
    work = request(pictures, tmp_path / "out.jsonl")
    other: list[EvaluationManifest] = []
    with pytest.raises(JobError, match=r"another run has replaced .*out\.jsonl before this one had proved it"):
        evaluate(work, MeetsAnotherRun(suffix, lambda: other.append(evaluate(work))))
    assert [proof(Storage(), work.output)] == other == [evaluate(work)]
    assert sorted(path.name for path in tmp_path.iterdir()) == beside("out.jsonl")


def test_a_store_that_never_takes_the_manifest_is_not_asked_for_ever(pictures: Path, tmp_path: Path) -> None:
    class Refuses(Storage):
        def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
            if uri.endswith(".manifest.json"):
                raise ObjectChanged(f"{uri} was replaced in the meantime")
            return super().write(data, uri, only_if)

    work = request(pictures, tmp_path / "out.jsonl")
    with pytest.raises(JobError, match=r"out\.jsonl\.manifest\.json cannot be written: 20 times the store has said"):
        evaluate(work, Refuses())
    assert evaluate(work) == proof(Storage(), work.output)  # its claim tells the next try that the output is its own


def die_after(points: int, work: EvaluationRequest, folder: Path) -> None:
    """Have a try of the work killed when it has left so many resume points."""
    tries = Tries(Path(tempfile.mkdtemp(dir=folder)))
    process = tries.start(work, Death(1 + points, before=False))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(Path(f"{work.output}.resume").rglob("*.json"))) == points


def test_the_manifest_says_how_many_rows_were_resumed_and_where_they_were_scored(
    pictures: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    work = request(pictures, tmp_path / "out.jsonl")
    die_after(5, work, tmp_path)
    with patch.object(progress, "LogProgress") as shown:
        manifest = evaluate(work)
    assert shown.call_args == call(ROWS, 5 * SEGMENT)
    assert shown().update.call_args == call(ROWS, 3, 5 * SEGMENT - 1)
    assert Path(work.output).read_bytes() == undisturbed
    assert manifest.rows.total == ROWS
    assert manifest.rows.resumed == 5 * SEGMENT - 1  # the missing image among them is looked for again
    [earlier] = manifest.earlier_work
    assert (earlier.rows, earlier.device) == (5 * SEGMENT - 1, manifest.device.name)
    assert earlier.libraries == manifest.libraries
    assert manifest.rows == evaluate(request(pictures, tmp_path / "whole.jsonl")).rows.model_copy(
        update={"resumed": manifest.rows.resumed}
    )


@pytest.mark.parametrize(
    "change", [{"output_key": "alignment"}, {"max_image_pixels": 10_000}, {"input_text_key": "id"}, {"overwrite": True}]
)
def test_another_request_does_not_meet_what_was_scored_for_the_first(
    pictures: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    die_after(2, request(pictures, tmp_path / "out.jsonl", max_error_rate=1), tmp_path)
    with suppress(JobError):  # ids are no texts
        assert evaluate(request(pictures, tmp_path / "out.jsonl", max_error_rate=1, **change)).rows.resumed == 0
    assert not (tmp_path / "out.jsonl").exists() or not Path(f"{tmp_path}/out.jsonl.resume").exists()


MONDAY = {"dag_id": "curate", "run_id": "monday", "task_id": "score"}


@pytest.fixture
def few(pictures: Path, tmp_path: Path) -> dict[str, str]:
    """What makes a request one of two segments."""
    rows = (pictures / "rows.jsonl").read_text().splitlines(keepends=True)[: 2 * SEGMENT]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "few.jsonl").write_text("".join(rows))
    return {"input": f"{tmp_path}/in/few.jsonl", "output": f"{tmp_path}/out/out.jsonl"}


class StopsBefore(Storage):
    """Fails at an object, as a store that is down would fail a run."""

    def __init__(self, suffix: str) -> None:
        super().__init__()
        self._suffix = suffix

    def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
        if uri.endswith(self._suffix):
            raise StorageError("the store is down")
        return super().write(data, uri, only_if)


@pytest.mark.parametrize(
    ("asker", "resumed"),
    [
        (MONDAY, SEGMENT),
        ({**MONDAY, "run_id": "tuesday"}, 0),
        ({**MONDAY, "dag_id": "other"}, 0),
        ({**MONDAY, "task_id": "score_again"}, 0),
        (None, 0),
    ],
    ids=["its own next try", "another run", "another DAG", "another task", "nobody"],
)
def test_overwriting_takes_up_what_an_earlier_try_of_the_same_task_instance_has_left_and_nothing_else(
    pictures: Path, few: dict[str, str], asker: dict[str, str] | None, resumed: int
) -> None:
    """What another has left may have been scored before images were replaced, which is why one overwrites."""
    with pytest.raises(StorageError, match="the store is down"):
        evaluate(request(pictures, **few, overwrite=True, requested_by=MONDAY), StopsBefore(f"{SEGMENT:012d}.json"))
    manifest = evaluate(request(pictures, **few, overwrite=True, requested_by=asker))
    assert manifest.rows.resumed == resumed


def test_overwriting_for_nobody_leaves_nothing_that_nobody_could_take_up(pictures: Path, few: dict[str, str]) -> None:
    with pytest.raises(StorageError, match="the store is down"):
        evaluate(request(pictures, **few, overwrite=True), StopsBefore(".samples.json"))
    assert not Path(f"{few['output']}.resume").exists()


@pytest.mark.parametrize("suffix", [".claim.json", "000000000000.json"])
def test_a_run_that_another_was_quicker_than_leaves_nothing_behind(
    pictures: Path, few: dict[str, str], suffix: str
) -> None:
    """Neither resume points, which the other's success has not removed, nor a claim that came behind it."""
    first, second = (
        request(pictures, **few, overwrite=True, requested_by={**MONDAY, "run_id": run})
        for run in ("monday", "tuesday")
    )
    with pytest.raises(JobError, match=r"another run has written .*out\.jsonl while this one was scoring"):
        evaluate(first, MeetsAnotherRun(suffix, lambda: evaluate(second)))
    assert [Path(info.uri).name for info in Storage().list(few["output"])] == beside("out.jsonl")


def test_what_a_killed_try_left_on_the_local_disk_is_removed_by_the_next(pictures: Path, tries: Tries) -> None:
    work = request(pictures, tries.folder / "out" / "out.jsonl")
    tries.start(work, Death(3, before=False)).join()
    [left] = tries.folder.glob("clip-operator-*")
    assert (left / "input").exists()
    living = tries.start(work.model_copy(update={"output": f"{tries.folder}/other/out.jsonl"}))
    tries.start(work).join()
    assert not left.exists()
    living.join()
    assert living.exitcode == 0
    assert not list(tries.folder.glob("clip-operator-*"))


def test_unfinished_writes_of_a_claim_and_a_manifest_are_removed_too(pictures: Path, tmp_path: Path) -> None:
    """A kill may come between the bytes of a small file and its name."""
    output = tmp_path / "out.jsonl"
    for name in ("other.jsonl", "out.jsonl.claim.json", *beside("out.jsonl")):
        (tmp_path / f".{name}.0123456789abcdef.partial").touch()
    [left] = find_leftovers(Storage(), str(output))
    assert left.unfinished_uploads == 1 + len(beside("out.jsonl"))
    evaluate(request(pictures, output))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".other.jsonl.0123456789abcdef.partial",
        *beside("out.jsonl"),
    ]


def test_another_version_of_the_input_does_not_meet_what_was_scored_of_the_first(
    pictures: Path, tmp_path: Path
) -> None:
    own = tmp_path / "rows.jsonl"
    own.write_bytes((pictures / "rows.jsonl").read_bytes())
    work = request(pictures, tmp_path / "out.jsonl", input=str(own))
    die_after(2, work, tmp_path)
    lines = own.read_text().splitlines(keepends=True)
    own.write_text("".join([lines[1], lines[0], *lines[2:]]))
    manifest = evaluate(work)
    assert manifest.rows.resumed == 0
    assert not list(tmp_path.glob("out.jsonl.resume*"))


def test_another_model_does_not_meet_what_the_first_has_scored(pictures: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(Path(model.__file__).parent / "builtin" / "shapes-clip", copy)
    work = request(pictures, tmp_path / "out.jsonl", model=str(copy))
    die_after(2, work, tmp_path)
    config = copy / "config.json"
    config.write_text(config.read_text() + "\n")
    assert evaluate(work).rows.resumed == 0


@pytest.mark.parametrize("resume_point_rows", [SEGMENT, 300])
def test_with_a_score_store_a_run_that_dies_ends_as_one_that_never_did_and_as_its_shards(
    pictures: Path, tmp_path: Path, resume_point_rows: int
) -> None:
    """It reads neither what it has itself written nor from elsewhere: both would give rows other pairs."""
    rows = [json.loads(line) for line in (pictures / "rows.jsonl").read_text().splitlines()]
    more = [{**row, "text": row["text"] and f"{row['text']} again"} for row in rows]
    lines = [json.dumps(row) + "\n" for row in (rows + more)]
    (tmp_path / "before.jsonl").write_text("".join(line for at, line in enumerate(lines) if at % 4))
    (tmp_path / "rows.jsonl").write_text("".join([*lines, *lines[:200]]))  # the last ones once more

    def work(name: str, **fields: Any) -> EvaluationRequest:
        output, reuse = tmp_path / f"{name}.jsonl", tmp_path / f"scores-of-{name}"
        if not reuse.exists():
            shutil.copytree(tmp_path / "scores", reuse)
        defaults = {"input": f"{tmp_path}/rows.jsonl", "reuse": str(reuse), "report": False}
        return request(pictures, output, **defaults, resume_point_rows=resume_point_rows, percentile_key="%", **fields)

    class Dies(Storage):
        points = 0

        def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
            self.points += ".resume/" in uri
            if self.points == 3:
                raise KeyboardInterrupt
            return super().write(data, uri, only_if)

    fields = {"input": f"{tmp_path}/before.jsonl", "reuse": f"{tmp_path}/scores", "report": False}
    evaluate(request(pictures, tmp_path / "x.jsonl", **fields))
    lives = evaluate(work("lives"))
    assert 0 < lives.rows.reused < 800
    with pytest.raises(KeyboardInterrupt):
        evaluate(work("dies"), Dies())
    dies = evaluate(work("dies"))
    plan = plan_shards(work("sharded"), Storage(), shards=3)
    for name in reversed(plan.names):
        evaluate(plan.shard_request(name, None), Storage())
    merged = merge_shards(plan.uri, Storage(), None)
    assert dies.rows.resumed > 0
    for manifest, name in ((dies, "dies"), (merged, "sharded")):
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (tmp_path / "lives.jsonl").read_bytes()
        assert manifest.calibration == lives.calibration
    assert evaluate(work("lives", output_key="again", overwrite=False)).rows.reused == lives.rows.scored, "all is there"


def test_a_damaged_resume_point_is_scored_again(
    pictures: Path, undisturbed: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = request(pictures, tmp_path / "out.jsonl")
    die_after(4, work, tmp_path)
    first, second, third, _ = sorted(Path(f"{work.output}.resume").rglob("*.json"))
    first.write_bytes(first.read_bytes()[:100])
    point = json.loads(second.read_bytes())
    point["scores"][3] = None
    second.write_text(json.dumps(point))
    third.unlink()
    manifest = evaluate(work)
    assert manifest.rows.resumed == SEGMENT
    assert Path(work.output).read_bytes() == undisturbed
    assert caplog.text.count("is damaged") == 2


def test_a_run_that_is_told_to_stop_keeps_what_it_has_scored(
    pictures: Path, undisturbed: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = request(pictures, tmp_path / "out.jsonl")
    stop = threading.Event()

    class Stops(Storage):
        saved = 0

        def write(self, *arguments: Any) -> ObjectInfo:
            self.saved += ".resume/" in arguments[1]
            if self.saved == 3:
                stop.set()
            return super().write(*arguments)

    with pytest.raises(Cancelled), caplog.at_level(logging.INFO):
        evaluate(work, Stops(), stop)
    assert f"The results of {3 * SEGMENT} rows are kept for the next try" in caplog.text
    manifest = evaluate(work)
    assert manifest.rows.resumed == 3 * SEGMENT - 1
    assert Path(work.output).read_bytes() == undisturbed


def test_what_was_scored_before_too_many_rows_failed_is_kept_for_the_try_that_allows_for_more(
    pictures: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=r"too many rows have no score: 3 of the 300 rows \(1 %\)"):
        evaluate(request(pictures, tmp_path / "out.jsonl", max_error_rate=0.005))
    assert not (tmp_path / "out.jsonl").exists()
    manifest = evaluate(request(pictures, tmp_path / "out.jsonl", max_error_rate=0.02))
    assert manifest.rows.resumed == ROWS - 2
    assert (tmp_path / "out.jsonl").read_bytes() == undisturbed


def test_a_row_that_failed_for_a_passing_reason_gets_its_score_from_the_next_try(
    pictures: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(pictures, tmp_path / "root")
    work = request(root, tmp_path / "out.jsonl")
    die_after(3, work, tmp_path)
    shutil.copy(root / "0.png", root / "nowhere.png")
    assert evaluate(work).rows.failures == {"image_unreadable": 1, "text_missing": 1}


def test_rows_of_a_csv_file_and_of_parquet_are_resumed_too(pictures: Path, tmp_path: Path) -> None:
    """Parquet ends its chunks with its row groups, so that segments have another length there."""
    rows = [json.loads(line) for line in (pictures / "rows.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=75)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for suffix in ("csv", "parquet"):
        source, whole = str(tmp_path / f"rows.{suffix}"), tmp_path / f"whole.{suffix}"
        evaluate(request(pictures, whole, input=source))
        work = request(pictures, tmp_path / f"out.{suffix}", input=source)
        die_after(3, work, tmp_path)
        assert evaluate(work).rows.resumed > 2 * SEGMENT
        assert Path(work.output).read_bytes() == whole.read_bytes()
