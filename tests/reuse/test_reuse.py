"""The next version of a data set finds the scores of the last one, whatever was done to its rows."""

from __future__ import annotations

import logging
import math
import os
import random
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_operator.errors import JobError, RequestError
from clip_operator.reuse import prune
from clip_operator.reuse.pack import Pack, decode, encode
from clip_operator.scoring import BYTES_A_ROW
from clip_operator.storage import ObjectInfo, S3Access, Storage, StorageError, Unchanged
from tests.conftest import S3
from tests.faulty_store import Fault, Kind, Request, faulty_store
from tests.reuse.jobs import Job, Row, drawn, key_of


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(str(tmp_path / "scores"), Storage())


def packs(job: Job) -> list[Path]:
    return [path for path in sorted(Path(job.uri).rglob("*")) if path.is_file() and path.parent.parent.name == "packs"]


def test_rows_that_were_scored_are_found_and_new_ones_are_not(job: Job) -> None:
    rows = drawn(3000)
    known = set(rows)
    assert not any(job.run(rows))
    assert all(job.run(rows))
    versions: dict[str, list[Row]] = {
        "a row before all others": [*drawn(1, 9000), *rows],
        "rows in between": [*rows[:1000], *drawn(500, 9000), *rows[1000:]],
        "half of the rows, from the middle on": rows[1500:],
        "the first rows taken out": rows[2:],
        "rows at the end": [*rows, *drawn(600, 9000)],
    }
    for what, version in versions.items():
        hits = job.run(version)
        assert [row for row, hit in zip(version, hits, strict=True) if hit != (row in known)] == [], what
        for path in packs(job):
            path.unlink()
        job.run(rows)


def test_of_rows_left_over_from_a_random_choice_nearly_all_are_found(job: Job) -> None:
    rows = drawn(20_000)
    job.run(rows)
    for kept in (0.9, 0.1):
        chosen = random.Random(3)
        hits = job.run([row for row in rows if chosen.random() < kept])
        assert sum(hits) / len(hits) > 0.97, kept


def test_rows_of_many_shards_are_found_however_they_are_cut(job: Job) -> None:
    rows = drawn(10_000)
    job.run(rows)
    hits = [job.run(rows[start : start + 700]) for start in range(0, len(rows), 700)]
    assert sum(map(sum, hits)) / len(rows) > 0.97


def test_rows_in_another_order_near_by_are_found(job: Job) -> None:
    rows = drawn(4000)
    job.run(rows)
    order = random.Random(1)
    moved = sorted(range(len(rows)), key=lambda at: at + order.uniform(0, 500))
    assert sum(job.run([rows[at] for at in moved])) / len(rows) > 0.9


def test_a_row_without_a_score_is_tried_again(job: Job) -> None:
    rows: list[Row] = [*drawn(5), (b"image", "bad"), (None, "text"), (b"image", None), (b"x", " "), *drawn(5, 10)]
    job.run(rows)
    assert job.run(rows) == [True] * 5 + [False] * 4 + [True] * 5


@pytest.mark.parametrize(
    "other",
    [
        {"digest": "e"},
        {"precision": "bf16"},
        {"image_decoding": "reduced"},
        {"image_orientation": "exif"},
        {"max_image_pixels": 100},
    ],
)
def test_what_would_give_another_score_shares_none(job: Job, other: dict[str, Any]) -> None:
    rows = drawn(50)
    job.run(rows)
    assert not any(job.run(rows, **other))
    assert all(job.run(rows, **other))
    assert all(job.run(rows))


def test_another_text_or_image_is_another_row(job: Job) -> None:
    rows = drawn(50)
    job.run(rows)
    changed: list[Row] = [(rows[0][0], "another"), (b"another", rows[1][1]), *rows[2:]]
    assert job.run(changed) == [False, False, *[True] * 48]


@pytest.mark.usefixtures("drivers")
def test_an_image_that_is_replaced_between_the_look_and_the_reading_is_not_recorded(tmp_path: Path) -> None:
    class Replacing(Storage):
        def read_version(self, uri: str, max_bytes: int | None = None) -> tuple[ObjectInfo, bytes]:
            if uri.endswith("x.jpg"):
                self.write(b"newer", uri)
            return super().read_version(uri, max_bytes)

    rows: list[Row] = [("x.jpg", "text")]
    scores, root = str(tmp_path / "scores"), "digesting://images"
    Storage().write(b"old", f"{root}/x.jpg")
    assert Job(scores, Replacing(), root).run(rows, fetch=True) == [False]
    Storage().write(b"old", f"{root}/x.jpg")  # the version that was looked up, and never read
    assert Job(scores, Storage(), root).run(rows, fetch=True) == [False]
    assert Job(scores, Storage(), root).run(rows, fetch=True) == [True]


