"""Rows come back in order, each with a score or a reason, whatever else happens around them."""

from __future__ import annotations

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


def colour(name: object) -> Image.Image:
    """The loader of these tests: an image reference is the name of a colour."""
    if name == "nowhere":
        raise RowError(Reason.IMAGE_NOT_FOUND, "there is no such colour")
    return Image.new("RGB", (64, 64), str(name))


def test_results_are_in_the_order_of_the_rows(encoder: model.ClipEncoder) -> None:
    colours = ["red", "nowhere", "blue", "green", "white", "black", "nowhere", "yellow"]
    one_by_one = [
        result.score
        for name in colours
        for _, results in Scorer(encoder, colour, threading.Event()).score([(None, [name], ["a red square"])])
        for result in results
    ]
    batches = [(i, colours[i : i + 3], ["a red square"] * len(colours[i : i + 3])) for i in range(0, len(colours), 3)]
    scored = list(Scorer(encoder, colour, threading.Event()).score(batches))
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
    def never(reference: object) -> Image.Image:
        raise AssertionError(f"{reference} was fetched")

    [(_, [result])] = Scorer(encoder, never, threading.Event()).score([(None, ["red"], [text])])
    assert result.score is None
    assert result.error is not None
    assert result.error.reason is reason


def test_a_store_that_fails_is_not_one_rows_fault(encoder: model.ClipEncoder) -> None:
    def broken(reference: object) -> Image.Image:
        raise StorageError("the store is gone")

    with pytest.raises(StorageError, match="the store is gone"):
        list(Scorer(encoder, broken, threading.Event()).score([(None, ["red"] * 50, ["a red square"] * 50)]))


def test_scoring_stops_soon_when_it_is_told_to(encoder: model.ClipEncoder) -> None:
    stop = threading.Event()

    def endless() -> Iterator[tuple[None, list[str], list[str]]]:
        while True:
            yield None, ["red"], ["a red square"]

    scored = Scorer(encoder, colour, stop).score(endless())
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

    scored = Scorer(encoder, colour, threading.Event()).score(batches())
    for expected in range(5):
        assert next(scored)[0] == expected
        assert len(read) <= expected + 4


def test_an_image_that_does_not_come_does_not_hold_up_the_end(encoder: model.ClipEncoder) -> None:
    asked, stop, release = threading.Event(), threading.Event(), threading.Event()

    def hangs(reference: object) -> Image.Image:
        asked.set()
        release.wait()
        return colour(reference)

    def stop_once_asked() -> None:
        asked.wait()
        stop.set()

    threading.Thread(target=stop_once_asked).start()
    try:
        with pytest.raises(Cancelled):
            list(Scorer(encoder, hangs, stop).score([(None, ["red"], ["a red square"])]))
    finally:
        release.set()
