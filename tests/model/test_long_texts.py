"""Texts of any length cost what the model reads of them, and give the tokens that they would give as a whole."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from clip_operator import model
from clip_operator.storage import Storage
from tests.conftest import SHAPES


@pytest.fixture(scope="module")
def checkpoint() -> model.Checkpoint:
    return model.find_checkpoint(SHAPES, None, Storage())


@pytest.fixture(scope="module")
def encoder(checkpoint: model.Checkpoint) -> model.ClipEncoder:
    return model.load_encoder(checkpoint, model.choose_device("cpu"), "fp32", 4)


@pytest.mark.parametrize(
    ("text", "truncated"),
    [
        ("a red circle above a blue square, " * 10_000, True),
        (" " * 150_000 + "a red circle", False),
        (" " * 150_000 + "a red circle " * 100, True),
        ("红色的圆" * 20_000, True),
        ("\N{SLIGHTLY SMILING FACE}" * 50_000, True),
        ("circle" * 20_000, True),
    ],
    ids=["words", "white space", "white space and words", "Chinese", "emoji", "one word"],
)
def test_a_very_long_text_gives_the_tokens_of_the_whole(
    checkpoint: model.Checkpoint, encoder: model.ClipEncoder, text: str, truncated: bool
) -> None:
    plain = AutoTokenizer.from_pretrained(checkpoint.path)
    expected = plain(text, truncation=True, max_length=encoder.provenance.max_text_tokens)
    [tokens] = encoder.tokenize([text])
    assert tokens.inputs == dict(expected)
    assert tokens.truncated is truncated


def test_only_the_beginning_of_a_very_long_text_is_tokenized(
    encoder: model.ClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    tokenizer = encoder._tokenizer

    class Noted:
        def __call__(self, text: str | list[str], **options: object) -> object:
            seen.append(sum(map(len, [text] if isinstance(text, str) else text)))
            return tokenizer(text, **options)

    monkeypatch.setattr(encoder, "_tokenizer", Noted())
    encoder.tokenize(["a red circle " * 1_000_000])
    assert sum(seen) < 100_000
