"""Embeddings equal those of plain transformers, one row at a time, for every family of CLIP-like models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoModel, AutoTokenizer

from clip_operator.model import ClipEncoder, choose_device, find_checkpoint, load_encoder
from clip_operator.scoring.alignment import alignment
from clip_operator.storage import Storage
from tests.conftest import SHAPES
from tests.model.families import FAMILIES
from tests.model.of_any_version import features, load_image_processor, pixels

TOLERANCE = 1e-5

TEXTS = [
    "a photo of the red circle",
    "blue",
    "a",
    " ",
    ".",
    "\n\t",
    "\x00",
    "Größe, ÄÖÜ und ß!",
    "红色的圆形",
    "👩‍👩‍👧 and e\u0301 and \u202eright to left",
    "</s> <|endoftext|> [SEP] <pad>",
    "the red square. " * 7,
    "the red square. " * 100,
    "x" * 300,
]

SHAPES_OF_IMAGES = [(1, 1), (3, 1), (1, 3), (3, 3), (2, 3), (4, 1), (32, 32), (33, 31), (300, 4), (4, 300), (97, 64)]


@dataclass(frozen=True)
class Family:
    """The encoder that is tested, and plain transformers beside it."""

    encoder: ClipEncoder
    limit: int
    model: Any
    tokenizer: Any
    image_processor: Any
    padding: bool | str

    @torch.inference_mode()
    def text(self, text: str) -> torch.Tensor:
        inputs = self.tokenizer(
            [text], padding=self.padding, truncation=True, max_length=self.limit, return_tensors="pt"
        )
        pooled: torch.Tensor = features(self.model.get_text_features(**inputs))[0]
        return torch.nn.functional.normalize(pooled, dim=0)

    @torch.inference_mode()
    def image(self, image: Image.Image) -> torch.Tensor:
        inputs = pixels(self.image_processor, image)
        pooled: torch.Tensor = features(self.model.get_image_features(**inputs))[0]
        return torch.nn.functional.normalize(pooled, dim=0)

    def is_too_long(self, text: str) -> bool:
        return len(self.tokenizer(text)["input_ids"]) > self.limit


@pytest.fixture(scope="module", params=["shapes-clip", *FAMILIES])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    name: str = request.param
    if name == "shapes-clip":
        checkpoint = find_checkpoint(SHAPES, None, Storage())
        config = json.loads((checkpoint.path / "config.json").read_text())
        limit = config["text_config"]["max_position_embeddings"]
    else:
        folder = tmp_path_factory.mktemp(name)
        save, limit = FAMILIES[name]
        save(folder)
        checkpoint = find_checkpoint(str(folder), None, Storage())
    return Family(
        encoder=load_encoder(checkpoint, choose_device("cpu"), "fp32"),
        limit=limit,
        model=AutoModel.from_pretrained(checkpoint.path).eval(),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint.path),
        image_processor=load_image_processor(checkpoint.path),
        padding="max_length" if name.startswith("siglip") else False,
    )


def drawn(size: tuple[int, int], seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng([seed, *size]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encode_images(encoder: ClipEncoder, images: list[Image.Image]) -> torch.Tensor:
    return encoder.encode_images([encoder.preprocess(image) for image in images])


def encode_texts(encoder: ClipEncoder, texts: list[str]) -> torch.Tensor:
    return encoder.encode_texts(encoder.tokenize(texts))


def is_truncated(encoder: ClipEncoder, texts: list[str]) -> list[bool]:
    return [tokens.truncated for tokens in encoder.tokenize(texts)]


def largest_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


def test_the_family_tells_texts_and_images_apart(family: Family) -> None:
    """Else equality would show nothing: every pair here is a hundred tolerances apart, and more."""
    texts = torch.stack([family.text(text) for text in ("a red circle", "the blue square", "photo of x")])
    images = torch.stack([family.image(drawn((32, 32), seed)) for seed in range(3)])
    for embeddings in (texts, images):
        distances = torch.nn.functional.pdist(embeddings)
        assert float(distances.min()) > 100 * TOLERANCE


def test_texts_of_any_length_in_one_batch_are_encoded_as_each_alone(family: Family) -> None:
    expected = torch.stack([family.text(text) for text in TEXTS])
    assert largest_difference(encode_texts(family.encoder, TEXTS), expected) < TOLERANCE


@pytest.mark.parametrize("size", [1, 2, 5, len(TEXTS)])
def test_the_size_of_a_batch_of_texts_makes_no_difference(family: Family, size: int) -> None:
    batches = [encode_texts(family.encoder, TEXTS[start : start + size]) for start in range(0, len(TEXTS), size)]
    assert largest_difference(torch.cat(batches), encode_texts(family.encoder, TEXTS)) < TOLERANCE


def test_images_of_any_shape_in_one_batch_are_encoded_as_each_alone(family: Family) -> None:
    images = [drawn(size) for size in SHAPES_OF_IMAGES]
    expected = torch.stack([family.image(image) for image in images])
    assert largest_difference(encode_images(family.encoder, images), expected) < TOLERANCE


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_size_of_a_batch_of_images_makes_no_difference(family: Family, size: int) -> None:
    images = [drawn(shape) for shape in SHAPES_OF_IMAGES]
    batches = [encode_images(family.encoder, images[start : start + size]) for start in range(0, len(images), size)]
    assert largest_difference(torch.cat(batches), encode_images(family.encoder, images)) < TOLERANCE


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
def test_an_image_that_was_of_any_mode_is_encoded_once_it_is_rgb(family: Family, mode: str) -> None:
    original = Image.new(mode, (40, 30))
    original.putpixel((3, 4), 1)
    image = original.convert("RGB")
    assert largest_difference(encode_images(family.encoder, [image])[0], family.image(image)) < TOLERANCE


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 1), (3, 3), (4, 3)])
def test_a_tiny_image_is_not_taken_for_one_with_its_channels_first(family: Family, size: tuple[int, int]) -> None:
    """One colour is one colour at any size: an image of three pixels' height has no other colours than a large one."""
    images = [Image.new("RGB", size, (200, 100, 0)), Image.new("RGB", (64, 64), (200, 100, 0))]
    tiny, large = (family.encoder.preprocess(image) for image in images)
    if isinstance(tiny, np.ndarray):
        assert np.array_equal(tiny, large)
    else:  # patches in rows, padded with rows of zeros
        assert largest_difference(tiny["pixel_values"][0, :1], large["pixel_values"][0, :1]) < TOLERANCE


