"""Rows come back in order, each with a score or a reason, whatever else happens around them."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_operator import model
from clip_operator.errors import Cancelled, Reason, RowError
from clip_operator.images import ImageLocation
from clip_operator.machine.processors import usable_cpus
from clip_operator.scoring import RowResult, Rows, Scorer
from clip_operator.storage import Storage, StorageError
from tests.conftest import SHAPES
from tests.in_threads import ImagesInThreads


@pytest.fixture(scope="module")
def encoder() -> model.ClipEncoder:
    checkpoint = model.find_checkpoint(SHAPES, None, Storage())
    return model.load_encoder(checkpoint, model.choose_device("cpu"), "fp32", 4)


class Colours(ImagesInThreads):
    """The images of these tests: a reference is the name of a colour, and so is the file's content."""

    def __init__(self) -> None:
        self.fetched: Counter[str] = Counter()

    def fetch(self, location: ImageLocation) -> bytes:
        self.fetched[location.key] += 1  # of one key at a time: no two threads fetch the same
        if location.key == "nowhere":
            raise RowError(Reason.IMAGE_NOT_FOUND, "there is no such colour")
        return location.key.encode()

    @contextmanager
    def decode(self, data: bytes, at_least: int | None = None) -> Iterator[Image.Image]:
        yield Image.new("RGB", (64, 64), data.decode())


Chunks = list[tuple[int, list[str], list[str]]]


def scored(encoder: model.ClipEncoder, chunks: Chunks, images: Colours, cache_bytes: int = 1 << 20) -> list[RowResult]:
    scorer = Scorer(encoder, images, threading.Event(), cache_bytes=cache_bytes)
    numbers, results = [], []
    for rows, of_chunk in scorer.score(Rows(*chunk) for chunk in chunks):
        numbers.append(rows.content)
        results += of_chunk
    assert numbers == [number for number, _, _ in chunks]
    return results


def cut(references: list[str], texts: list[str], size: int) -> Chunks:
    return [(i, references[i : i + size], texts[i : i + size]) for i in range(0, len(references), size)]


def test_results_are_in_the_order_of_the_rows(encoder: model.ClipEncoder) -> None:
    colours = ["red", "nowhere", "blue", "green", "white", "black", "nowhere", "yellow"]
    texts = ["a red square"] * len(colours)
    one_by_one = [scored(encoder, [(0, [colour], ["a red square"])], Colours())[0].score for colour in colours]
    results = scored(encoder, cut(colours, texts, 3), Colours())
    assert [result.score for result in results] == pytest.approx(one_by_one, abs=1e-5)
    assert [i for i, score in enumerate(one_by_one) if score is None] == [1, 6]


def reason(result: RowResult) -> Reason | None:
    return None if result.error is None else result.error.reason


NAMES = ["red", "blue", "green", "white", "black", "yellow", "purple", "orange", "nowhere"]
TEXTS = ["red", "a blue circle", "two green triangles on a white background", "a " * 60 + "red square"]


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    rows=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(TEXTS)), min_size=1, max_size=60),
    size=st.integers(1, 20),
    remembered=st.sampled_from([0, 3, 1000]),
)
def test_every_row_gets_the_score_it_would_get_alone(
    encoder: model.ClipEncoder, rows: list[tuple[str, str]], size: int, remembered: int
) -> None:
    """Whatever rows repeat, however they are cut into chunks, and however little is remembered of earlier ones."""
    alone = {row: scored(encoder, [(0, [row[0]], [row[1]])], Colours())[0] for row in set(rows)}
    images = Colours()
    chunks = cut([name for name, _ in rows], [text for _, text in rows], size)
    results = scored(encoder, chunks, images, 2 * remembered * (4 * encoder.dimensions + 512))
    for row, result in zip(rows, results, strict=True):
        assert result.score == pytest.approx(alone[row].score, abs=1e-5)
        assert result.truncated == alone[row].truncated
        assert reason(result) == reason(alone[row])
    if remembered == 1000:
        assert images.fetched == Counter({name for name, _ in rows})


def test_the_same_rows_give_the_same_numbers_to_the_last_bit(encoder: model.ClipEncoder) -> None:
    """However the threads happen to run: which rows go through the model together depends on the rows alone."""
    names = [NAMES[i * i % len(NAMES)] for i in range(200)]
    texts = [TEXTS[i * 7 % len(TEXTS)] + str(i % 31) for i in range(200)]
    first, *others = [
        [result.score for result in scored(encoder, cut(names, texts, 16), Colours(), 8 * 700)] for _ in range(4)
    ]
    assert all(other == first for other in others)


