"""The workers of a job: how many there are, what each does, and what becomes of images whose worker dies."""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from clip_operator.errors import Cancelled, JobError, Reason, RowError
from clip_operator.images.loader import ImageLoader
from clip_operator.images.location import ImageLocation
from clip_operator.images.workers.memory import SharedMemory
from clip_operator.images.workers.pixel_budget import PixelBudget
from clip_operator.images.workers.process import WorkerProcess, described
from clip_operator.images.workers.task import ImageTask
from clip_operator.images.workers.wire import Begin, Credentials, Kind, Order, Pixels, Room, ToWorker
from clip_operator.machine.processors import usable_cpus
from clip_operator.resizing import Resizing
from clip_operator.storage import (
    AccessDenied,
    BucketNotFound,
    CredentialsError,
    ObjectChanged,
    ObjectInfo,
    S3Settings,
    Storage,
    StorageError,
    keys_of,
)

if TYPE_CHECKING:
    from PIL import Image

_JOB_ERRORS: dict[str, type[JobError]] = {
    error.__name__: error for error in (AccessDenied, BucketNotFound, CredentialsError, ObjectChanged, StorageError)
}

log = logging.getLogger(__name__)

# What a worker may have before it: what it fetches at once, and as much that is fetched and waits to be decoded.
_TASKS_A_WORKER = 32
_TASKS_TOGETHER = 8

# One more worker for so many rows: it costs the processor what decoding some 70 small images costs.
_ROWS_A_WORKER = 128

# The pixels of images larger than a worker takes without asking that are decoded at one time, in all workers.
_PIXELS_AT_ONCE = 200_000_000

# An image that a worker died with is tried again; from the second death on with nothing beside it in its worker.
_DEATHS_BEFORE_ALONE = 2
_MOST_DEATHS = 3
_DEATHS_BEFORE_FIRST_ANSWER = 3

_SECONDS_BETWEEN_LOOKS = 1.0

# A decoder that waits for what never comes takes no processor time; so does one on a machine that is overloaded.
_TIMES_THE_SECONDS = 20


