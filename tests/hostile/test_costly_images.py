"""Data sets whose images take seconds, gigabytes or the decoder's life: each costs its own row, and a bounded time."""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from clip_operator.errors import Cancelled
from tests import command_line
from tests.conftest import SHAPES
from tests.hostile.costly import LARGE, SLOW
from tests.hostile.costly.bmp import bmp_of_short_rows
from tests.hostile.costly.jpeg2000 import jpeg_2000_of_many_packets
from tests.hostile.jobs import run, score_rows, time_limit
from tests.hostile.worker_processes import watched, workers_of
from tests.images.pictures import drawn, encoded, png

NEIGHBOURS = 4
QUICK = ("rows.bmp", "packets.jp2")
TOO_SLOW = "decoding it took more than 1 s of processor time"

KILLS = 30
KILLED_ROWS = 1_000
SECONDS_BEFORE_KILL = (0.25, 0.6)

# The limit of one second is counted in whole ones from the next on; fetching, and starting a worker, take some, too.
MOST_SECONDS_AN_IMAGE = 4


def neighbours(folder: Path) -> list[dict[str, Any]]:
    """Return rows whose images anybody can decode, after putting those there."""
    rows = []
    for number in range(NEIGHBOURS):
        (folder / f"neighbour-{number}.png").write_bytes(png(color=(30 * number, 200 - 20 * number, 90)))
        rows.append({"image_path": f"neighbour-{number}.png", "text": f"{number} circles"})
    return rows


