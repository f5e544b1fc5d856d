"""The shipped shapes-clip: small, loadable as any CLIP folder, and right about shapes."""

import random
from typing import Any

import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, AutoTokenizer

from demo.measure import SHIPPED_MODEL, measure, score_kinds
from demo.scenes import Scene, Thing, draw

TOKENS = 32
RED_STAR = draw(Scene((Thing("star", "red", "large", 0.5, 0.5, 0.2, 0, 1),), "white"), 160)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModel.from_pretrained(SHIPPED_MODEL, local_files_only=True)


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(SHIPPED_MODEL, local_files_only=True)


def test_the_weights_take_at_most_four_megabytes() -> None:
    assert (SHIPPED_MODEL / "model.safetensors").stat().st_size <= 4_000_000


def test_every_weight_is_found_and_none_is_left_over() -> None:
    _, loading = AutoModel.from_pretrained(SHIPPED_MODEL, local_files_only=True, output_loading_info=True)
    assert not any(loading.values())


def test_the_tokenizer_and_the_model_agree(model: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED_MODEL, local_files_only=True)
    text = model.config.text_config
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (text.bos_token_id, text.eos_token_id)
    assert tokenizer.pad_token_id == text.pad_token_id
    assert len(tokenizer) == text.vocab_size
    assert tokenizer.model_max_length == text.max_position_embeddings == TOKENS


def test_the_image_processor_makes_what_the_model_takes(model: Any) -> None:
    image_processor = AutoImageProcessor.from_pretrained(SHIPPED_MODEL, local_files_only=True)
    oblong = RED_STAR.resize((150, 200))
    side = model.config.vision_config.image_size
    for mode in ("RGB", "RGBA", "L", "P"):
        pixels = image_processor(images=oblong.convert(mode), return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, side, side)


@pytest.mark.parametrize(
    "text",
    [
        "a red star",
        "",
        " ",
        "🎉🦄👩‍👩‍👧",
        "红色的星星",
        "نجمة حمراء",
        "Ω≈ç√∫ \x00 \u200b",
        "tab\tand\nline",
        "x" * 10_000,
        "🎉" * 10_000,
    ],
    ids=["plain", "empty", "blank", "emoji", "chinese", "arabic", "symbols", "spaces", "long", "long emoji"],
)
def test_any_text_is_accepted_and_ends_in_the_end_token(model: Any, processor: Any, text: str) -> None:
    tokens = processor(text=[text], padding=True, truncation=True, return_tensors="pt")
    identities = tokens["input_ids"][0].tolist()
    assert 2 <= len(identities) <= TOKENS
    assert identities[0] == processor.tokenizer.bos_token_id
    # The unknown token is the end token: one anywhere else would cut the text off there.
    assert identities.index(processor.tokenizer.eos_token_id) == len(identities) - 1
    with torch.inference_mode():
        embedding = model.text_projection(model.text_model(**tokens).pooler_output)
    assert embedding.isfinite().all()


def test_padding_does_not_change_a_text_s_embedding(model: Any, processor: Any) -> None:
    long = "a small blue ring to the left of a large green triangle on a light blue background"
    (alone,) = score_kinds(model, processor, [RED_STAR], [["a red star"]])
    (padded,) = score_kinds(model, processor, [RED_STAR, RED_STAR], [["a red star", long]])
    assert padded[0] == pytest.approx(alone[0], abs=1e-5)


def test_captions_of_fresh_scenes_score_above_captions_of_others(model: Any, processor: Any) -> None:
    found = measure(model, processor, pairs=400, seed=random.Random("fresh").randrange(10**9))
    assert found.auc_mismatched >= 0.98
    assert found.mean_matched > found.mean_mismatched + 0.1
    assert found.auc_nearly_right >= 0.8


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("a red star", "a blue star"),
        ("a red star", "a red ring"),
        ("Something RED!", "Something GREEN!"),
        ("look, there is one star here", "look, there is one ring here"),
    ],
)
def test_plain_words_of_ones_own_work(model: Any, processor: Any, right: str, wrong: str) -> None:
    better, worse = score_kinds(model, processor, [RED_STAR], [[right], [wrong]])
    assert better[0] > worse[0]
