"""The pixels at once: what waits for what, in which order, and that nothing is kept by those who leave."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest

from clip_operator.errors import Reason, RowError
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.storage import Storage
from tests.images.conftest import Refusal
from tests.images.pictures import (
    drawn,
    encoded,
    jpeg_with_a_scan_for_each_colour,
    jpeg_with_comments,
    png,
    png_that_claims,
)

LARGE = drawn(size=(640, 480))
REDUCED = 80 * 60  # what is decoded of LARGE for a model that wants 30 pixels


class Threads:
    """Threads that each decode an image and stay in the block until told to leave. ``next`` is what one did next."""

    def __init__(self) -> None:
        self._happened: SimpleQueue[str] = SimpleQueue()
        self._leave: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self.waited: Counter[str] = Counter()
        self.interrupted: set[str] = set()
        self.overtaken: dict[str, str] = {}

    def start(self, name: str, loader: ImageLoader, data: bytes, at_least: int | None = None) -> None:
        leave = self._leave[name]  # made here, so that end() finds it also if the thread has not come as far

        def decode() -> None:
            try:
                with loader.decode(data, at_least):
                    self._happened.put(f"{name} is in")
                    assert leave.wait(20)
                    self._happened.put(f"{name} leaves")
            except (RowError, KeyboardInterrupt) as error:
                self._happened.put(f"{name} raises {type(error).__name__}")

        threading.Thread(target=decode, name=name, daemon=True).start()

    def next(self) -> str:
        return self._happened.get(timeout=20)

    def leave(self, name: str) -> None:
        self._leave[name].set()
        assert self.next() == f"{name} leaves"

    def waits(self) -> None:
        name = threading.current_thread().name
        self.waited[name] += 1
        if self.waited[name] == 1:
            self._happened.put(f"{name} waits")
        elif name in self.interrupted:
            raise KeyboardInterrupt

    def end(self) -> None:
        for event in self._leave.values():
            event.set()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    running = Threads()

    class Watched(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            running.waits()
            woken = super().wait(timeout)
            other = running.overtaken.get(threading.current_thread().name)
            while other is not None and running.waited[other] < 2:
                super().wait(0.01)  # gives the lock away, until the other one has woken, too, and waits again
            return woken

    # That a thread waits can be seen from nowhere else, and a test that only sees nothing happen proves little.
    monkeypatch.setattr("clip_operator.images.pixel_budget.Condition", Watched)
    yield running
    running.end()


def loader_of(pixels_at_once: int, max_pixels: int = 10**6) -> ImageLoader:
    return ImageLoader(Storage(), ImagePolicy(root=".", max_pixels=max_pixels), pixels_at_once)


def test_images_that_exceed_it_together_are_decoded_one_after_the_other(threads: Threads) -> None:
    loader = loader_of(399)
    threads.start("a", loader, png((20, 10)))
    assert threads.next() == "a is in"
    threads.start("b", loader, png((20, 10)))
    assert threads.next() == "b waits"
    threads.leave("a")
    assert threads.next() == "b is in"


def test_images_that_fit_together_are_decoded_at_once(threads: Threads) -> None:
    loader = loader_of(400)
    for name in ("a", "b"):
        threads.start(name, loader, png((20, 10)))
        assert threads.next() == f"{name} is in"
    threads.start("c", loader, png((1, 1)))
    assert threads.next() == "c waits"


def test_nothing_is_decoded_before_there_is_room(threads: Threads) -> None:
    loader = loader_of(800)
    threads.start("a", loader, png((40, 20)))
    assert threads.next() == "a is in"
    threads.start("broken", loader, png_that_claims(40, 20))
    assert threads.next() == "broken waits"
    threads.leave("a")
    assert threads.next() == "broken raises RowError"


def test_what_the_header_tells_is_told_without_waiting(refused: Refusal) -> None:
    loader = loader_of(200, max_pixels=200)
    with loader.decode(png((20, 10))), ThreadPoolExecutor(1) as other:
        for reason, data in [(Reason.IMAGE_TOO_LARGE, png((20, 11))), (Reason.IMAGE_UNREADABLE, b"no image")]:
            refused(reason, other.submit(loader.decode(data).__enter__).result, 20)


def test_an_image_above_all_of_it_is_decoded_alone(threads: Threads) -> None:
    loader = loader_of(100)
    threads.start("small", loader, png((1, 1)))
    assert threads.next() == "small is in"
    threads.start("huge", loader, png((20, 10)))
    assert threads.next() == "huge waits"
    threads.leave("small")
    assert threads.next() == "huge is in"
    threads.start("late", loader, png((1, 1)))
    assert threads.next() == "late waits"
    threads.leave("huge")
    assert threads.next() == "late is in"


def test_who_asks_first_is_served_first(threads: Threads) -> None:
    loader = loader_of(200)
    threads.start("a", loader, png((19, 10)))
    assert threads.next() == "a is in"
    # Each of the small ones would fit beside "a".
    for name, size in [("large", (20, 10)), ("small", (1, 1)), ("larger", (20, 11)), ("small too", (1, 1))]:
        threads.start(name, loader, png(size))
        assert threads.next() == f"{name} waits"
    threads.leave("a")
    for name in ("large", "small", "larger"):
        assert threads.next() == f"{name} is in"
        threads.leave(name)
    assert threads.next() == "small too is in"


def test_as_many_as_fit_go_on_together(threads: Threads) -> None:
    loader = loader_of(200)
    threads.start("a", loader, png((20, 10)))
    assert threads.next() == "a is in"
    for name in ("b", "c"):
        threads.start(name, loader, png((10, 10)))
        assert threads.next() == f"{name} waits"
    threads.leave("a")
    assert {threads.next(), threads.next()} == {"b is in", "c is in"}


def test_who_wakes_before_its_turn_is_woken_again(threads: Threads) -> None:
    loader = loader_of(200)
    threads.start("a", loader, png((20, 10)))
    assert threads.next() == "a is in"
    for name in ("first", "second"):
        threads.start(name, loader, png((10, 10)))
        assert threads.next() == f"{name} waits"
    threads.overtaken["first"] = "second"
    threads.leave("a")
    assert {threads.next(), threads.next()} == {"first is in", "second is in"}


def test_an_error_in_the_block_gives_the_pixels_back(threads: Threads) -> None:
    loader = loader_of(200)
    with pytest.raises(ZeroDivisionError), loader.decode(png((20, 10))):
        raise ZeroDivisionError
    threads.start("a", loader, png((20, 10)))
    assert threads.next() == "a is in"


def test_a_broken_image_gives_the_pixels_back(threads: Threads, refused: Refusal) -> None:
    loader = loader_of(800)
    refused(Reason.IMAGE_UNREADABLE, loader.decode(png_that_claims(40, 20)).__enter__)
    threads.start("a", loader, png((40, 20)))
    assert threads.next() == "a is in"


def test_who_is_interrupted_while_waiting_holds_up_nobody(threads: Threads) -> None:
    loader = loader_of(200)
    for name, size in [("a", (10, 10)), ("b", (10, 10))]:
        threads.start(name, loader, png(size))
        assert threads.next() == f"{name} is in"
    for name, size in [("stopped", (20, 10)), ("next", (10, 10))]:
        threads.start(name, loader, png(size))
        assert threads.next() == f"{name} waits"
    threads.interrupted.add("stopped")
    threads.leave("a")  # half of what "stopped" needs, all that "next" does
    assert {threads.next(), threads.next()} == {"stopped raises KeyboardInterrupt", "next is in"}


def test_many_threads_never_hold_more() -> None:
    loader, lock, held = loader_of(1000), threading.Lock(), [0]
    sizes = [(1, 1), (20, 10), (30, 20), (25, 40), (40, 40)]

    too_much: list[int] = []

    def decode(start: int) -> None:
        for index in range(start, start + 25):
            width, height = sizes[index % len(sizes)]
            with loader.decode(png((width, height))) as image:
                with lock:
                    held[0] += width * height
                    if held[0] > max(1000, width * height):
                        too_much.append(held[0])
                image.resize((50, 50))
                with lock:
                    held[0] -= width * height

    workers = [threading.Thread(target=decode, args=(start,), daemon=True) for start in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()
    assert (held, too_much) == ([0], [])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_reduced_jpeg_counts_what_is_decoded_of_it(mode: str, threads: Threads) -> None:
    loader, data = loader_of(2 * REDUCED), encoded(LARGE.convert(mode), "JPEG")
    for name in ("a", "b"):
        threads.start(name, loader, data, at_least=30)
        assert threads.next() == f"{name} is in"
    threads.start("c", loader, png((1, 1)))
    assert threads.next() == "c waits"


# Headers in which a reader that takes the two bytes after a restart marker, or after a byte of padding, for a length
# lands in the comments, and finds there the start of a baseline file.
_FORGED = b"\xff\xc0\0\x11\x08\x01\xe0\x02\x80\x03" + bytes(9) + b"\xff\xda\0\x0c\x03"
_AFTER_PADDING = (b"x" * 65_276 + _FORGED).ljust(65_531, b"x")
_AFTER_RESTART = (b"x" * 65_530 + b"\xff\xfe\0", b"x" * 250 + _FORGED)


@pytest.mark.parametrize(
    "data",
    [
        encoded(LARGE, "JPEG", progressive=True),
        jpeg_with_a_scan_for_each_colour(LARGE),
        jpeg_with_comments(encoded(LARGE, "JPEG", progressive=True), *_AFTER_RESTART, before=b"\xff\xd0"),
        jpeg_with_comments(encoded(LARGE, "JPEG", progressive=True), _FORGED),
        jpeg_with_comments(encoded(LARGE, "JPEG", progressive=True), _AFTER_PADDING, before=b"\xff"),
    ],
    ids=["progressive", "a-scan-for-each-colour", "forged-after-restart", "in-a-comment", "forged-after-padding"],
)
def test_a_reduced_jpeg_that_needs_the_memory_of_all_its_pixels_counts_them_all(data: bytes, threads: Threads) -> None:
    loader = loader_of(640 * 480)
    threads.start("a", loader, png((1, 1)))
    assert threads.next() == "a is in"
    threads.start("jpeg", loader, data, at_least=30)
    assert threads.next() == "jpeg waits"
    threads.leave("a")
    assert threads.next() == "jpeg is in"


def test_a_jpeg_that_is_not_reduced_counts_all_its_pixels(threads: Threads) -> None:
    loader, data = loader_of(640 * 480), encoded(LARGE, "JPEG")
    threads.start("a", loader, png((1, 1)))
    assert threads.next() == "a is in"
    for name, at_least in [("exact", None), ("small", 200)]:
        threads.start(name, loader, data, at_least)
        assert threads.next() == f"{name} waits"