def test_overwrite_takes_nothing_from_the_store_and_adds_to_it(job: Job) -> None:
    rows = drawn(300)
    job.run(rows[:200])
    assert not any(job.run(rows, reads=False))
    assert all(job.run(rows))


@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_pack_gives_no_wrong_score_and_is_written_anew(job: Job, data: st.DataObject) -> None:
    rows = drawn(100)
    job.run(rows, reads=False)
    for path in packs(job):
        whole = path.read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged = data.draw(
            st.sampled_from(
                [
                    whole[:at],
                    whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :],
                    whole + data.draw(st.binary(min_size=1, max_size=9)),
                ]
            )
            | st.binary(max_size=300)
        )
        path.write_bytes(damaged)
    assert not all(job.run(rows))
    assert all(job.run(rows))


@pytest.mark.parametrize(
    "forged",
    [
        {"score": math.nan},
        {"score": math.inf},
        {"score": -0.1},
        {"score": 1.1},
        {"mismatched": b"\xfe" * BYTES_A_ROW},
        {"truncated": 7},
    ],
    ids=str,
)
def test_a_pack_that_is_whole_but_holds_what_is_no_score_is_scored_again(job: Job, forged: dict[str, Any]) -> None:
    rows = drawn(100)
    job.run(rows, reads=False)
    for path in packs(job):
        pack = decode(path.read_bytes())
        path.write_bytes(encode(Pack({key: score._replace(**forged) for key, score in pack.scores.items()})))
    assert not any(job.run(rows))
    assert all(job.run(rows))


def test_a_row_that_never_had_a_mismatched_pair_is_scored_once_more_where_there_is_a_partner(job: Job) -> None:
    """Only what is encoded can be paired, and what never is would have no pair for ever."""
    alone, other, same_text = (b"an image", "a text"), (b"another image", "another text"), (b"third image", "a text")
    job.pairs = False
    assert job.run([alone]) == [False]
    assert job.run([alone, same_text]) == [True, False]
    assert job.run([alone, same_text, other]) == [False, False, False]
    job.pairs = True
    assert job.run([alone, same_text, other]) == [False, False, False]
    assert job.run([alone, same_text, other]) == [True, True, True]


def test_what_a_run_has_put_into_the_store_itself_it_does_not_take(job: Job) -> None:
    """Neither in another try or shard, nor further on: which rows are encoded together does not hang on the time."""
    rows = [*drawn(4096), *drawn(50)]
    assert not any(job.run(rows, run=1))
    assert not any(job.run(rows, run=1))
    assert all(job.run(rows, run=2))


