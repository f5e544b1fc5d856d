"""Images are scored beside the texts of other rows, all as often, chosen by nothing but where rows stand."""

from __future__ import annotations

import threading
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clip_operator import model
from clip_operator.scoring import NO_PAIRS, PairedRows, RowResult, Rows, Scorer, are_packed, image_hashes, packed
from clip_operator.scoring.clusters import group_of
from clip_operator.scoring.mismatched import PARTNERS, PairMaker, unpacked
from clip_operator.scoring.pairs import Embedded
from clip_operator.storage import Storage
from tests.conftest import SHAPES
from tests.scoring.test_scorer import Colours

Pair = tuple[str, str]
NO_PAIR = 0xFFFFFF
DIMENSIONS = 16


def embeddings(rows: int, seed: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(rows, DIMENSIONS)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def made(images: NDArray[np.float32], texts: NDArray[np.float32], sizes: tuple[int, ...] = ()) -> PairedRows:
    """Pair rows that are scored, which come so many at a time."""
    maker, start = PairMaker(), 0
    for size in (*sizes, len(images)):
        stop = min(len(images), start + size)
        part = Embedded(np.arange(stop - start), images[start:stop], texts[start:stop])
        references = [f"{row}.png" for row in range(start, stop)]
        maker.add(references, [RowResult(0.5)] * (stop - start), part)
        start = stop
    maker.end_block()
    return maker.take()


def partners(paired: PairedRows, images: NDArray[np.float32], texts: NDArray[np.float32]) -> list[set[int]]:
    """Return for each row the rows whose texts it was paired with, by what the pairs score."""
    scores = (images @ texts.T + 1) / 2
    groups = group_of(image_hashes([f"{row}.png" for row in range(len(images))]))
    found = []
    for row, codes in enumerate(paired.codes):
        there = {(int(code) & 0x3FFF, int(code) >> 14) for code in codes if code != NO_PAIR}
        found.append(
            {
                other
                for other in range(len(images))
                if any(close(scores[row, other], bin_) for bin_, group in there if group == groups[other])
            }
        )
    return found


def close(score: float, bin_: int) -> bool:
    return bin_ - 0.01 <= score * 10_000 < bin_ + 1.01


@pytest.mark.parametrize("rows", [2, 3, 16, 17, 31, 100])
def test_each_image_meets_as_many_texts_of_other_rows_and_each_text_as_many_images(rows: int) -> None:
    images, texts = embeddings(rows, 1), embeddings(rows, 2)
    paired = made(images, texts)
    met = (paired.codes != NO_PAIR).sum(axis=1)
    teams = -(-rows // 16)
    assert set(met.tolist()) <= {rows // teams - 1, -(-rows // teams) - 1}
    found = partners(paired, images, texts)
    assert all(row not in others and len(others) >= met[row] for row, others in enumerate(found))
    lent = np.bincount([other for others in found for other in others], minlength=rows)
    assert abs(lent - met).max() <= 2, "but for scores that another pair has, too"


@settings(derandomize=True, deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 3000), max_size=6).map(tuple))
def test_the_pairs_are_the_same_however_rows_are_cut_into_chunks(sizes: tuple[int, ...]) -> None:
    """Also those of rows that are too many for one block."""
    images, texts = embeddings(5000, 3), embeddings(5000, 4)
    whole, cut = made(images, texts), made(images, texts, sizes)
    assert (whole.images == cut.images).all()
    assert (whole.codes == cut.codes).all()
    assert (whole.codes[:4096] == made(images[:4096], texts[:4096]).codes).all()


def test_a_row_is_paired_with_rows_of_the_whole_block_and_not_with_its_neighbours() -> None:
    """Data sets are sorted, by caption or class."""
    rows = 2000
    classes = np.arange(rows) // 100
    base = embeddings(20, 5)
    images = base[classes] + 0.01 * embeddings(rows, 6)
    images = images / np.linalg.norm(images, axis=1, keepdims=True)
    paired = made(images.astype(np.float32), base[classes])
    own = (images * base[classes]).sum(axis=1)
    scores = (paired.codes & 0x3FFF) / 10_000
    there = paired.codes != NO_PAIR
    assert there.sum() > 0.9 * rows * PARTNERS
    assert (scores[there] < ((own + 1) / 2).min() - 0.05).all(), "no pair with the text of the own class"


def test_copies_of_a_picture_and_texts_that_say_the_same_are_no_mismatched_pairs() -> None:
    images, texts = embeddings(40, 7), embeddings(40, 8)
    images[20:] = images[:20] + 0.001 * embeddings(20, 9)  # under another name, saved again
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    texts[10:20] = texts[:10]
    found = partners(made(images, texts), images, texts)
    for row, others in enumerate(found):
        assert (row + 20) % 40 not in others
        if row < 20:
            assert (row + 10) % 20 not in others
    assert sum(map(len, found)) > 400


@pytest.mark.parametrize("alike", ["images", "texts"])
def test_where_nothing_differs_there_is_no_pair(alike: str) -> None:
    images, texts = embeddings(30, 1), embeddings(30, 2)
    (images if alike == "images" else texts)[:] = embeddings(1, 3)
    assert (made(images, texts).codes == NO_PAIR).all()
    assert (made(images[:1], texts[:1]).codes == NO_PAIR).all()


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 31)), max_size=PARTNERS), max_size=6))
def test_pairs_come_out_of_their_bytes_as_they_went_in(rows: list[list[tuple[int, int]]]) -> None:
    codes = np.full((len(rows), PARTNERS), NO_PAIR, np.uint32)
    for row, pairs in enumerate(rows):
        codes[row, : len(pairs)] = [bin_ | group << 14 for bin_, group in pairs]
    data = packed(codes)
    assert (unpacked(data) == codes).all()
    assert [each == NO_PAIRS for each in data] == [not pairs for pairs in rows]
    assert are_packed(b"".join(data))


