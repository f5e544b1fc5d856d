"""How many images and texts go through the model together, and what happens if they are too many."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPConfig

from clip_operator.model import ClipEncoder, choose_device, load_encoder
from clip_operator.model.batch_size import automatic_batch_size
from tests.conftest import SHAPES
from tests.model.conftest import Find


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    from clip_operator.model import find_checkpoint
    from clip_operator.storage import Storage

    return load_encoder(find_checkpoint(SHAPES, None, Storage()), choose_device("cpu"), "fp32")


@pytest.mark.parametrize(
    ("vision", "expected"),
    [
        ({"patch_size": 32}, 8),  # ViT-B/32
        ({"patch_size": 16}, 2),  # ViT-B/16
        ({"patch_size": 14, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}, 1),  # ViT-L/14
        ({"patch_size": 32, "image_size": 64, "intermediate_size": 128}, 16),
    ],
)
def test_on_a_cpu_a_batch_has_as_many_images_as_its_model_needs(
    encoder: ClipEncoder, vision: dict[str, int], expected: int
) -> None:
    assert automatic_batch_size(encoder, CLIPConfig(vision_config=vision), torch.device("cpu")) == expected


def test_a_number_that_was_asked_for_is_taken(find: Find) -> None:
    assert load_encoder(find(SHAPES), choose_device("cpu"), "fp32", 5).image_batch == 5


def test_shorter_texts_go_together_in_larger_numbers(encoder: ClipEncoder) -> None:
    sizes = [encoder.text_batch(tokens) for tokens in (1, 4, 8, 16, 32)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 4 * sizes[1]
    assert encoder.text_batch(10**6) == 1


class TooLittleMemory:
    """A model that has room for so many images at a time."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room = room
        self.error = error
        self.sizes: list[int] = []

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(pixel_values))
        if len(pixel_values) > self.room:
            raise self.error
        return pixel_values.flatten(1)[:, :4]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.5 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 3 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
        MemoryError("std::bad_alloc"),
    ],
    ids=["cuda", "mps", "cpu", "c++"],
)
def test_a_batch_that_does_not_fit_is_halved_and_so_are_those_after_it(
    find: Find, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    encoder = load_encoder(find(SHAPES), choose_device("cpu"), "fp32", 16)
    images = [encoder.preprocess(Image.new("RGB", (64, 64), (i * 9, 40, 200 - i * 9))) for i in range(16)]
    whole = TooLittleMemory(16, error)
    monkeypatch.setattr(encoder._model, "get_image_features", whole)
    expected = encoder.encode_images(images)

    little = TooLittleMemory(5, error)
    monkeypatch.setattr(encoder._model, "get_image_features", little)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(encoder.encode_images(images), expected)
        assert little.sizes == [16, 8, 4, 4, 4, 4]
        assert encoder.image_batch == 4
        little.sizes.clear()
        assert torch.equal(encoder.encode_images(images), expected)
    assert little.sizes == [4, 4, 4, 4]
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "A batch of 16 does not fit into the memory of cpu; from here on 8 at most",
        "A batch of 8 does not fit into the memory of cpu; from here on 4 at most",
    ]


def test_a_memory_too_small_for_one_image_is_said_in_words(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    from clip_operator.errors import JobError

    encoder = load_encoder(find(SHAPES), choose_device("cpu"), "fp32", 4)
    image = encoder.preprocess(Image.new("RGB", (64, 64)))
    none = TooLittleMemory(0, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.5 GiB.\nand more"))
    monkeypatch.setattr(encoder._model, "get_image_features", none)
    with pytest.raises(JobError, match="memory of cpu is too small for this model, even with a batch of one: CUDA out"):
        encoder.encode_images([image] * 3)


def test_what_is_no_lack_of_memory_is_not_tried_again(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(find(SHAPES), choose_device("cpu"), "fp32", 4)
    image = encoder.preprocess(Image.new("RGB", (64, 64)))
    broken = TooLittleMemory(0, RuntimeError("CUDA error: an illegal memory access was encountered"))
    monkeypatch.setattr(encoder._model, "get_image_features", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        encoder.encode_images([image] * 3)
    assert broken.sizes == [3]


REALLY_TOO_LITTLE = """
import resource, sys
import numpy as np, torch
from clip_operator.model import choose_device, find_checkpoint, load_encoder
from clip_operator.storage import Storage

torch.set_num_threads(1)
encoder = load_encoder(find_checkpoint("builtin://shapes-clip", None, Storage()), choose_device("cpu"), "fp32", 2048)
images = list(np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)) * 32
expected = encoder.encode_images(images[:64])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 27), -1))
found = encoder.encode_images(images)
assert torch.allclose(found, expected.repeat(32, 1), atol=1e-6)
print(encoder.image_batch)
"""


def test_a_process_whose_memory_is_really_too_small_goes_on_with_less(tmp_path: Path) -> None:
    """2,048 images at a time would take most of a gigabyte, and it may have 128 MiB more than it has."""
    done = subprocess.run(
        [sys.executable, "-c", REALLY_TOO_LITTLE], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) < 2048


def test_lanes_compute_in_one_thread_each_and_leave_no_trace(encoder: ClipEncoder) -> None:
    before = torch.get_num_threads()
    with encoder.lane_pool() as lanes:
        futures = [lanes.submit(torch.get_num_threads) for _ in range(8)]
        assert {future.result() for future in futures} == {1}
    assert torch.get_num_threads() == before
