"""The forward passes alone: every image and text is a tensor in memory, in the package's batches and lanes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from benchmarks.contestant import Answer, Reply, Settings, serve
from clip_operator.model import ClipEncoder, Tokens, choose_device, find_checkpoint, load_encoder
from clip_operator.scoring import CHUNK_ROWS
from clip_operator.storage import Storage

InputT = TypeVar("InputT")


def load(settings: Settings) -> Answer:
    """Load the package's encoder, and preprocess all rows.

    :param settings: ``model``, ``device``, ``precision``, ``rows`` (pairs of an image's path and a caption).
    """
    checkpoint = find_checkpoint(settings["model"], None, Storage())
    encoder = load_encoder(checkpoint, choose_device(settings["device"]), settings["precision"])
    paths = [path for path, _ in settings["rows"]]
    with ThreadPoolExecutor() as threads:
        pixels = list(threads.map(lambda path: encoder.preprocess(Image.open(path).convert("RGB")), paths))
    image_batches = _batches(pixels, encoder.image_batch)
    text_batches = list(_text_batches(encoder, [text for _, text in settings["rows"]]))

    def answer(_: Settings) -> Reply:
        """Encode every image and every text once."""
        with encoder.lane_pool() as lanes:
            _warm_up(encoder, lanes)
            began = time.perf_counter()
            images = [lanes.submit(encoder.encode_images, batch) for batch in image_batches]
            texts = [lanes.submit(encoder.encode_texts, batch) for batch in text_batches]
            for encoded in (*images, *texts):
                encoded.result()
            seconds = time.perf_counter() - began
        return {
            "rows_per_second": len(pixels) / seconds,
            "seconds": seconds,
            "image_batch": encoder.image_batch,
            "lanes": encoder.lanes,
        }

    def _warm_up(encoder: ClipEncoder, lanes: ThreadPoolExecutor) -> None:
        for warm in [lanes.submit(encoder.encode_images, image_batches[0]) for _ in range(encoder.lanes)]:
            warm.result()

    return answer


def _text_batches(encoder: ClipEncoder, texts: Sequence[str]) -> Iterator[Sequence[Tokens]]:
    """Yield batches as the package makes them: of like length, the longest first, from the texts of one chunk."""
    for chunk in _batches(texts, CHUNK_ROWS):
        tokens: Sequence[Tokens] = sorted(encoder.tokenize(chunk), key=len, reverse=True)
        while tokens:
            size = encoder.text_batch(len(tokens[0]))
            yield tokens[:size]
            tokens = tokens[size:]


def _batches(inputs: Sequence[InputT], size: int) -> list[Sequence[InputT]]:
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]


if __name__ == "__main__":
    serve(load)
