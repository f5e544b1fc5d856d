"""A worker process: fetches images in threads, decodes and resizes one at a time, writes pixels to shared memory."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from clip_operator.errors import ClipOperatorError, JobError, Reason, RowError
from clip_operator.images.decoding import decode_in_one_thread
from clip_operator.images.loader import ImageLoader
from clip_operator.images.orientation import turning
from clip_operator.images.thumbnail import THUMBNAIL_PIXELS, thumbnail
from clip_operator.images.workers.limits import DecodingLimits
from clip_operator.images.workers.memory import WorkerStatus, mapped
from clip_operator.images.workers.wire import Begin, Credentials, Kind, Order, Pixels, Room, answer, receive
from clip_operator.storage import CredentialsError, ObjectInfo, Storage, scheme_of

if TYPE_CHECKING:
    from PIL import Image

# Requests to a store under way at once; a worker a processor has them.
_FETCHING_THREADS = 16

# No further image is fetched while files of this many bytes wait to be decoded.
_FETCHED_BYTES = 32 << 20

# Larger images wait until the pixels of all workers together leave room for theirs.
_PIXELS_WITHOUT_ASKING = 1 << 20

# Local files are read in the thread that decodes as long as one takes less than this, and else in those that fetch.
_NS_OF_A_NEAR_FILE = 1_000_000
_FILES_AVERAGED = 16

# What is done is said together: each time, the process of the model has to wake up.
_ANSWERS_TOGETHER = 8
_SECONDS_TO_GATHER_ANSWERS = 0.02

# Raised, so that where memory is short a worker goes, which is replaced, and not the process of the model.
_FIRST_TO_BE_KILLED = "1000"


_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


@dataclass(eq=False, slots=True)
class _Fetched:
    """An image on its way through this process.

    :param data: its file, or what went wrong.
    :param again: what was fetched first could not be decoded.
    """

    order: Order
    data: bytes | BaseException | None = None
    version: ObjectInfo | None = None
    again: bool = False


class Worker:
    """Does what it is told over a connection, until that ends.

    :param memory: the descriptor of the shared memory.
    :param index: the number of this worker's mark in it.
    """

    def __init__(self, connection: socket.socket, memory: int, index: int) -> None:
        self._connection = connection
        self._memory = memory
        self._status = WorkerStatus.of(memory, index)
        self._to_fetch: SimpleQueue[_Fetched] = SimpleQueue()
        self._to_decode: SimpleQueue[_Fetched] = SimpleQueue()
        self._room: SimpleQueue[Room] = SimpleQueue()
        self._credentials: SimpleQueue[Credentials] = SimpleQueue()
        self._limited = threading.Lock()
        self._asking = threading.Lock()
        self._sending = threading.Lock()
        self._fetching = 0  # that are being fetched, or wait for that
        self._waiting_bytes = 0  # fetched and not yet decoded
        self._fewer_wait = threading.Condition()
        self._ns_a_file = 0.0  # to read a local one
        self._done: list[list[Any]] = []
        self._blobs: list[bytes] = []
        self._number = 0  # of the image that is decoded

    def run(self) -> None:
        """Work until the process of the model ends the connection, and with it this process."""
        begin = receive(self._connection)
        if not isinstance(begin, Begin):
            return
        settings = begin.s3
        self._storage = Storage(lambda: settings.access(self._ask_for_keys), begin.cloud)
        self._images = ImageLoader(self._storage, begin.policy, self._held)
        self._limits = DecodingLimits(begin.seconds)
        self._upright = begin.upright
        logging.getLogger().addHandler(_Forwarding(self._send))
        logging.getLogger("clip_operator").setLevel(logging.INFO)
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._connect, args=(begin.policy.root,), daemon=True).start()
        for _ in range(_FETCHING_THREADS):
            threading.Thread(target=self._fetch_on_and_on, daemon=True).start()
        while True:
            self._finish(self._next())
            if len(self._done) >= _ANSWERS_TOGETHER or self._blobs:
                self._flush()

    def _connect(self, root: str) -> None:
        """Set up what reaches the images' store while the model is loaded, and not when the first image is wanted."""
        with suppress(JobError):  # the first image will say so
            self._storage.connect(root)

    def _next(self) -> _Fetched:
        """Wait for an image to decode; say what is done if none comes at once."""
        waits_for_files = self._fetching > 0
        began = time.perf_counter_ns()
        try:
            image = self._to_decode.get(timeout=_SECONDS_TO_GATHER_ANSWERS if waits_for_files and self._done else 0)
        except Empty:
            self._flush()
            image = self._to_decode.get()
        if waits_for_files:
            self._status.fetched(time.perf_counter_ns() - began)
        return image

    def _listen(self) -> None:
        try:
            self._obey()
        except BaseException:
            logging.getLogger(__name__).exception("an image worker fails")
            os._exit(1)
        os._exit(0)  # whatever the other threads do

    def _obey(self) -> None:
        while (message := receive(self._connection)) is not None:
            if isinstance(message, list):
                for order in message:
                    self._take(order)
            elif isinstance(message, Pixels):
                self._wanted = message
                self._view = mapped(self._memory, message.memory_bytes)
            elif isinstance(message, Room):
                self._room.put(message)
            elif isinstance(message, Credentials):
                self._credentials.put(message)

    def _take(self, order: Order) -> None:
        if order.location.data is not None:
            self._to_decode.put(_Fetched(order, order.location.data))
        elif self._ns_a_file < _NS_OF_A_NEAR_FILE and scheme_of(order.location.key) == "file":
            self._to_decode.put(_Fetched(order))
        else:
            self._fetch_later(_Fetched(order))

    def _fetch_later(self, image: _Fetched) -> None:
        with self._fewer_wait:
            self._fetching += 1
        self._to_fetch.put(image)

    def _fetch_on_and_on(self) -> None:
        while True:
            image = self._to_fetch.get()
            with self._fewer_wait:
                self._fewer_wait.wait_for(lambda: self._waiting_bytes < _FETCHED_BYTES)
            try:
                self._fetch(image)
            except BaseException as error:  # whatever it is, it must not leave the image waiting for ever
                image.data = error
            else:
                assert isinstance(image.data, bytes)
            with self._fewer_wait:
                self._fetching -= 1
                self._waiting_bytes += len(image.data) if isinstance(image.data, bytes) else 0
            self._to_decode.put(image)

    def _fetch(self, image: _Fetched) -> None:
        try:
            self._fetch_once(image)
        except MemoryError:  # the limits of the image that is being decoded hold for all of this process
            with self._limited:
                self._fetch_once(image)

    def _fetch_once(self, image: _Fetched) -> None:
        location = image.order.location
        if (
            image.order.kind is Kind.PIXELS
            and self._wanted.versions
            and self._images.readable_uri(location) is not None
        ):
            image.version, image.data = self._images.fetch_version(location)
        else:
            image.data = self._images.fetch(location)

    def _read_here(self, image: _Fetched) -> bytes:
        """Read a local file in the thread that decodes: from a disk that is near, handing it over would cost more."""
        began = time.perf_counter_ns()
        self._fetch(image)
        nanoseconds = time.perf_counter_ns() - began
        self._status.fetched(nanoseconds)
        self._ns_a_file += (nanoseconds - self._ns_a_file) / _FILES_AVERAGED
        data, image.data = image.data, None
        assert isinstance(data, bytes)
        return data

    def _finish(self, image: _Fetched) -> None:
        data, image.data = image.data, None
        try:
            if isinstance(data, BaseException):
                raise data
            outcome = self._outcome(image, self._read_here(image) if data is None else data)
        except RowError as error:
            if self._fetch_again(image, error):
                return
            outcome = ["row", error.reason.value, error.detail]
        except ClipOperatorError as error:
            outcome = ["job", type(error).__name__, str(error)]
        except BaseException as error:
            outcome = ["bug", "".join(traceback.format_exception(error))]
        finally:
            if isinstance(data, bytes) and not image.order.location.inline:
                with self._fewer_wait:
                    self._waiting_bytes -= len(data)
                    self._fewer_wait.notify()
        version = image.version
        told = None if version is None else [version.uri, version.size, version.etag]
        self._done.append([image.order.number, told, *outcome])

    def _outcome(self, image: _Fetched, data: bytes) -> list[Any]:
        order = image.order
        self._number = self._status.number = order.number
        began = time.perf_counter_ns()
        try:
            with self._limited, self._limits.held(len(data)):
                small = order.kind is Kind.THUMBNAIL
                at_least = THUMBNAIL_PIXELS if small else self._wanted.at_least
                to_one_size = small or (self._wanted.resizing is not None and self._wanted.resizing.pixels is not None)
                with self._images.decode(data, at_least, upright=self._upright, to_one_size=to_one_size) as decoded:
                    return self._thumbnail(decoded) if small else self._pixels(order, decoded)
        finally:
            self._status.number = 0
            self._status.decoded(time.perf_counter_ns() - began)

    def _thumbnail(self, image: Image.Image) -> list[Any]:
        self._blobs.append(thumbnail(image))
        return ["thumbnail", len(self._blobs[-1])]

    def _pixels(self, order: Order, image: Image.Image) -> list[Any]:
        unturned = turning(image) is not None
        if self._wanted.resizing is not None:
            image = self._wanted.resizing.apply(image)
        data = image.tobytes()
        if self._wanted.resizing is not None and len(data) <= self._wanted.slot_bytes:
            start = self._wanted.first_slot + order.slot * self._wanted.slot_bytes
            self._view[start : start + len(data)] = data
            return ["pixels", *image.size, unturned]
        self._blobs.append(data)
        # Of an image that is as it was: what is laid onto white has nothing transparent any more.
        transparency = image.info.get("transparency") if self._wanted.resizing is None else None
        return ["image", *image.size, unturned, transparency if isinstance(transparency, tuple) else None]

    def _fetch_again(self, image: _Fetched, error: RowError) -> bool:
        """Give an image that cannot be decoded a second chance, if it was fetched: it may have been cut on the way."""
        if error.reason is not Reason.IMAGE_UNREADABLE or image.order.location.inline or image.again:
            return False
        image.again = True
        self._fetch_later(image)
        return True

    @contextmanager
    def _held(self, pixels: int) -> Iterator[None]:
        """Wait until an image of so many pixels may be decoded; it is, inside."""
        large = pixels > _PIXELS_WITHOUT_ASKING
        if large:
            self._flush()
            self._send({"room": pixels, "for": self._number}, [])
            self._room.get()
        self._limits.allow_pixels(pixels)
        try:
            yield
        finally:
            if large:
                self._send({"left": self._number}, [])

    def _ask_for_keys(self) -> tuple[str, str, str | None] | None:
        with self._asking:
            self._send({"credentials": True}, [])
            told = self._credentials.get()
        if told.error is not None:
            raise CredentialsError(told.error)
        return told.keys

    def _flush(self) -> None:
        if self._done:
            self._send({"done": self._done}, self._blobs)
            self._done, self._blobs = [], []

    def _send(self, message: dict[str, Any], blobs: list[bytes]) -> None:
        data = answer(message, blobs)
        with self._sending:
            try:
                self._connection.sendall(data)
            except OSError:  # nobody is there any more
                os._exit(0)


class _Forwarding(logging.Handler):
    """Lets the process of the model log what this one has to say."""

    def __init__(self, send: Callable[[dict[str, Any], list[bytes]], None]) -> None:
        super().__init__(logging.INFO)
        self._tell = send

    def emit(self, record: logging.LogRecord) -> None:
        self._tell({"log": [record.levelno, record.name.rpartition(".")[2], record.getMessage()]}, [])


def _end_with_parent() -> None:
    """Have the kernel end this process when the one that started it does.

    A decoder that keeps Python's lock keeps the thread that listens from seeing that the connection has ended.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(connection: int, memory: int, index: int) -> None:
    """Be a worker.

    :param connection: the descriptor of its socket.
    :param memory: of the shared memory.
    :param index: the number of its mark.
    """
    for one in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to all; the process of the model decides
        signal.signal(one, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _end_with_parent()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_BE_KILLED)
    decode_in_one_thread()
    Worker(socket.socket(fileno=connection), memory, index).run()