def test_the_number_of_tokens_that_are_read_comes_from_the_checkpoint(family: Family) -> None:
    assert family.encoder.provenance.max_text_tokens == family.limit


# Units of text by how they become tokens: one each, several each, and (the last three) more than they have bytes,
# because the tokenizer normalises its text first.
UNITS = ["a ", "the ", "红", "é", "👩", "<|endoftext|>", "\u0958", "\U0001d160", "\ufdfa"]


@pytest.mark.parametrize("unit", UNITS, ids=ascii)
def test_a_text_is_called_truncated_exactly_if_it_is_longer_than_the_model_reads(family: Family, unit: str) -> None:
    near = [count for count in range(1, 2 * family.limit + 2) if _is_near_the_limit(family, unit * count)]
    texts = [unit * count for count in near or range(1, 2 * family.limit + 2)]
    assert is_truncated(family.encoder, texts) == [family.is_too_long(text) for text in texts]


def _is_near_the_limit(family: Family, text: str) -> bool:
    return abs(len(family.tokenizer(text)["input_ids"]) - family.limit) <= 20


@settings(max_examples=15, deadline=None, derandomize=True)
@given(texts=st.lists(st.text(max_size=12).map(lambda text: text * 8), min_size=1, max_size=4))
def test_any_texts_are_encoded_as_by_plain_transformers(family: Family, texts: list[str]) -> None:
    assert is_truncated(family.encoder, texts) == [family.is_too_long(text) for text in texts]
    expected = torch.stack([family.text(text) for text in texts])
    assert largest_difference(encode_texts(family.encoder, texts), expected) < TOLERANCE


def test_embeddings_are_float32_of_length_one_on_the_cpu(family: Family) -> None:
    images = encode_images(family.encoder, [drawn((20, 30)), drawn((5, 5))])
    texts = encode_texts(family.encoder, ["a", "b"])
    for embeddings in (images, texts):
        assert (embeddings.dtype, embeddings.device.type) == (torch.float32, "cpu")
        assert torch.allclose(embeddings.norm(dim=-1), torch.ones(2), atol=1e-6)


def test_the_score_is_half_of_one_plus_the_cosine_of_plain_transformers(family: Family) -> None:
    images = [drawn((30, 20), seed) for seed in range(len(TEXTS))]

    scores = alignment(encode_images(family.encoder, images).numpy(), encode_texts(family.encoder, TEXTS).numpy())

    expected = [(float(family.image(i) @ family.text(t)) + 1) / 2 for i, t in zip(images, TEXTS, strict=True)]
    assert np.abs(scores - np.array(expected)).max() < TOLERANCE
    assert ((scores >= 0) & (scores <= 1)).all()