def test_two_jobs_that_write_the_same_pack_at_once_lose_nothing_of_either(job: Job) -> None:
    """Both look first and write then, at the same moment."""
    rows = drawn(200)
    first = min(rows, key=key_of)  # names the pack of both
    one, other = [*rows[:120], first], [first, *rows[120:]]
    gate = threading.Barrier(2)

    class Together(Storage):
        met = False

        def write(self, data: bytes, uri: str, only_if: Unchanged | None = None) -> ObjectInfo:
            if not self.met and "/packs/" in uri:
                self.met = True
                gate.wait(20)
            return super().write(data, uri, only_if)

    Job(job.uri, Storage()).run([])
    threads = [threading.Thread(target=Job(job.uri, Together()).run, args=(part,)) for part in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(job.run(one))
    assert all(job.run(other))


def test_two_data_sets_that_take_turns_write_nothing_in_the_end(job: Job) -> None:
    rows = drawn(3000)
    half = [row for at, row in enumerate(rows) if at % 3]
    for _ in range(3):
        job.run(rows)
        job.run(half)
    before = {path: path.stat().st_ino for path in packs(job)}
    assert all(job.run(rows))
    assert all(job.run(half))
    assert {path: path.stat().st_ino for path in packs(job)} == before


def test_prune_removes_the_oldest_and_spares_what_is_in_use(job: Job) -> None:
    rows, others = drawn(2000), drawn(2000, 5000)
    job.run(others)
    job.run(rows)
    stray = Path(job.uri) / "packs" / "of somebody.txt"
    stray.write_text("mine")
    month_ago = (datetime.now(UTC) - timedelta(days=30)).timestamp()
    for path in packs(job):
        os.utime(path, (month_ago, month_ago))
    assert all(job.run(rows))  # and so they are young again
    pruned = prune(job.storage, job.uri, older_than_days=20)
    assert pruned.removed_packs > 3
    assert (pruned.kept_packs, pruned.kept_bytes) == (len(packs(job)), sum(path.stat().st_size for path in packs(job)))
    assert all(job.run(rows))
    assert not any(job.run(others, reads=True)[256:])
    limit = pruned.kept_bytes // 2
    assert prune(job.storage, job.uri, max_bytes=limit).kept_bytes <= limit
    assert stray.read_text() == "mine"


def test_prune_says_what_it_needs(job: Job) -> None:
    with pytest.raises(RequestError, match="say what to remove"):
        prune(job.storage, job.uri)
    with pytest.raises(RequestError, match="at least 8"):
        prune(job.storage, job.uri, older_than_days=7)


def test_a_store_that_cannot_be_used_is_the_jobs_error_at_once(s3: S3, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"score store s3://no-such-bucket/x cannot be used: .*does not exist"):
        Job("s3://no-such-bucket/x", s3.storage).run([])
    (tmp_path / "score-store").write_text("version 9")
    with pytest.raises(JobError, match="give reuse another folder"):
        Job(str(tmp_path), Storage()).run([])


def _is_pack(request: Request) -> bool:
    return "/packs/" in request.key


def _through(url: str, s3: S3) -> Storage:

    session = s3.storage.s3_access.session
    return Storage(S3Access(session, url, timeout_seconds=20))


def test_a_store_that_fails_later_costs_the_reuse_alone_and_a_warning(s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    rows = drawn(2000)
    uri = f"s3://{s3.bucket}/cache"
    Job(uri, s3.storage).run(rows)
    skewed = Fault(Kind.CLOCK_SKEWED, when=_is_pack, skip=3)
    with faulty_store(s3.store.endpoint_url, [skewed]) as proxy, caplog.at_level(logging.WARNING):
        hits = Job(uri, _through(proxy.url, s3)).run(rows)
    assert True in hits
    assert False in hits
    assert caplog.text.count(f"The score store {uri} is not used any more by this run") == 1
    assert all(Job(uri, s3.storage).run(rows))


def test_a_store_that_may_only_be_read_is_read(s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    rows = drawn(500)
    uri = f"s3://{s3.bucket}/cache"
    Job(uri, s3.storage).run(rows)
    denied = Fault(Kind.ACCESS_DENIED, when=lambda request: request.method == "PUT")
    with faulty_store(s3.store.endpoint_url, [denied]) as proxy, caplog.at_level(logging.WARNING):
        hits = Job(uri, _through(proxy.url, s3)).run([*rows, *drawn(300, 9000)])
    assert hits == [True] * 500 + [False] * 300
    assert caplog.text.count(f"No scores are added to the score store {uri}") == 1


def test_ten_thousand_unchanged_rows_cost_some_fifty_requests(s3: S3, tmp_path: Path) -> None:
    """One or two to list the images, one for every pack; none is written."""
    root = s3.put_folder(_many_files(tmp_path / "images", 1000), "images")
    rows: list[Row] = [(f"{at % 1000:05}.jpg", f"text {at}") for at in range(10_000)]
    uri = f"s3://{s3.bucket}/cache"
    Job(uri, s3.storage, root).run(rows, fetch=True)
    with faulty_store(s3.store.endpoint_url) as proxy:
        assert all(Job(uri, _through(proxy.url, s3), root).run(rows))
    assert len(proxy.requests) < 60
    assert {request.method for request in proxy.requests} == {"GET"}


def _many_files(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:05}.jpg").write_bytes(b"image %d" % number)
    return folder


def test_a_store_that_breaks_while_images_are_looked_up_is_the_jobs_error(s3: S3) -> None:
    image = s3.put("data/x.jpg", b"x")
    skewed = Fault(Kind.CLOCK_SKEWED, when=lambda request: "list-type" in request.query or request.key == "data/x.jpg")
    with faulty_store(s3.store.endpoint_url, [skewed]) as proxy, pytest.raises(StorageError, match="clock"):
        Job(f"s3://{s3.bucket}/cache", _through(proxy.url, s3), f"s3://{s3.bucket}/data").run([(image, "text")])
