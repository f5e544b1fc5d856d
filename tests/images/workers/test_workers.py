"""The processes that fetch, decode and resize images: what they give, and what becomes of images whose worker dies."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from time import monotonic

import boto3
import pytest
from botocore.credentials import RefreshableCredentials
from PIL import Image

from clip_operator.errors import Cancelled, JobError, Reason, RowError
from clip_operator.images import ImageLoader, ImageLocation, ImagePolicy
from clip_operator.images.workers import pool, process
from clip_operator.images.workers.pool import ImageWorkers
from clip_operator.images.workers.task import ImageTask
from clip_operator.resizing import Resizing
from clip_operator.storage import AccessDenied, S3Access, Storage
from tests.conftest import S3
from tests.hostile.worker_processes import workers_of
from tests.images.pictures import drawn, encoded, png

RESIZING = Resizing(shortest_edge=32, size=None, resample=3, crop=(32, 32), onto_white=True)


def workers_for(root: str, files: Storage | None = None, **options: object) -> ImageWorkers:
    files = files or Storage()
    loader = ImageLoader(files, ImagePolicy(root=root))
    return ImageWorkers(loader, files, 30, **options)  # type: ignore[arg-type]


def prepared(
    workers: ImageWorkers, references: list[object], resizing: Resizing | None = RESIZING, **how: bool
) -> list[ImageTask]:
    """Let images be prepared, all at once; return them when they are done."""
    done: SimpleQueue[ImageTask] = SimpleQueue()
    tasks = [
        ImageTask(workers.locate(reference), slot=slot, notify=done.put) for slot, reference in enumerate(references)
    ]
    with workers.preparing(resizing, len(tasks), **how) as submit:
        submit(tasks)
        for _ in tasks:
            done.get(timeout=60)
        for task in tasks:
            if task.size is not None:
                task.result = bytes(workers.slot(task))
    return tasks


def as_here(data: bytes, resizing: Resizing = RESIZING) -> bytes:
    return resizing.apply(Image.open(io.BytesIO(data)).convert("RGB")).tobytes()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    found = {f"{n}.png": encoded(drawn(size=(40 + n, 64 - n)), "PNG") for n in range(20)}
    for name, data in found.items():
        (tmp_path / name).write_bytes(data)
    return found


def test_pixels_are_those_that_pillow_gives_here(tmp_path: Path, files: dict[str, bytes]) -> None:
    references: list[object] = [*files, encoded(drawn(size=(50, 50)), "JPEG"), "../secret.png", "nowhere.png", b"no"]
    with workers_for(str(tmp_path), most=2) as workers:
        workers.expect(1000)
        with pytest.raises(RowError):
            workers.locate("../secret.png")
        references.remove("../secret.png")
        tasks = prepared(workers, references)
    for task, data in zip(tasks, [*files.values(), references[20]], strict=False):
        assert isinstance(data, bytes)
        assert (task.size, task.result, task.error) == ((32, 32), as_here(data), None)
    reasons = [task.error.reason for task in tasks[21:] if isinstance(task.error, RowError)]
    assert reasons == [Reason.IMAGE_NOT_FOUND, Reason.IMAGE_UNREADABLE]


def test_without_a_resizing_the_whole_image_comes(tmp_path: Path) -> None:
    """With the colour of a PNG that is transparent: an image processor may lay the image onto white."""
    whole = drawn(size=(33, 21))
    data = encoded(whole, "PNG", transparency=(1, 2, 3))
    with workers_for(str(tmp_path)) as workers:
        [task] = prepared(workers, [data], None)
    assert isinstance(task.result, Image.Image)
    assert task.result.tobytes() == whole.tobytes()
    assert task.result.info["transparency"] == (1, 2, 3)


def test_what_has_no_room_in_its_slot_comes_all_the_same(tmp_path: Path) -> None:
    """Where images are not cropped, their sizes vary."""
    uncropped = Resizing(shortest_edge=16, size=None, resample=3, crop=None, onto_white=True)
    data = [png((40, 20)), png((20, 60))]
    with workers_for(str(tmp_path)) as workers:
        tasks = prepared(workers, list(data), uncropped)
    assert [task.result.tobytes() for task in tasks if isinstance(task.result, Image.Image)] == [
        as_here(each, uncropped) for each in data
    ]


def test_versions_are_those_that_were_read(tmp_path: Path, files: dict[str, bytes]) -> None:
    with workers_for(str(tmp_path)) as workers:
        tasks = prepared(workers, ["0.png", png((9, 9))], versions=True)
    assert [task.version for task in tasks] == [Storage().stat(str(tmp_path / "0.png")), None]


def test_a_thumbnail_is_a_small_jpeg(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(encoded(drawn(size=(640, 480)), "PNG"))
    with workers_for(str(tmp_path)) as workers:
        with Image.open(io.BytesIO(workers.thumbnail(workers.locate("large.png")))) as small:
            assert (small.format, small.size) == ("JPEG", (240, 180))
        with pytest.raises(RowError, match="no image at"):
            workers.thumbnail(workers.locate("nowhere.png"))


def test_large_images_wait_for_room_and_all_of_them_come(tmp_path: Path) -> None:
    """Each has more pixels than a worker decodes without asking, and together they have more than the budget."""
    (tmp_path / "large.png").write_bytes(encoded(Image.new("RGB", (8000, 8000)), "PNG"))
    with workers_for(str(tmp_path), most=2) as workers:
        workers.expect(1000)
        tasks = prepared(workers, ["large.png"] * 6)
    assert [task.size for task in tasks] == [(32, 32)] * 6


@contextmanager
def host(answer: Callable[[str, int], bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve what ``answer`` says of a path and of how often it was asked for; give the URL, and note what is asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = answer(self.path, asked.count(self.path))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def allowed(url: str, root: Path) -> ImageWorkers:
    loader = ImageLoader(Storage(), ImagePolicy(root=str(root), image_hosts=(url.partition("://")[2],)))
    return ImageWorkers(loader, Storage(), 30)


@pytest.mark.parametrize(("cut_times", "comes"), [(1, True), (2, False)])
def test_an_image_that_cannot_be_decoded_is_fetched_once_more_before_it_is_called_broken(
    tmp_path: Path, cut_times: int, comes: bool
) -> None:
    data = png((20, 20))
    with (
        host(lambda _, times: data[:40] if times <= cut_times else data) as (url, asked),
        allowed(url, tmp_path) as workers,
    ):
        [task] = prepared(workers, [f"{url}/a.png"])
    assert asked == ["/a.png"] * 2
    assert (task.size is not None) == comes
    assert comes or (isinstance(task.error, RowError) and task.error.reason is Reason.IMAGE_UNREADABLE)


def test_what_was_under_way_in_a_worker_that_is_killed_is_done_again(tmp_path: Path) -> None:
    data, release, killed = png((20, 20)), threading.Event(), threading.Event()

    def answer(_: str, times: int) -> bytes:
        if times == 1 and not killed.is_set():
            assert release.wait(60)
        return data

    with host(answer) as (url, asked), allowed(url, tmp_path) as workers:

        def kill() -> None:
            while len(asked) < 4:
                pass
            [worker] = workers_of(os.getpid())
            killed.set()
            os.kill(worker, signal.SIGKILL)
            release.set()

        killer = threading.Thread(target=kill)
        killer.start()
        tasks = prepared(workers, [f"{url}/{n}.png" for n in range(4)])
        killer.join()
    assert [task.result for task in tasks] == [as_here(data)] * 4


def test_an_image_that_each_worker_is_killed_with_is_tried_alone_and_given_up(tmp_path: Path) -> None:
    """As where its file alone is more than the memory there is. The others, which were beside it, come."""
    data, ended = png((20, 20)), threading.Event()

    def answer(path: str, _: int) -> bytes:
        if path == "/deadly.png":
            for worker in workers_of(os.getpid()):
                os.kill(worker, signal.SIGKILL)
            ended.wait(1)
        return data

    with host(answer) as (url, _), allowed(url, tmp_path) as workers:
        tasks = prepared(workers, [f"{url}/{name}.png" for name in ("a", "deadly", "b")])
    ended.set()
    assert [task.result for task in tasks] == [as_here(data), None, as_here(data)]
    assert isinstance(tasks[1].error, RowError)
    assert tasks[1].error.reason is Reason.IMAGE_UNAVAILABLE
    assert "fetching it ended the process that did (SIGKILL), at each of 3 tries" in tasks[1].error.detail


def test_where_no_worker_can_begin_the_job_ends_with_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PROGRAM", "raise SystemExit(7)")
    with workers_for(str(tmp_path)) as workers:
        [task] = prepared(workers, [png((9, 9))])
    assert isinstance(task.error, JobError)
    assert str(task.error) == "the processes that decode images end before they begin: exit status 7"


@pytest.mark.parametrize("there", [0, 1])
def test_where_no_more_processes_may_be_started_those_there_are_do_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int
) -> None:
    started: list[int] = []

    class Limited(process.WorkerProcess):
        def __init__(self, memory: int, index: int) -> None:
            if len(started) >= there:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            started.append(index)
            super().__init__(memory, index)

    monkeypatch.setattr(pool, "WorkerProcess", Limited)
    data = png((20, 20))
    with workers_for(str(tmp_path), most=3) as workers:
        workers.expect(1000)
        tasks = prepared(workers, [data] * 3)
    if there:
        assert [task.result for task in tasks] == [as_here(data)] * 3
    else:
        assert str(tasks[0].error).startswith("no process can be started to decode images: ")


def test_what_is_stopped_ends_at_once_whatever_hosts_do(tmp_path: Path) -> None:
    stop, release, done = threading.Event(), threading.Event(), SimpleQueue[ImageTask]()

    def answer(*_: object) -> bytes:
        stop.set()
        release.wait(60)
        return b""

    with host(answer) as (url, _):
        loader = ImageLoader(Storage(), ImagePolicy(root=str(tmp_path), image_hosts=(url.partition("://")[2],)))
        with (
            ImageWorkers(loader, Storage(), 30, stop) as workers,
            workers.preparing(RESIZING, 1) as submit,
        ):
            submit([ImageTask(workers.locate(f"{url}/a.png"), slot=0, notify=done.put)])
            task = done.get(timeout=60)
            assert isinstance(task.error, Cancelled)
            late = ImageTask(ImageLocation("late"), slot=0, notify=done.put)
            submit([late])
            assert done.get(timeout=60) is late
        assert not workers_of(os.getpid())
        release.set()


def test_a_slow_disk_is_read_ahead_of_the_decoder_and_gives_the_same(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        process,
        "_PROGRAM",
        process._PROGRAM.replace(
            "from clip_operator.images.workers.child import main;",
            "from clip_operator.images.workers import child; child._NS_OF_A_NEAR_FILE = 0; main = child.main;",
        ),
    )
    with workers_for(str(tmp_path)) as workers:
        assert [task.result for task in prepared(workers, list(files))] == [as_here(data) for data in files.values()]


def test_workers_read_with_the_sessions_keys_as_they_are_renewed(s3: S3) -> None:
    """They ask for them: a session that an Airflow connection made is not in the environment."""
    data = png((20, 20))
    s3.put("pictures/a.png", data)
    access, given = s3.storage.s3_access, []
    assert access.session is not None
    keys = access.session.get_credentials().get_frozen_credentials()

    def renewed() -> dict[str, str]:
        given.append(1)
        return {
            "access_key": keys.access_key,
            "secret_key": keys.secret_key,
            "token": "",
            "expiry_time": "2099-01-01T00:00:00Z",
        }

    session = boto3.session.Session(region_name="us-east-1")
    session._session._credentials = RefreshableCredentials.create_from_metadata(renewed(), renewed, "test")
    files = Storage(S3Access(session, access.endpoint_url))
    with workers_for(f"s3://{s3.bucket}/pictures", files) as workers:
        tasks = prepared(workers, ["a.png", "nowhere.png"])
    assert tasks[0].result == as_here(data)
    assert isinstance(tasks[1].error, RowError)
    assert tasks[1].error.reason is Reason.IMAGE_NOT_FOUND


def test_what_is_not_one_images_fault_is_the_jobs(s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    access = s3.storage.s3_access
    files = Storage(S3Access(boto3.session.Session("nobody", "nothing", region_name="us-east-1"), access.endpoint_url))
    with workers_for(f"s3://{s3.bucket}/pictures", files) as workers:
        [task] = prepared(workers, ["a.png"])
    assert isinstance(task.error, JobError)
    assert not isinstance(task.error, AccessDenied)
    assert "the S3 credentials were refused" in str(task.error)


class LateWaker:
    """The end of a socket pair that lets the thread which it wakes come to its end first, if that may."""

    def __init__(self, end: socket.socket, is_over: Callable[[], bool]) -> None:
        self._end = end
        self._is_over = is_over

    def send(self, data: bytes) -> int:
        self._end.send(data)
        deadline = monotonic() + 1  # which a thread that has to wait for the lock lets pass
        while not self._is_over() and monotonic() < deadline:
            threading.Event().wait(0.01)
        return self._end.send(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._end, name)


def test_the_thread_is_woken_however_soon_it_ends(tmp_path: Path) -> None:
    """What wakes it is closed by it at its end, and must not be written to then."""
    workers = workers_for(str(tmp_path))
    workers._waker = LateWaker(workers._waker, lambda: not workers._thread.is_alive())  # type: ignore[assignment]
    workers.close()
    assert not workers._thread.is_alive()
