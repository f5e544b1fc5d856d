"""A text that is longer than the model reads is scored sentence by sentence as well."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator import model
from clip_operator.scoring import Rows, Scorer
from clip_operator.scoring.sentences import MOST_SENTENCES, sentences
from clip_operator.storage import Storage
from tests.conftest import SHAPES
from tests.hostile.jobs import time_limit
from tests.scoring.test_scorer import Colours


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red square. A blue circle! Is it? Yes\N{HORIZONTAL ELLIPSIS} no", 5),
        ('He said "a circle." Then he left.', ['He said "a circle."', "Then he left."]),
        ("It is 3.5 cm wide, see www.example.org/a.png", 1),
        ("- a square\n- a circle\r\n\r\n- a dot\u2028the end", ["- a square", "- a circle", "- a dot", "the end"]),
        ("红色的圆。蓝色的方块\uff01「对。」好", ["红色的圆。", "蓝色的方块\uff01", "「对。」", "好"]),
        ("What?! No...  Really.", ["What?!", "No...", "Really."]),
        ("  no stop at all  ", ["no stop at all"]),
        (" . \n ! ", [".", "!"]),
        ("a. " * 100, MOST_SENTENCES),
        ("a" * 5000, ["a" * 1000]),
    ],
)  # fmt: skip
def test_a_text_is_cut_at_full_stops_and_line_breaks(text: str, expected: int | list[str]) -> None:
    found = sentences(text)
    assert len(found) == expected if isinstance(expected, int) else found == expected


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(st.sampled_from('ab .!?\u2026\n\r\u2028"\u201d)\u3002\uff01\u300d'), max_size=60))
def test_nothing_of_a_text_is_lost_or_moved(text: str) -> None:
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())[: len("".join("".join(found).split()))]
    assert len(found) == MOST_SENTENCES or "".join("".join(found).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in found)


@pytest.mark.parametrize("text", ["." * 3_000_000, ". " * 1_500_000, " " * 3_000_000 + "a", "\n" * 3_000_000])
def test_no_text_takes_long_to_cut(text: str) -> None:
    with time_limit():
        sentences(text)


def test_of_a_text_that_is_cut_the_sentence_that_agrees_least_is_known(shapes: model.ClipEncoder) -> None:
    """As scoring every sentence in a row of its own finds it; rows whose text fits have none."""
    parts = ["A red square is here.", "It is all red, red, red!", "There is a blue circle?", "A red square again."]
    long = " ".join(parts) + " and so on" * 20
    rows = Rows(None, ["red", "blue", "red", "nowhere"], [long, long, "a red square", long])
    scorer = Scorer(shapes, Colours(), threading.Event(), with_sentences=True)
    [(_, results)] = scorer.score([rows])
    for colour, result in zip(["red", "blue"], results, strict=False):
        found = sentences(long)
        [(_, alone)] = Scorer(shapes, Colours(), threading.Event()).score([Rows(None, [colour] * len(found), found)])
        expected = [each.score for each in alone if each.score is not None]
        assert result.truncated
        assert result.least is not None
        assert result.least[0] == found[expected.index(min(expected))]
        assert result.least[1] == pytest.approx(min(expected), abs=1e-5)
    assert [result.least for result in results[2:]] == [None, None]
    [(_, without)] = Scorer(shapes, Colours(), threading.Event()).score([rows])
    assert [result.least for result in without] == [None] * 4
    assert [r.score for r in without] == pytest.approx([r.score for r in results], abs=1e-6)


def test_a_text_of_sentences_that_is_met_again_is_not_encoded_again(shapes: model.ClipEncoder) -> None:
    long = ". ".join(f"a red square, number {number}" for number in range(10))
    chunk = Rows(None, ["red", "blue"] * 100, [long] * 200)
    scorer = Scorer(shapes, Colours(), threading.Event(), with_sentences=True)
    results = [result for _, of_chunk in scorer.score([chunk, chunk]) for result in of_chunk]
    assert scorer.throughput().texts_encoded == 11
    assert scorer.throughput().texts_reused == 399
    assert len({result.least for result in results}) == 2


def test_rows_of_many_sentences_are_read_a_few_at_a_time(
    shapes: model.ClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their embeddings wait in memory for the rows before them. What they are plays no part, and they are none here."""
    monkeypatch.setattr(shapes, "encode_texts", lambda texts: torch.zeros(len(texts), shapes.dimensions))
    read = []

    def chunks() -> Iterator[Rows[int]]:
        for number in range(16):
            read.append(number)
            texts = [". ".join(f"{number} {row} {part}" for part in range(64)) for row in range(128)]
            yield Rows(number, ["red"] * 128, texts)

    results = Scorer(shapes, Colours(), threading.Event(), with_sentences=True).score(chunks())
    assert next(results)[0].content == 0
    assert len(read) <= 5


@pytest.fixture(scope="module")
def shapes() -> model.ClipEncoder:
    checkpoint = model.find_checkpoint(SHAPES, None, Storage())
    return model.load_encoder(checkpoint, model.choose_device("cpu"), "fp32", 4)