@pytest.mark.parametrize(
    "wrong", [b"\xff", NO_PAIRS[1:], b"\x10\x27\x00" + NO_PAIRS[3:], b"\x00\x00\x08" + NO_PAIRS[3:]]
)
def test_what_are_no_pairs_is_seen(wrong: bytes) -> None:
    """Such as a score above 1, and a group that there is not."""
    assert not are_packed(wrong)


ENCODER = cache(
    lambda: model.load_encoder(model.find_checkpoint(SHAPES, None, Storage()), model.choose_device("cpu"), "fp32", 4)
)
COLOURS = ["red", "blue", "green", "white", "black", "yellow"]
TEXTS = ["red", "a blue circle", "two green triangles", "a black square"]


def scored(rows: list[Pair], known: list[RowResult | None] | None = None) -> PairedRows:
    """Score rows that are read together; return them with their pairs."""
    scorer = Scorer(ENCODER(), Colours(), threading.Event())
    list(scorer.score([Rows(None, [image for image, _ in rows], [text for _, text in rows], known)]))
    return scorer.take_pairs()


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    rows=st.lists(st.tuples(st.sampled_from(COLOURS), st.sampled_from(TEXTS)), min_size=1, max_size=40), data=st.data()
)
def test_only_rows_that_are_scored_here_lend_and_borrow_texts(rows: list[Pair], data: st.DataObject) -> None:
    """Of rows that failed there is no pair, and those that were known keep what they bring along."""
    broken = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    taken = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    brought = b"\x05\x00\x00" + NO_PAIRS[3:]
    known = [RowResult(0.25, mismatched=brought) if row in taken else None for row in range(len(rows))]
    mixed = [("nowhere" if row in broken else image, text) for row, (image, text) in enumerate(rows)]
    found = scored(mixed, known)
    fresh = [row for row in range(len(rows)) if row not in taken | broken]
    pairs = packed(found.codes)
    assert all(pairs[row] == brought for row in taken)
    assert all(pairs[row] == NO_PAIRS and np.isnan(found.scores[row]) for row in broken - taken)
    if fresh:
        assert [pairs[row] for row in fresh] == packed(scored([rows[row] for row in fresh]).codes)
