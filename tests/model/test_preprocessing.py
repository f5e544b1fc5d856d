"""Images become the very values that the checkpoint's image processor gives for each of them alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_operator.model.preprocessing import Preprocessing, choose_preprocessing
from tests.model.families import FAMILIES
from tests.model.of_any_version import (
    HAS_BACKENDS,
    CLIPImageProcessorPil,
    ConvNextImageProcessorPil,
    SiglipImageProcessorPil,
    image_processor_class,
    load_image_processor,
    pixels,
)

CPU = torch.device("cpu")
DEVICES = [CPU, torch.device("cuda")] if torch.cuda.is_available() else [CPU]

SHAPES = [
    (1, 1),
    (3, 1),
    (1, 3),
    (3, 3),
    (4, 3),
    (90, 4),
    (4, 90),
    (32, 32),
    (33, 31),
    (97, 64),
    (224, 224),
    (479, 641),
]

Settings = dict[str, Any]


def crop(height: int, width: int) -> Settings:
    return {"crop_size": {"height": height, "width": width}}


# By what they show: the image processor's own settings, beside those of OpenAI's CLIP.
FIXED_SHAPE: dict[str, Settings] = {
    "openai": {},
    "siglip-384": {"size": {"height": 384, "width": 384}, "do_center_crop": False},
    "odd-crop": {"size": {"shortest_edge": 31}, **crop(24, 17)},
    "crop-larger-than-the-resized-image": {"size": {"shortest_edge": 20}, **crop(33, 46)},
    "crop-of-a-fixed-size": {"size": {"height": 40, "width": 24}, **crop(31, 15)},
    "fixed-size-and-no-crop": {"size": {"height": 24, "width": 40}, "do_center_crop": False},
    "crop-alone": {"do_resize": False, **crop(33, 32)},
    "no-normalise": {"size": {"shortest_edge": 32}, **crop(32, 32), "do_normalize": False},
    "no-rescale": {"size": {"shortest_edge": 32}, **crop(32, 32), "do_rescale": False},
    "bytes": {"size": {"shortest_edge": 32}, **crop(32, 32), "do_rescale": False, "do_normalize": False},
    "other-factor": {"size": {"shortest_edge": 32}, **crop(32, 32), "rescale_factor": 1 / 127.5},
    "one-mean": {"size": {"shortest_edge": 32}, **crop(32, 32), "image_mean": 0.4, "image_std": 0.3},
    "colours-apart": {
        "size": {"shortest_edge": 32},
        **crop(32, 32),
        "image_mean": [0.1, 0.5, 0.9],
        "image_std": [0.2, 0.3, 0.7],
    },
    "no-conversion": {"size": {"shortest_edge": 32}, **crop(32, 32), "do_convert_rgb": False},
    **{
        filter_.name.lower(): {"size": {"shortest_edge": 30}, **crop(28, 28), "resample": filter_}
        for filter_ in Image.Resampling
    },
}
OWN_SHAPE: dict[str, Settings] = {
    "shortest-edge-and-no-crop": {"size": {"shortest_edge": 33}, "do_center_crop": False},
    "nothing-but-normalise": {"do_resize": False, "do_center_crop": False},
}


def drawn(size: tuple[int, int]) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng([width, height]).integers(0, 256, (height, width, 3), dtype=np.uint8))


IMAGES = [drawn(size) for size in SHAPES]


def each_alone(image_processor: Any, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """Plain transformers, an image at a time."""
    outputs = [pixels(image_processor, image) for image in images]
    return {name: torch.cat([output[name] for output in outputs]) for name in outputs[0]}


def assert_same(preprocessing: Preprocessing, image_processor: Any, images: Sequence[Image.Image]) -> None:
    found = preprocessing.collate([preprocessing.prepare(image) for image in images])
    expected = each_alone(image_processor, images)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name].cpu().to(torch.float32), value.to(torch.float32)), name


def side_of(preprocessing: Preprocessing) -> int | None:
    return None if preprocessing.resizing is None else preprocessing.resizing.side


@pytest.fixture(scope="module", params=[*FAMILIES])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param][0](folder)
    return request.param, load_image_processor(folder)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_every_family_gets_its_image_processors_values(family: tuple[str, Any], device: torch.device) -> None:
    name, image_processor = family
    preprocessing = choose_preprocessing(image_processor, device)
    assert preprocessing.name.startswith("transformers" if name == "siglip2" else "direct")
    assert side_of(preprocessing) == (None if name == "siglip2" else 32)
    assert_same(preprocessing, image_processor, IMAGES)
    for image in IMAGES:
        assert_same(preprocessing, image_processor, [image])


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("name", FIXED_SHAPE)
def test_images_of_any_shape_in_one_batch_come_out_as_each_alone(name: str, device: torch.device) -> None:
    image_processor = CLIPImageProcessorPil(**FIXED_SHAPE[name])
    preprocessing = choose_preprocessing(image_processor, device)
    assert preprocessing.name.startswith("direct")
    assert_same(preprocessing, image_processor, IMAGES)


@pytest.mark.parametrize("name", OWN_SHAPE)
def test_where_images_keep_a_shape_of_their_own_each_comes_out_the_same(name: str) -> None:
    image_processor = CLIPImageProcessorPil(**OWN_SHAPE[name])
    preprocessing = choose_preprocessing(image_processor, CPU)
    assert preprocessing.name.startswith("direct")
    for image in IMAGES:
        assert_same(preprocessing, image_processor, [image])
    with pytest.raises(ValueError, match="shape"):
        preprocessing.collate([preprocessing.prepare(image) for image in IMAGES])


SIDES = st.integers(1, 48)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 150), st.integers(1, 150)), min_size=1, max_size=4),
    size=st.builds(lambda n: {"shortest_edge": n}, SIDES)
    | st.builds(lambda h, w: {"height": h, "width": w}, SIDES, SIDES),
    crop_size=st.builds(lambda h, w: {"height": h, "width": w}, SIDES, SIDES),
)
def test_images_of_all_sizes_come_out_the_same_whatever_the_model_wants(
    sizes: list[tuple[int, int]], size: dict[str, int], crop_size: dict[str, int]
) -> None:
    image_processor = CLIPImageProcessorPil(size=size, crop_size=crop_size)
    preprocessing = choose_preprocessing(image_processor, CPU)
    assert preprocessing.name.startswith("direct")
    assert_same(preprocessing, image_processor, [drawn(each) for each in sizes])


def test_a_png_with_a_transparent_colour_stands_on_white_as_the_image_processor_has_it() -> None:
    file = BytesIO()
    original = Image.new("RGB", (40, 30), (10, 20, 30))
    original.paste((200, 100, 0), (5, 5, 20, 20))
    original.save(file, "PNG", transparency=(10, 20, 30))
    image = Image.open(file)
    image.load()
    assert image.mode == "RGB"
    for convert in (True, False):
        image_processor = CLIPImageProcessorPil(do_convert_rgb=convert)
        preprocessing = choose_preprocessing(image_processor, CPU)
        assert preprocessing.name.startswith("direct")
        assert_same(preprocessing, image_processor, [image])


def test_a_prepared_image_is_small_and_the_models_input_contiguous() -> None:
    preprocessing = choose_preprocessing(CLIPImageProcessorPil(), CPU)
    pixels = preprocessing.prepare(drawn((300, 200)))
    assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)
    values = preprocessing.collate([pixels, pixels])["pixel_values"]
    assert (values.shape, values.dtype, values.is_contiguous()) == ((2, 3, 224, 224), torch.float32, True)


@pytest.mark.parametrize("image_processor", [CLIPImageProcessorPil(), ConvNextImageProcessorPil()], ids=type)
def test_many_threads_prepare_what_one_does(image_processor: Any) -> None:
    preprocessing = choose_preprocessing(image_processor, CPU)
    images = [drawn((50 + n, 90 - n)) for n in range(40)]
    with ThreadPoolExecutor(8) as threads:
        many = preprocessing.collate(list(threads.map(preprocessing.prepare, images)))
    one = preprocessing.collate([preprocessing.prepare(image) for image in images])
    assert all(torch.equal(many[name], one[name]) for name in one)


def test_an_image_is_left_as_it_was() -> None:
    image = drawn((50, 40))
    before = image.tobytes()
    choose_preprocessing(CLIPImageProcessorPil(), CPU).prepare(image)
    assert (image.size, image.tobytes()) == ((50, 40), before)


@pytest.mark.parametrize(
    ("size", "side"),
    [
        ({"shortest_edge": 224}, 224),
        ({"height": 384, "width": 384}, 384),
        ({"height": 20, "width": 40}, 40),  # an upright image's short side
    ],
)
def test_the_side_is_the_most_pixels_that_a_short_side_is_resized_to(size: dict[str, int], side: int) -> None:
    assert side_of(choose_preprocessing(CLIPImageProcessorPil(size=size), CPU)) == side


def test_an_image_that_is_not_resized_has_no_side() -> None:
    assert side_of(choose_preprocessing(CLIPImageProcessorPil(do_resize=False), CPU)) is None


class MirrorsBeforeItResizes(CLIPImageProcessorPil):
    def resize(self, image: np.ndarray[Any, Any], *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        return super().resize(image[..., ::-1], *args, **kwargs)


class DarkensLargeImages(CLIPImageProcessorPil):
    """Differs where no small probe would show it."""

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        values: np.ndarray[Any, Any] = super().process_image(image, *args, **kwargs)
        return values // 2 if values.shape[-1] > 400 else values


class Dims(SiglipImageProcessorPil):
    def rescale(self, image: np.ndarray[Any, Any], scale: float, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        return super().rescale(image, 0.9 * scale, *args, **kwargs)


class Inherits(DarkensLargeImages):
    """A class with no methods of its own, whose parent has one."""


SMALL = crop(32, 32)

# Each, and why it is not what the direct way can do.
OTHERS: list[tuple[Any, str]] = [
    (ConvNextImageProcessorPil(size={"shortest_edge": 32}), "methods of its own: "),
    (MirrorsBeforeItResizes(), "methods of its own: resize"),
    (DarkensLargeImages(), "methods of its own: process_image"),
    (Dims(), "methods of its own: rescale"),
    (Inherits(), "methods of its own: process_image"),
]
if HAS_BACKENDS:
    both_edges, most = {"shortest_edge": 32, "longest_edge": 60}, {"max_height": 32, "max_width": 32}
    patches = image_processor_class("Siglip2ImageProcessor")(patch_size=8, max_num_patches=16)
    OTHERS += [
        (patches, "methods of its own: _preprocess"),
        (CLIPImageProcessorPil(size=both_edges, **SMALL), "resizes to {'longest_edge': 60,"),
        (CLIPImageProcessorPil(size=most, **SMALL), "resizes to {'max_height': 32,"),
        (CLIPImageProcessorPil(**SMALL, do_pad=True, pad_size={"height": 40, "width": 40}), "pads images"),
    ]
else:  # every class has methods of its own, and three of them are known
    OTHERS = [(other, "steps are not known with this version") for other, _ in OTHERS]


@pytest.mark.parametrize(("image_processor", "why"), OTHERS, ids=lambda value: type(value).__name__)
def test_an_image_processor_with_other_steps_is_used_as_it_is(
    image_processor: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    preprocessing = choose_preprocessing(image_processor, CPU)
    assert preprocessing.name.startswith("transformers")
    assert preprocessing.resizing is None
    assert f"the checkpoint's {type(image_processor).__name__} as it is" in caplog.text
    assert why in caplog.text
    found = preprocessing.collate([preprocessing.prepare(image) for image in IMAGES])
    for key, value in each_alone(image_processor, IMAGES).items():
        assert torch.equal(found[key], value)


def moved(values: dict[str, Any]) -> None:
    values["pixel_values"] = values["pixel_values"].roll(1, -1)


def a_little_brighter(values: dict[str, Any]) -> None:
    values["pixel_values"] = values["pixel_values"] + 1e-6


def with_a_mask(values: dict[str, Any]) -> None:
    values["pixel_mask"] = torch.ones(1)


@pytest.mark.parametrize("change", [moved, a_little_brighter, with_a_mask])
def test_nothing_is_taken_on_trust(change: Any, caplog: pytest.LogCaptureFixture) -> None:
    """By its class and its settings it is OpenAI's; only what it gives for images shows that it is not."""
    image_processor = CLIPImageProcessorPil()
    preprocess = image_processor.preprocess

    def changed(images: Any, **options: Any) -> Any:
        values = preprocess(images, **options)
        if options.get("do_resize") is None:  # whole images, and not what is asked of single values
            change(values)
        return values

    image_processor.preprocess = changed
    caplog.set_level(logging.INFO)
    assert choose_preprocessing(image_processor, CPU).name.startswith("transformers")
    assert "the direct way gives other values for an image of" in caplog.text


def test_an_image_processor_that_fails_is_left_to_fail_in_its_own_words() -> None:
    image_processor = CLIPImageProcessorPil(image_mean=[0.5, 0.5])
    preprocessing = choose_preprocessing(image_processor, CPU)
    with pytest.raises(ValueError, match="mean must have 3 elements"):
        preprocessing.prepare(drawn((5, 5)))


def test_one_that_is_no_image_processor_of_transformers_is_only_called() -> None:
    def fives(images: Image.Image, return_tensors: str, **_: Any) -> dict[str, torch.Tensor]:
        return {"pixel_values": torch.full((1, 3, 2, 2), 5.0)}

    preprocessing = choose_preprocessing(fives, CPU)
    assert preprocessing.name.startswith("transformers")
    assert preprocessing.collate([preprocessing.prepare(drawn((5, 5)))])["pixel_values"].unique().item() == 5
