"""The machine's limit: how fast it multiplies matrices of the model's sizes, and how much of that a row takes."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from benchmarks.contestant import Answer, Reply, Settings, serve
from clip_operator.model import choose_device, find_checkpoint, load_encoder
from clip_operator.model.packed_linear import PackedLinear, can_pack
from clip_operator.storage import Storage

Multiply = Callable[[], Any]
Products = Callable[[], Iterator[Multiply]]
Layer = tuple[int, int]
"""Input and output features."""


def load(settings: Settings) -> Answer:
    """Load the model, count what an image and a text take, and make matrices as large as its layers.

    :param settings: ``model``, ``texts``; ``seconds``, how long each way to multiply is measured.
    """
    seconds: float = settings["seconds"]
    encoder = load_encoder(find_checkpoint(settings["model"], None, Storage()), choose_device("cpu"), "fp32")
    flops_of_an_image, flops_of_a_text = _flops(settings["model"], settings["texts"])
    layers, tokens = _image_layers(settings["model"])
    batch_rows = encoder.image_batch * tokens
    ways = {"torch.mm": _plain, **({"oneDNN": _packed} if can_pack() else {})}
    flops = 2.0 * sum(inputs * outputs * count for (inputs, outputs), count in layers.items())  # of a matrix of one row

    def answer(_: Settings) -> Reply:
        """Multiply in each way."""
        small = _passes_per_second(list(_plain(layers, tokens)), seconds, threading.Barrier(1))
        with encoder.lane_pool() as lanes:
            rates = {
                name: {
                    title: flops * batch_rows * _in_lanes(lanes, cores, partial(products, layers, batch_rows), seconds)
                    for title, cores in (("one_core", 1), ("all_cores", encoder.lanes))
                }
                for name, products in ways.items()
            }
        return {
            "flops_of_an_image": flops_of_an_image,
            "flops_of_a_text": flops_of_a_text,
            "rows_of_a_batch": batch_rows,
            "cores": encoder.lanes,
            "flops_per_second": rates,
            "flops_per_second_of_one_image": flops * tokens * small,
        }

    return answer


def _plain(layers: Counter[Layer], rows: int) -> Iterator[Multiply]:
    """Yield the products of layers by PyTorch's default library."""
    for (inputs, outputs), count in layers.items():
        values, weight, product = torch.rand(rows, inputs), torch.rand(outputs, inputs), torch.empty(rows, outputs)
        for _ in range(count):
            yield partial(torch.mm, values, weight.t(), out=product)


def _packed(layers: Counter[Layer], rows: int) -> Iterator[Multiply]:
    """Yield the products of layers by oneDNN, as the package computes them."""
    for (inputs, outputs), count in layers.items():
        values, layer = torch.rand(rows, inputs), PackedLinear(torch.nn.Linear(inputs, outputs))
        for _ in range(count):
            yield partial(layer, values)


def _in_lanes(lanes: Executor, count: int, products: Products, seconds: float) -> float:
    """Return how often a second all the products are computed, by ``count`` threads of ``lanes`` together."""
    together = threading.Barrier(count)

    def passes_per_second() -> float:
        return _passes_per_second(list(products()), seconds, together)

    working = [lanes.submit(passes_per_second) for _ in range(count)]
    return sum(each.result() for each in working)


def _passes_per_second(products: Sequence[Multiply], seconds: float, together: threading.Barrier) -> float:
    """Multiply one after another, again and again, beginning when all the threads are ready."""
    with torch.inference_mode():
        for multiply in products:
            multiply()
        together.wait()
        began, passes = time.perf_counter(), 0
        while time.perf_counter() - began < seconds or not passes:
            for multiply in products:
                multiply()
            passes += 1
        return passes / (time.perf_counter() - began)


def _image_layers(folder: str) -> tuple[Counter[Layer], int]:
    """Return the sizes of the image tower's linear layers, and how many tokens it makes of an image."""
    vision: Any = CLIPModel.from_pretrained(folder).vision_model
    linear = (layer for layer in vision.modules() if isinstance(layer, torch.nn.Linear))
    return Counter((layer.in_features, layer.out_features) for layer in linear), vision.embeddings.num_positions


def _flops(folder: str, texts: Sequence[str]) -> tuple[int, float]:
    """Return the floating-point operations of an image and, on average and without padding, of a text."""
    from torch.utils.flop_counter import FlopCounterMode

    model: Any = CLIPModel.from_pretrained(folder).eval()
    side = AutoImageProcessor.from_pretrained(folder, backend="pil").crop_size["height"]
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def counted(forward: Callable[[], Any]) -> int:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            forward()
        return int(counter.get_total_flops())

    lengths = [len(ids) for ids in tokenizer(texts, truncation=True)["input_ids"]]
    end = tokenizer.eos_token_id
    by_length = {
        length: counted(partial(model.get_text_features, input_ids=torch.full((1, length), end)))
        for length in set(lengths)
    }
    image = counted(partial(model.get_image_features, pixel_values=torch.zeros(1, 3, side, side)))
    return image, statistics.fmean(by_length[length] for length in lengths)


if __name__ == "__main__":
    serve(load)