@contextmanager
def depending_on_the_batch(encoder: model.ClipEncoder) -> Iterator[None]:
    """Let every embedding depend a little on all that goes through the model with it, as on some devices it does."""

    def blended(encode: Callable[[Any], torch.Tensor]) -> Callable[[Any], torch.Tensor]:
        def encode_and_blend(batch: Any) -> torch.Tensor:
            embeddings = encode(batch)
            return torch.nn.functional.normalize(embeddings + 0.1 * embeddings.sum(dim=0), dim=-1)

        return encode_and_blend

    with pytest.MonkeyPatch.context() as patch:
        for name in ("encode_images", "encode_texts"):
            patch.setattr(encoder, name, blended(getattr(encoder, name)))
        yield


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    rows=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(TEXTS)), min_size=24, max_size=60),
    size=st.integers(1, 6),
    every=st.integers(1, 4),
    data=st.data(),
)
def test_scoring_can_begin_anew_behind_every_segment_with_the_same_numbers_to_the_last_bit(
    encoder: model.ClipEncoder, rows: list[tuple[str, str]], size: int, every: int, data: st.DataObject
) -> None:
    """Whatever images and texts its rows share with those before, and whatever goes through the model together."""
    cuts = cut([name for name, _ in rows], [text for _, text in rows], size)
    chunks = [Rows(*chunk, ends_segment=number % every == every - 1) for number, chunk in enumerate(cuts)]
    done = data.draw(st.integers(1, len(chunks) // every)) * every  # chunks whose results an earlier try has left
    images = Colours()
    with depending_on_the_batch(encoder):
        whole = [r for _, results in Scorer(encoder, Colours(), threading.Event()).score(chunks) for r in results]
        known = iter(whole[: done * size])
        again = [
            replace(chunk, known=[next(known, None) for _ in chunk.texts] if number < done else None)
            for number, chunk in enumerate(chunks)
        ]
        resumed = [r for _, results in Scorer(encoder, images, threading.Event()).score(again) for r in results]
    assert [r.score for r in resumed] == [r.score for r in whole]
    assert set(images.fetched) <= {name for name, _ in rows[done * size :]}


def test_an_image_and_a_text_that_rows_repeat_are_encoded_once(encoder: model.ClipEncoder) -> None:
    images = Colours()
    names = ["red", "nowhere", "red", "blue", "nowhere"] * 100
    texts = ["a red square", "a red square", "blue", "a red square", "blue"] * 100
    scorer = Scorer(encoder, images, threading.Event())
    assert sum(len(results) for _, results in scorer.score(Rows(*chunk) for chunk in cut(names, texts, 32))) == 500
    assert images.fetched == {"red": 1, "nowhere": 1, "blue": 1}
    throughput = scorer.throughput()
    assert (throughput.images_encoded, throughput.images_reused) == (3, 497)
    assert (throughput.texts_encoded, throughput.texts_reused) == (2, 498)


def test_what_was_used_longest_ago_is_forgotten_first(encoder: model.ClipEncoder) -> None:
    room_for_two = 2 * 2 * (4 * encoder.dimensions + 512)
    for names, fetched in (
        ("red blue red green red", {"red": 1, "blue": 1, "green": 1}),
        ("red blue green red", {"red": 2, "blue": 1, "green": 1}),
    ):
        images = Colours()
        scored(encoder, cut(names.split(), ["a"] * len(names.split()), 1), images, room_for_two)
        assert images.fetched == fetched


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, Reason.TEXT_MISSING),
        (float("nan"), Reason.TEXT_MISSING),
        ("", Reason.TEXT_EMPTY),
        (" \t\n\u2003", Reason.TEXT_EMPTY),
        (42, Reason.TEXT_INVALID),
        (["a", "b"], Reason.TEXT_INVALID),
        ("half a pair: \ud83d", Reason.TEXT_INVALID),
    ],
)
def test_a_row_without_a_usable_text_has_a_reason_and_its_image_is_not_fetched(
    encoder: model.ClipEncoder, text: object, reason: Reason
) -> None:
    images = Colours()
    [(_, [result])] = Scorer(encoder, images, threading.Event()).score([Rows(None, ["red"], [text])])
    assert result.score is None
    assert result.error is not None
    assert result.error.reason is reason
    assert not images.fetched


