"""Rows come back in order, each with a score or a reason, whatever else happens around them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from itertools import islice

import pytest
from PIL import Image

from clip_operator import model
from clip_operator.errors import Cancelled, Reason, RowError
from clip_operator.scoring import Scorer
from clip_operator.storage import Storage, StorageError
from tests.conftest import SHAPES


@pytest.fixture(scope="module")
def encoder() -> model.ClipEncoder:
    checkpoint = model.find_checkpoint(SHAPES, None, Storage())
    return model.load_encoder(checkpoint, model.choose_device("cpu"), "fp32")


class Colours:
    """The images of these tests: a reference is the name of a colour, and so is the file's content."""

    def read(self, reference: object) -> bytes:
        if reference == "nowhere":
            raise RowError(Reason.IMAGE_NOT_FOUND, "there is no such colour")
        return str(reference).encode()

    def decode(self, data: bytes) -> Image.Image:
        return Image.new("RGB", (64, 64), data.decode())


def test_results_are_in_the_order_of_the_rows(encoder: model.ClipEncoder) -> None:
    colours = ["red", "nowhere", "blue", "green", "white", "black", "nowhere", "yellow"]
    one_by_one = [
        result.score
        for name in colours
        for _, results in Scorer(encoder, Colours(), threading.Event()).score([(None, [name], ["a red square"])])
        for result in results
    ]
    batches = [(i, colours[i : i + 3], ["a red square"] * len(colours[i : i + 3])) for i in range(0, len(colours), 3)]
    scored = list(Scorer(encoder, Colours(), threading.Event()).score(batches))
    assert [batch for batch, _ in scored] == [0, 3, 6]
    assert [result.score for _, results in scored for result in results] == pytest.approx(one_by_one, abs=1e-5)
    assert [i for i, score in enumerate(one_by_one) if score is None] == [1, 6]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, Reason.TEXT_MISSING),
        (float("nan"), Reason.TEXT_MISSING),
        ("", Reason.TEXT_EMPTY),
        (" \t\n\u2003", Reason.TEXT_EMPTY),
        (42, Reason.TEXT_INVALID),
        (["a", "b"], Reason.TEXT_INVALID),
    ],
)
def test_a_row_without_a_usable_text_has_a_reason_and_its_image_is_not_fetched(
    encoder: model.ClipEncoder, text: object, reason: Reason
) -> None:
    class Never(Colours):
        def read(self, reference: object) -> bytes:
            raise AssertionError(f"{reference} was fetched")

    [(_, [result])] = Scorer(encoder, Never(), threading.Event()).score([(None, ["red"], [text])])
    assert result.score is None
    assert result.error is not None
    assert result.error.reason is reason


def test_a_store_that_fails_is_not_one_rows_fault(encoder: model.ClipEncoder) -> None:
    class Broken(Colours):
        def read(self, reference: object) -> bytes:
            raise StorageError(f"the store is gone: {reference}")

    with pytest.raises(StorageError, match="the store is gone"):
        list(Scorer(encoder, Broken(), threading.Event()).score([(None, ["red"] * 50, ["a red square"] * 50)]))


def test_scoring_stops_soon_when_it_is_told_to(encoder: model.ClipEncoder) -> None:
    stop = threading.Event()

    def endless() -> Iterator[tuple[None, list[str], list[str]]]:
        while True:
            yield None, ["red"], ["a red square"]

    scored = Scorer(encoder, Colours(), stop).score(endless())
    next(scored)
    stop.set()
    with pytest.raises(Cancelled):
        deque(islice(scored, 10), maxlen=0)  # a few batches may have been prepared before


def test_only_a_few_batches_are_read_ahead(encoder: model.ClipEncoder) -> None:
    read = []

    def batches() -> Iterator[tuple[int, list[str], list[str]]]:
        for number in range(100):
            read.append(number)
            yield number, ["red"], ["a red square"]

    scored = Scorer(encoder, Colours(), threading.Event()).score(batches())
    for expected in range(5):
        assert next(scored)[0] == expected
        assert len(read) <= expected + 4


def test_an_image_that_does_not_come_does_not_hold_up_the_end(encoder: model.ClipEncoder) -> None:
    asked, stop, release = threading.Event(), threading.Event(), threading.Event()

    class Hangs(Colours):
        def read(self, reference: object) -> bytes:
            asked.set()
            release.wait()
            return super().read(reference)

    def stop_once_asked() -> None:
        asked.wait()
        stop.set()

    threading.Thread(target=stop_once_asked).start()
    try:
        with pytest.raises(Cancelled):
            list(Scorer(encoder, Hangs(), stop).score([(None, ["red"], ["a red square"])]))
    finally:
        release.set()


def test_no_more_images_are_decoded_at_once_than_a_few(encoder: model.ClipEncoder) -> None:
    class Counted(Colours):
        lock, now, most = threading.Lock(), 0, 0

        def decode(self, data: bytes) -> Image.Image:
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            try:
                return super().decode(data).resize((2000, 2000)).resize((64, 64))
            finally:
                with self.lock:
                    self.now -= 1

    images = Counted()
    list(Scorer(encoder, images, threading.Event()).score([(None, ["red"] * 64, ["a red square"] * 64)]))
    assert 1 <= images.most <= min(8, os.cpu_count() or 1)