def between(good: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """Return the rows of these images, with one of the good rows before each, in turn, and all of them at the end."""
    mixed = []
    for number, name in enumerate(names):
        mixed += [good[number % len(good)], {"image_path": name, "text": "a red circle"}]
    return mixed + good


def scores(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the scores of the good rows, by text."""
    return {row["text"]: row["clip_score"] for row in rows if row["image_path"].startswith("neighbour")}


def clean(folder: Path, good: list[dict[str, Any]]) -> Any:
    """Return the scores that good rows have among themselves, to compare with."""
    return pytest.approx(scores(score_rows(folder, good, "clean")), abs=1e-6)


def seconds_of_workers() -> float:
    """Return the seconds of a processor that ended child processes of this one have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("name", QUICK)
def test_an_image_that_takes_long_costs_its_own_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    good = neighbours(tmp_path)
    expected = clean(tmp_path, good)
    (tmp_path / name).write_bytes(SLOW[name]())
    before = seconds_of_workers()
    with caplog.at_level(logging.WARNING):
        rows = score_rows(tmp_path, between(good, [name]), "hostile", max_image_seconds=1)
    assert seconds_of_workers() - before < MOST_SECONDS_AN_IMAGE
    assert rows[1]["why"] == "image_unreadable"
    assert f"Row 2 has no score: image_unreadable: {TOO_SLOW}" in caplog.text
    assert scores(rows) == expected


@pytest.mark.parametrize("name", LARGE)
def test_an_image_that_takes_much_memory_costs_its_own_row(tmp_path: Path, name: str) -> None:
    good = neighbours(tmp_path)
    expected = clean(tmp_path, good)
    (tmp_path / name).write_bytes(LARGE[name]())
    most = 0

    def look(workers: dict[int, float]) -> bool:
        nonlocal most
        most = max([most, *map(most_bytes, workers)])
        return False

    with watched(look):
        rows = score_rows(tmp_path, between(good, [name]), "hostile")
    assert rows[1]["why"] in {"image_too_large", "image_unreadable"}
    assert 0 < most < 1 << 30
    assert scores(rows) == expected


def most_bytes(process: int) -> int:
    """Return the most memory that a process has had at once; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


@pytest.mark.slow
def test_all_of_them_together_end_the_same_every_time(tmp_path: Path) -> None:
    good = neighbours(tmp_path)
    expected = clean(tmp_path, good)
    files = {**SLOW, **LARGE}
    for name, build in files.items():
        (tmp_path / name).write_bytes(build())
    ends = []
    for turn in range(3):
        before = seconds_of_workers()
        # So many good ones that there are two workers.
        mixed = between(good, list(files)) + good * 32
        rows = score_rows(tmp_path, mixed, f"turn-{turn}", seconds=300, max_image_seconds=1)
        assert seconds_of_workers() - before < MOST_SECONDS_AN_IMAGE * len(files)
        why = {row["image_path"]: row["why"] for row in rows if row["image_path"] in files}
        assert {name: why[name] for name in SLOW} == dict.fromkeys(SLOW, "image_unreadable")
        assert {why[name] for name in LARGE} <= {"image_too_large", "image_unreadable"}
        assert scores(rows) == expected
        ends.append((tmp_path / f"turn-{turn}_step1.jsonl").read_bytes())
    assert ends[1:] == ends[:1] * 2


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT])
def test_an_image_that_crashes_its_decoder_costs_its_own_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: signal.Signals
) -> None:
    """No file is known that crashes these decoders; the signal that a crash would end in comes from outside."""
    good = neighbours(tmp_path)
    expected = clean(tmp_path, good)
    (tmp_path / "crash.bmp").write_bytes(bmp_of_short_rows(9_900))
    ended = set()

    def end_what_decodes(workers: dict[int, float]) -> bool:
        for worker, seconds in workers.items():
            if seconds > 1 and worker not in ended:  # the other images take a hundredth of that
                ended.add(worker)
                os.kill(worker, how)
        return False

    with watched(end_what_decodes), caplog.at_level(logging.WARNING):
        rows = score_rows(tmp_path, between(good, ["crash.bmp"]), "hostile", max_image_seconds=600)
    assert len(ended) == 3
    assert rows[1]["why"] == "image_unreadable"
    words = f"decoding it crashed the decoder ({how.name}), at each of 3 tries"
    assert f"Row 2 has no score: image_unreadable: {words}" in caplog.text
    assert scores(rows) == expected


@pytest.mark.slow
def test_kills_of_workers_at_any_moment_change_nothing(tmp_path: Path) -> None:
    photos = [encoded(drawn(size=(1_600, 1_200 + number)), "JPEG") for number in range(8)]
    rows = []
    for number in range(KILLED_ROWS):
        (tmp_path / f"{number}.jpg").write_bytes(photos[number % len(photos)])
        rows.append({"image_path": f"{number}.jpg", "text": f"{number % 50} circles"})
    undisturbed = score_rows(tmp_path, rows, "undisturbed", seconds=300)
    assert {row["why"] for row in undisturbed} == {None}
    draw = random.Random(7)
    ended: set[int] = set()
    moment = draw.uniform(*SECONDS_BEFORE_KILL)

    def kill(workers: dict[int, float]) -> bool:
        nonlocal moment
        for worker, seconds in workers.items():
            if worker not in ended and seconds >= moment and len(ended) < KILLS:
                ended.add(worker)
                os.kill(worker, signal.SIGKILL)
                moment = draw.uniform(*SECONDS_BEFORE_KILL)
        return len(ended) == KILLS

    with watched(kill):
        score_rows(tmp_path, rows, "killed", seconds=300)
    assert len(ended) == KILLS
    ends = [(tmp_path / f"{name}_step1.jsonl").read_bytes() for name in ("undisturbed", "killed")]
    assert ends[0] == ends[1]


def once_it_decodes(do: Callable[[dict[int, float]], object]) -> Callable[[dict[int, float]], bool]:
    """Return a look at workers that does something, once, as soon as one of them has been busy for a second."""

    def look(workers: dict[int, float]) -> bool:
        if all(seconds < 1 for seconds in workers.values()):
            return False
        do(workers)
        return True

    return look


def worst_job(folder: Path) -> Path:
    """Write and return a table of good rows and one whose image takes minutes."""
    (folder / "minutes.jp2").write_bytes(jpeg_2000_of_many_packets(9_900, 52))
    rows = between(neighbours(folder), ["minutes.jp2"])
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def test_a_job_that_is_stopped_leaves_the_worst_image_at_once(tmp_path: Path) -> None:
    table = worst_job(tmp_path)
    stop = threading.Event()
    stopped_at = 0.0

    def end(_: object) -> None:
        nonlocal stopped_at
        stopped_at = time.monotonic()
        stop.set()

    with watched(once_it_decodes(end)), pytest.raises(Cancelled):
        run(table, tmp_path / "rows_step1.jsonl", stop, max_image_seconds=3600)
    assert time.monotonic() - stopped_at < 10
    assert workers_of(os.getpid()) == {}


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 1), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_job_that_is_ended_takes_its_workers_with_it(tmp_path: Path, how: signal.Signals, code: int) -> None:
    flags = ["--input", str(worst_job(tmp_path)), "--output", f"{tmp_path}/out.jsonl", "--model", SHAPES]
    with Path(os.devnull).open("r+") as nothing:
        file = nothing.fileno()
        limit = ("--max-image-seconds", "3600")
        job = command_line.start("evaluate", *flags, *limit, stdin=file, stdout=file, stderr=file)
    pid = job.pid
    assert pid is not None
    workers: dict[int, float] = {}

    def end(busy: dict[int, float]) -> None:
        workers.update(busy)
        os.kill(pid, how)

    with time_limit(), watched(once_it_decodes(end), pid):
        job.join()
    assert job.exitcode == code
    with time_limit(10):
        while any(map(is_running, workers)):
            os.sched_yield()
    assert workers


def is_running(process: int) -> bool:
    """Say whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