class ImageWorkers:
    """Worker processes that fetch, decode and resize the images that rows refer to. Close it after use.

    One thread of this process speaks with all of them. It gives images out, starts a new worker in the place of one
    that dies, and lets what that had before it be done again, so that in whatever way a worker dies, every image ends
    as if it had not; but an image that was being decoded when its worker used up its processor time, or that three
    workers died with, the last of them with nothing else to do, has no pixels.

    :param images: says where images are and what may be read.
    :param files: how workers reach stores: as this does.
    :param seconds: the processor time that decoding one image may take.
    :param most: the most workers; by default one for each processor.
    :param upright: turn images as their EXIF says.
    """

    def __init__(
        self,
        images: ImageLoader,
        files: Storage,
        seconds: int,
        stop: threading.Event | None = None,
        most: int | None = None,
        *,
        upright: bool = False,
    ) -> None:
        self._images = images
        self._s3 = files.s3_access
        self._seconds = seconds
        self._stop = stop or threading.Event()
        self._begin = Begin(images.policy, S3Settings.of(self._s3), files.cloud_access, seconds, upright)
        self._pixels: Pixels | None = None
        self._most = usable_cpus() if most is None else most
        self._wanted_workers = 1
        self._memory = SharedMemory(self._most)
        self._budget = PixelBudget(_PIXELS_AT_ONCE)
        self._numbers = count(1)
        self._workers: dict[int, WorkerProcess] = {}
        self._waiting: deque[ImageTask] = deque()
        self._suspects: deque[ImageTask] = deque()
        self._decoding_since: dict[int, tuple[int, float]] = {}
        self._spent, self._share = (0, 0), 0.0  # by the workers' own word, when that was last asked for
        self._deaths = 0  # in a row, of workers that had answered nothing
        self._ended: BaseException | None = None
        self._commands: deque[Callable[[], None]] = deque()
        self._commanding = threading.Lock()
        self._thread_is_over = False
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="clip-credentials")
        self._thread = threading.Thread(target=self._run, name="clip-images", daemon=True)
        self._thread.start()

    def __enter__(self) -> ImageWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, whatever they do, and forget what they have not done."""
        self._command(lambda: self._end(Cancelled("stopped before its image was there")))
        self._thread.join()
        self._asking.shutdown(wait=False, cancel_futures=True)

    def expect(self, rows: int) -> None:
        """Say how many rows are going to need images, so that there are as many workers as that is worth."""
        self._wanted_workers = max(1, min(self._most, -(-rows // _ROWS_A_WORKER)))
        self._command(lambda: None)

    @property
    def decoding(self) -> float:
        """The share of the time that workers spent on images since this was last asked, in which they decoded them.

        In the rest they waited for files.
        """
        status = [self._memory.status(index) for index in range(self._most)]
        spent = sum(each.decoding_ns for each in status), sum(each.fetching_ns for each in status)
        decoding, fetching = (now - before for now, before in zip(spent, self._spent, strict=True))
        if decoding + fetching > 0:
            self._spent, self._share = spent, decoding / (decoding + fetching)
        return self._share

    def locate(self, reference: object) -> ImageLocation:
        """Return where the image of a row's reference is, as :meth:`ImageLoader.locate` does."""
        return self._images.locate(reference)

    def thumbnail(self, location: ImageLocation) -> bytes:
        """Return a small JPEG of an image: see :func:`clip_operator.images.thumbnail`.

        :raises RowError: there is none that can be decoded.
        :raises StorageError: the storage fails.
        """
        result = self._done(ImageTask(location, Kind.THUMBNAIL)).result
        assert isinstance(result, bytes)
        return result

    @contextmanager
    def preparing(
        self, resizing: Resizing | None, slots: int, *, reduced: bool = False, versions: bool = False
    ) -> Iterator[Callable[[Sequence[ImageTask]], None]]:
        """Give a function that takes images whose pixels are wanted; their ``notify`` is called as they are done.

        When the context ends, what was not done is dropped.

        :param resizing: what is to be done to each; None for whole images.
        :param slots: how many results can be held at once, each in a slot of its own, below this number.
        :param reduced: let JPEGs be decoded at a reduced size where the resizing allows it.
        :param versions: note which version of its file each was.
        """
        slot_bytes = 0 if resizing is None or resizing.pixels is None else 3 * resizing.pixels
        try:
            self._memory.make_room(slots * slot_bytes)
        except OSError as error:  # such as a limit to the size of files, which counts for it, too
            log.info("Pixels of images go through sockets, which takes longer: no memory to share (%s)", error.strerror)
            slot_bytes = 0
        at_least = resizing.side if reduced and resizing is not None else None
        memory = self._memory
        self._pixels = Pixels(resizing, at_least, slot_bytes, memory.first_slot, len(memory.view), versions)
        try:
            yield self._submit
        finally:
            self._command(self._drop)

    def slot(self, task: ImageTask) -> memoryview:
        """Return the pixels of an image that is done and has its ``size``: uint8, 3 bytes a pixel, row by row."""
        assert self._pixels is not None
        assert task.size is not None
        start = self._memory.first_slot + task.slot * self._pixels.slot_bytes
        return self._memory.view[start : start + 3 * task.size[0] * task.size[1]]

    def _done(self, task: ImageTask) -> ImageTask:
        future: Future[ImageTask] = Future()
        task.notify = future.set_result
        self._submit([task])
        future.result()
        if task.error is not None:
            raise task.error
        return task

    def _submit(self, tasks: Sequence[ImageTask]) -> None:
        self._command(lambda: self._accept(tasks))

    def _accept(self, tasks: Sequence[ImageTask]) -> None:
        if self._ended is None:
            self._waiting.extend(tasks)
        else:
            for task in tasks:
                self._finish(task, self._ended)

    def _command(self, command: Callable[[], None]) -> None:
        """Let the thread of the workers do something; when it has ended, do it here."""
        with self._commanding:
            if self._thread_is_over:
                command()
                return
            self._commands.append(command)
            with suppress(BlockingIOError):  # it is going to wake up
                self._waker.send(b"\0")  # inside, for what wakes it is closed when it is over

    def _run(self) -> None:
        looked = monotonic()
        try:
            while self._ended is None:
                self._start_workers()
                self._assign()
                for key, events in self._selector.select(_SECONDS_BETWEEN_LOOKS):
                    if key.data is None:
                        self._obey()
                    else:
                        self._attend(key.data, events)
                if monotonic() - looked >= _SECONDS_BETWEEN_LOOKS:
                    looked = monotonic()
                    self._look()
        except BaseException as error:  # whatever it is, nobody must wait for ever
            self._end(error)
        with self._commanding:
            self._thread_is_over = True
            while self._commands:
                self._commands.popleft()()
        self._selector.close()
        self._woken.close()
        self._waker.close()
        self._memory.close()

    def _obey(self) -> None:
        with suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        while self._commands:
            self._commands.popleft()()

    def _end(self, error: BaseException) -> None:
        """End all workers, and say of every image that is not done that there was this error."""
        self._ended = self._ended or error
        for worker in self._workers.values():
            worker.kill()
        for task in [*self._waiting, *self._suspects, *(t for w in self._workers.values() for t in w.tasks.values())]:
            self._finish(task, self._ended)
        self._workers.clear()
        self._waiting.clear()
        self._suspects.clear()

    def _drop(self) -> None:
        """Forget the images whose pixels were wanted; end workers that are at one, for their slots are used again."""
        self._waiting = deque(task for task in self._waiting if task.kind is not Kind.PIXELS)
        self._suspects = deque(task for task in self._suspects if task.kind is not Kind.PIXELS)
        for worker in list(self._workers.values()):
            if any(task.kind is Kind.PIXELS for task in worker.tasks.values()):
                worker.tasks = {n: task for n, task in worker.tasks.items() if task.kind is not Kind.PIXELS}
                worker.kill()
                self._forget(worker)
                self._waiting.extendleft(worker.tasks.values())

    def _start_workers(self) -> None:
        index = 0
        while len(self._workers) < self._wanted_workers:
            while index in self._workers:
                index += 1
            try:
                worker = self._workers[index] = WorkerProcess(self._memory.descriptor, index)
            except OSError as error:  # no room for another process, or none for its memory
                if not self._workers:
                    raise JobError(f"no process can be started to decode images: {error.strerror}") from None
                log.warning("Only %d processes decode images: %s", len(self._workers), error.strerror)
                self._wanted_workers = len(self._workers)
                return
            self._selector.register(worker.socket, selectors.EVENT_READ, worker)
            self._tell(worker, self._begin)

    def _tell(self, worker: WorkerProcess, message: ToWorker) -> None:
        worker.tell(message)
        self._wait_to_send(worker)

    def _wait_to_send(self, worker: WorkerProcess) -> None:
        writing = selectors.EVENT_WRITE if worker.has_unsent else 0
        self._selector.modify(worker.socket, selectors.EVENT_READ | writing, worker)

    def _assign(self) -> None:
        while self._suspects:
            busy = [worker for worker in self._workers.values() if worker.alone_for is None]
            if not busy:
                break
            min(busy, key=lambda worker: len(worker.tasks)).alone_for = self._suspects.popleft()
        for worker in self._workers.values():
            if worker.alone_for is not None and not worker.tasks:
                self._give(worker, [worker.alone_for])
        while self._waiting:
            free = [
                worker
                for worker in self._workers.values()
                if worker.alone_for is None and len(worker.tasks) < _TASKS_A_WORKER
            ]
            if not free:
                return
            worker = min(free, key=lambda worker: len(worker.tasks))
            share = -(-len(self._waiting) // len(free))
            most = min(_TASKS_TOGETHER, _TASKS_A_WORKER - len(worker.tasks), share)
            self._give(worker, [self._waiting.popleft() for _ in range(most)])

    def _give(self, worker: WorkerProcess, tasks: list[ImageTask]) -> None:
        if worker.pixels is not self._pixels and self._pixels is not None:
            worker.pixels = self._pixels
            worker.tell(self._pixels)
        orders = [Order(next(self._numbers), task.kind, task.location, task.slot) for task in tasks]
        worker.tasks.update((order.number, task) for order, task in zip(orders, tasks, strict=True))
        self._tell(worker, orders)

    def _attend(self, worker: WorkerProcess, events: int) -> None:
        if self._workers.get(worker.index) is not worker:
            return  # it was ended since
        if events & selectors.EVENT_WRITE:
            worker.send()
            self._wait_to_send(worker)
        if not events & selectors.EVENT_READ:
            return
        try:
            answers = worker.listen()
            if answers is None:
                self._died(worker, worker.end())
                return
            for message, blob in answers:
                self._answered(worker, message, blob)
        except (
            ValueError,
            KeyError,
            TypeError,
            IndexError,
        ):  # a decoder that was taken over
            self._died(worker, worker.kill())

    def _answered(self, worker: WorkerProcess, message: dict[str, Any], blob: memoryview) -> None:
        worker.has_answered, self._deaths = True, 0
        for number, version, *outcome in message.get("done", ()):
            task = worker.tasks.pop(number)
            if version is not None:
                task.version = ObjectInfo(*version)
            blob = blob[self._take(task, outcome, blob) :]
            if worker.alone_for is task:
                worker.alone_for = None
            self._finish(task, task.error)
        if "room" in message:
            self._budget.ask(worker.index, int(message["room"]))
            self._grant()
        if "left" in message:
            self._budget.release(worker.index)
            self._grant()
        if "credentials" in message:
            self._asking.submit(self._find_credentials, worker)
        if "log" in message:
            level, name, text = message["log"]
            logging.getLogger(f"{__name__}.{name}").log(int(level), "%s", text)

    def _take(self, task: ImageTask, outcome: list[Any], blob: memoryview) -> int:
        """Put to a task what came of it; return how many bytes of the blob are its."""
        match outcome:
            case ["pixels", int(width), int(height), bool(unturned)]:
                task.size, task.unturned = (width, height), unturned
            case ["image", int(width), int(height), bool(unturned), transparency]:
                task.unturned = unturned
                length = 3 * width * height
                task.result = _whole_image((width, height), blob[:length], transparency)
                return length
            case ["thumbnail", int(length)]:
                task.result = bytes(blob[:length])
                return length
            case ["row", reason, detail]:
                task.error = RowError(Reason(reason), str(detail))
            case ["job", name, text]:
                task.error = _JOB_ERRORS.get(name, JobError)(str(text))
            case ["bug", text]:
                task.error = RuntimeError(f"an image worker failed:\n{text}")
            case _:
                raise ValueError(outcome)
        return 0

    def _finish(self, task: ImageTask, error: BaseException | None) -> None:
        task.error, task.done = error, True
        task.notify(task)

    def _grant(self) -> None:
        for index in self._budget.grant():
            self._tell(self._workers[index], Room())

    def _find_credentials(self, worker: WorkerProcess) -> None:
        try:
            found = Credentials(keys_of(self._s3))
        except JobError as error:
            found = Credentials(None, str(error))

        def tell() -> None:
            if self._workers.get(worker.index) is worker:
                self._tell(worker, found)

        self._command(tell)

    def _look(self) -> None:
        """End what is to be stopped, and workers that decode one image for too long without using the processor."""
        if self._stop.is_set():
            self._end(Cancelled("stopped before all rows were scored; nothing was written"))
        now = monotonic()
        for worker in list(self._workers.values()):
            number = self._memory.status(worker.index).number
            since = self._decoding_since.get(worker.index)
            if since is None or since[0] != number:
                self._decoding_since[worker.index] = number, now
            elif number and now - since[1] > _TIMES_THE_SECONDS * self._seconds:
                worker.kill()
                self._died(worker, -signal.SIGXCPU)

    def _forget(self, worker: WorkerProcess) -> None:
        self._selector.unregister(worker.socket)
        del self._workers[worker.index]
        self._memory.status(worker.index).number = 0
        self._budget.release(worker.index)
        if worker.alone_for is not None and worker.alone_for not in worker.tasks.values():
            self._suspects.appendleft(worker.alone_for)
        self._grant()

    def _died(self, worker: WorkerProcess, status: int) -> None:
        """Let another worker do again what one that has ended had before it, unless an image was the cause."""
        decoded = worker.tasks.get(self._memory.status(worker.index).number)
        self._forget(worker)
        self._deaths += not worker.has_answered and decoded is None
        if self._deaths >= _DEATHS_BEFORE_FIRST_ANSWER:
            self._waiting.extend(worker.tasks.values())
            self._end(JobError(f"the processes that decode images end before they begin: {described(status)}"))
            return
        if decoded is not None and status == -signal.SIGXCPU:
            why = f"decoding it took more than {self._seconds} s of processor time"
            self._finish(decoded, RowError(Reason.IMAGE_UNREADABLE, why))
        for task in reversed(worker.tasks.values()):
            if task.done:
                continue
            task.deaths += decoded in (task, None)
            if task is worker.alone_for and task.deaths >= _MOST_DEATHS:
                self._finish(task, _blamed(task, decoded is task, described(status)))
            elif task.deaths >= _DEATHS_BEFORE_ALONE:
                self._suspects.appendleft(task)
            else:
                self._waiting.appendleft(task)


def _blamed(task: ImageTask, decoding: bool, how: str) -> RowError:
    if decoding:
        why = f"decoding it crashed the decoder ({how}), at each of {task.deaths} tries"
        return RowError(Reason.IMAGE_UNREADABLE, why)
    why = f"fetching it ended the process that did ({how}), at each of {task.deaths} tries"
    return RowError(Reason.IMAGE_UNAVAILABLE, why)


def _whole_image(size: tuple[int, int], data: memoryview, transparency: list[int] | None) -> Image.Image:
    from PIL import Image

    image = Image.frombytes("RGB", size, data)
    if transparency is not None:
        image.info["transparency"] = tuple(transparency)
    return image