def test_a_store_that_fails_is_not_one_rows_fault(encoder: model.ClipEncoder) -> None:
    class Broken(Colours):
        def fetch(self, location: ImageLocation) -> bytes:
            raise StorageError(f"the store is gone: {location}")

    with pytest.raises(StorageError, match="the store is gone"):
        scored(encoder, cut(NAMES * 10, ["a red square"] * len(NAMES) * 10, 20), Broken())


def test_an_error_ends_the_run_while_other_images_still_hang(encoder: model.ClipEncoder) -> None:
    """It is not kept back until the rows before it are done."""
    release = threading.Event()

    class HangsThenFails(Colours):
        def fetch(self, location: ImageLocation) -> bytes:
            if location.key == "red":
                release.wait()
            raise StorageError("the store is gone")

    try:
        with pytest.raises(StorageError, match="the store is gone"):
            scored(encoder, [(0, ["red", "blue"], ["a", "b"])], HangsThenFails())
    finally:
        release.set()


def test_a_model_that_fails_ends_the_run(encoder: model.ClipEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pixels: object) -> torch.Tensor:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(encoder, "encode_images", fail)
    with pytest.raises(RuntimeError, match="the device is gone"):
        scored(encoder, cut(NAMES, ["a"] * len(NAMES), 4), Colours())


def test_scoring_stops_soon_when_it_is_told_to(encoder: model.ClipEncoder) -> None:
    stop = threading.Event()

    def endless() -> Iterator[Rows[None]]:
        while True:
            yield Rows(None, ["red"], ["a red square"])

    chunks = Scorer(encoder, Colours(), stop).score(endless())
    next(chunks)
    stop.set()
    with pytest.raises(Cancelled):
        deque(islice(chunks, 1), maxlen=0)


@pytest.mark.parametrize("names", [["red"], NAMES], ids=["one image", "many images"])
def test_only_a_few_chunks_are_read_ahead(encoder: model.ClipEncoder, names: list[str]) -> None:
    """Also where every row repeats one image, so that a batch of images never fills up."""
    read = []

    def chunks() -> Iterator[Rows[int]]:
        for number in range(100):
            read.append(number)
            yield Rows(number, [names[number % len(names)]], ["a red square"])

    results = Scorer(encoder, Colours(), threading.Event()).score(chunks())
    for expected in range(50):
        assert next(results)[0].content == expected
        assert len(read) <= expected + 17


@pytest.mark.parametrize("names", [["red"], NAMES], ids=["one image", "many images"])
def test_only_a_few_large_chunks_are_read_ahead(encoder: model.ClipEncoder, names: list[str]) -> None:
    read = []

    def chunks() -> Iterator[Rows[int]]:
        for number in range(30):
            read.append(number)
            yield Rows(number, [names[number % len(names)]], ["a red square"], size=20 << 20)

    for expected, (rows, _) in enumerate(Scorer(encoder, Colours(), threading.Event()).score(chunks())):
        assert rows.content == expected
        assert len(read) <= expected + 5


def test_only_so_many_images_are_held_at_once(encoder: model.ClipEncoder) -> None:
    """While nothing is decoded, the pipeline fetches up to its bound and no further."""
    most = encoder.image_batch * (encoder.lanes + 1) + 24 * usable_cpus()

    class Counted(Colours):
        full, lock, decoded = threading.Event(), threading.Lock(), 0

        def fetch(self, location: ImageLocation) -> bytes:
            with self.lock:
                self.fetched[location.key] += 1
                held = len(self.fetched) - self.decoded
                assert held <= most
                if held == most:
                    self.full.set()
            return b"red"

        @contextmanager
        def decode(self, data: bytes, at_least: int | None = None) -> Iterator[Image.Image]:
            assert self.full.wait(60)
            with super().decode(data) as image:
                yield image
            with self.lock:
                self.decoded += 1

    names = [str(number) for number in range(4 * most)]
    assert len(scored(encoder, cut(names, ["a"] * len(names), 16), Counted())) == len(names)


def test_an_image_that_does_not_come_does_not_hold_up_the_end(encoder: model.ClipEncoder) -> None:
    asked, stop, release = threading.Event(), threading.Event(), threading.Event()

    class Hangs(Colours):
        def fetch(self, location: ImageLocation) -> bytes:
            asked.set()
            release.wait()
            return super().fetch(location)

    def stop_once_asked() -> None:
        asked.wait()
        stop.set()

    threading.Thread(target=stop_once_asked).start()
    try:
        with pytest.raises(Cancelled):
            list(Scorer(encoder, Hangs(), stop).score([Rows(None, ["red"], ["a red square"])]))
    finally:
        release.set()
