"""Images are told apart by how rows refer to them, and counted in little memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_operator.proof.manifest import GROUPS
from clip_operator.scoring import image_hashes
from clip_operator.scoring.clusters import DistinctImages, group_of

REFERENCES = [
    "a.jpg",
    "b.jpg",
    b"a.jpg" * 1000,
    {"bytes": b"x", "path": "a.jpg"},
    {"bytes": None, "path": "c.jpg"},
    None,
]


def test_rows_that_refer_to_an_image_alike_share_it_and_others_do_not() -> None:
    hashes = image_hashes(REFERENCES)
    assert len(set(hashes.tolist())) == len(REFERENCES)
    assert (image_hashes([*REFERENCES]) == hashes).all()
    assert image_hashes([{"path": "c.jpg"}, "c.jpg"]).tolist() == [hashes[4]] * 2
    assert image_hashes(["\ud800"])[0] != image_hashes(["\udfff"])[0]  # halves of surrogate pairs, as JSON may hold


def test_groups_are_about_as_large_as_each_other_for_names_that_count_up() -> None:
    groups = group_of(image_hashes([f"images/{number:06}.jpg" for number in range(32_000)]))
    counts = np.bincount(groups, minlength=GROUPS)
    assert len(counts) == GROUPS
    assert 850 < min(counts) <= max(counts) < 1150


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=120), st.integers(1, 40))
def test_few_images_are_counted_exactly_however_often_they_come_and_however_they_are_cut(
    numbers: list[int], size: int
) -> None:
    hashes = image_hashes([f"{number}.png" for number in numbers])
    seen, merged = DistinctImages(), DistinctImages()
    for start in range(0, len(hashes), size):
        part = DistinctImages()
        for each in (seen, part):
            each.add(hashes[start : start + size])
        merged.add(np.array(part.least, np.int64))
    assert seen.count() == merged.count() == len(set(numbers))


@pytest.mark.parametrize("images", [127, 1000, 100_000])
def test_many_images_are_counted_to_some_nine_percent(images: int) -> None:
    counted = []
    for data_set in range(20 if images < 10_000 else 3):
        seen = DistinctImages()
        seen.add(image_hashes([f"{data_set}/{number}.png" for number in range(images)]))
        counted.append(seen.count())
    if images == 127:
        assert set(counted) == {127}
    assert np.sqrt(np.mean((np.array(counted) / images - 1) ** 2)) < 0.13
