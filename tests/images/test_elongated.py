"""Long strips: the model sees their middle, pixel for pixel that of the whole resized image, which is never made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_operator.errors import Reason, RowError
from clip_operator.resizing import Resizing
from tests.images.pictures import encoded
from tests.images.workers.test_workers import as_here, prepared, workers_for

FILTERS = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.NEAREST]


def strip(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("size", [(3001, 10), (10, 3001), (1000, 1), (1, 1000), (20_001, 80), (80, 20_001)])
def test_the_middle_is_that_of_the_whole(size: tuple[int, int], resample: int) -> None:
    image, short = strip(*size), min(size)
    whole = image.resize((224 * size[0] // short, 224 * size[1] // short), resample)
    for width, height in ((224, 224), (200, 180), (240, 240)):
        left, top = (whole.width - width) // 2, (whole.height - height) // 2
        expected = whole.crop((left, top, left + width, top + height))
        assert Resizing(224, None, resample, (width, height), False).apply(image).tobytes() == expected.tobytes()


def test_a_strip_has_pixels_where_images_come_to_one_size_and_else_is_refused(tmp_path: Path) -> None:
    data = [encoded(strip(*size)) for size in ((9000, 10), (10, 9000), (1001, 1))]
    uncropped = Resizing(shortest_edge=32, size=None, resample=3, crop=None, onto_white=True)
    with workers_for(str(tmp_path), most=1) as workers:
        wide, tall, too_thin = prepared(workers, list(data))
        [large] = prepared(workers, list(data[:1]), Resizing(1024, None, 3, (1024, 1024), True))
        refused = prepared(workers, list(data), uncropped) + prepared(workers, list(data), None)
        assert workers.thumbnail(workers.locate(data[0])).startswith(b"\xff\xd8")
    assert [wide.result, tall.result] == [as_here(each) for each in data[:2]]
    assert isinstance(large.result, bytes)
    assert len(large.result) == 3 * 1024 * 1024
    for task, ratio in ((too_thin, "1,000:1"), *((each, "200:1") for each in refused)):
        assert isinstance(task.error, RowError)
        assert task.error.reason is Reason.IMAGE_TOO_LARGE
        assert ratio in task.error.detail
