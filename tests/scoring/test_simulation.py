"""What a calibration states is what is true: of data of which all is known, thousands of times over.

The scenes are those that ``builtin://shapes-clip`` knows. What is true is what all their pairs come to.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clip_operator import model
from clip_operator.proof.manifest import Calibration
from clip_operator.scoring import RowResult, Tally
from clip_operator.scoring.mismatched import PairMaker
from clip_operator.scoring.pairs import Embedded
from clip_operator.storage import Storage
from demo.scenes import describe, draw, sample_scene, wording
from tests.conftest import SHAPES

SCENES = 1600
CAPTIONS = 5
WRONG = 0.08
"""Share of the rows whose caption is another scene's, as in real data; else rows and pairs fall apart too clearly."""


class Population(NamedTuple):
    """Scenes, of which data sets are drawn.

    :param images: float32 [scenes, dimensions].
    :param texts: of five captions each: float32 [scenes, 5, dimensions].
    :param words: the captions.
    :param classes: the shape that is seen first.
    """

    images: NDArray[np.float32]
    texts: NDArray[np.float32]
    words: list[list[str]]
    classes: list[str]


@pytest.fixture(scope="module")
def population() -> Population:
    encoder = model.load_encoder(model.find_checkpoint(SHAPES, None, Storage()), model.choose_device("cpu"), "fp32", 64)
    images, words, classes = [], [], []
    for start in range(0, SCENES, 64):
        pixels = []
        for number in range(start, min(start + 64, SCENES)):
            drawn = random.Random(70_000_000 + number)
            scene = sample_scene(drawn)
            pixels.append(encoder.preprocess(draw(scene, 64).convert("RGB")))
            words.append([wording(describe(scene, drawn), drawn) for _ in range(CAPTIONS)])
            classes.append(scene.things[0].shape)
        images.append(encoder.encode_images(pixels).numpy())
    tokens = encoder.tokenize([caption for captions in words for caption in captions])
    texts = torch.cat([encoder.encode_texts(tokens[at : at + 64]) for at in range(0, len(tokens), 64)]).numpy()
    return Population(np.concatenate(images), texts.reshape(SCENES, CAPTIONS, -1), words, classes)


class Rows(NamedTuple):
    """A data set: of each row its image's scene, the scene of its caption, and which of the captions it is."""

    image: NDArray[np.intp]
    text: NDArray[np.intp]
    caption: NDArray[np.intp]
    names: Sequence[str]

    def scores(self, of: Population) -> NDArray[np.float32]:
        """Return what each image scores with each text: float32 [rows, rows]."""
        return np.asarray((of.images[self.image] @ of.texts[self.text, self.caption].T + 1) / 2)

    def true_pairs(self, of: Population) -> NDArray[np.bool_]:
        """Tell which image and text are of different scenes and different words."""
        words = np.unique([of.words[s][c] for s, c in zip(self.text, self.caption, strict=True)], return_inverse=True)[
            1
        ]
        return np.asarray((self.image[:, None] != self.image[None, :]) & (words[:, None] != words[None, :]))


def drawn(count: int, seed: int, captions: int = 1) -> Rows:
    """Draw so many scenes, each in as many rows as it has captions."""
    generator = np.random.default_rng(seed)
    image = np.repeat(generator.choice(SCENES, count, replace=False), captions)
    wrong = generator.random(len(image)) < WRONG
    text = np.where(wrong, generator.choice(SCENES, len(image)), image)
    return Rows(image, text, np.tile(np.arange(captions), count), [f"{scene}.png" for scene in image])


def reordered(rows: Rows, key: Sequence[str]) -> Rows:
    order = np.argsort(np.array(key), kind="stable")
    return Rows(rows.image[order], rows.text[order], rows.caption[order], [rows.names[at] for at in order])


def calibrated(rows: Rows, of: Population, segment: int = 4096) -> Calibration:
    """Calibrate a data set as the pipeline does, in chunks and segments."""
    images, texts = of.images[rows.image], of.texts[rows.text, rows.caption]
    own = np.clip(((images * texts).sum(axis=1) + 1) / 2, 0, 1)
    results = [RowResult(float(str(score))) for score in own]
    tally, maker = Tally(), PairMaker()
    for result in results:
        tally.add(result)
    for start in range(0, len(results), 256):
        part = slice(start, start + 256)
        embedded = Embedded(np.arange(len(results[part])), images[part], texts[part])
        maker.add(rows.names[part], results[part], embedded)
        if (start + 256) % segment == 0:
            maker.end_block()
    maker.end_block()
    tally.add_pairs(maker.take())
    found = tally.calibration()
    assert found is not None
    return found


def area(matched: NDArray[np.float32], mismatched: NDArray[np.float32]) -> float:
    low, high = (np.searchsorted(np.sort(mismatched), matched, side) for side in ("left", "right"))
    return float((low + high).mean() / 2 / len(mismatched))


def at_random(of: Population) -> Rows:
    return drawn(1000, 1)


def sorted_by_caption(of: Population) -> Rows:
    rows = drawn(1500, 2)
    return reordered(rows, [of.words[scene][0] for scene in rows.text])


def sorted_by_class(of: Population) -> Rows:
    rows = drawn(1500, 3)
    return reordered(rows, [of.classes[scene] for scene in rows.image])


def five_captions(of: Population) -> Rows:
    return drawn(300, 4, captions=5)


def copied(of: Population) -> Rows:
    """Of 60 pictures, each under ten names: by far the most of what is at hand is a copy of something."""
    rows = drawn(60, 5, captions=2)
    image, text, caption = (np.concatenate([each] * 5) for each in (rows.image, rows.text, rows.caption))
    return Rows(image, text, caption, [f"{scene}-{number}.png" for number in range(5) for scene in rows.image])


def one_caption_for_many(of: Population) -> Rows:
    """The first 300 of 1,200 rows have one caption: with chunks of 256 rows, none of them had a partner."""
    rows = drawn(1200, 6)
    rows.text[:300] = rows.text[0]
    return rows


@pytest.mark.parametrize(
    "data", [at_random, sorted_by_caption, sorted_by_class, five_captions, copied, one_caption_for_many]
)
def test_the_auc_is_that_of_all_true_pairs(data: object, population: Population) -> None:
    """Whatever order rows are in, and however often they show the same."""
    assert callable(data)
    rows = data(population)
    scores, true = rows.scores(population), rows.true_pairs(population)
    found = calibrated(rows, population)
    assert found.auc == pytest.approx(area(scores.diagonal(), scores[true]), abs=0.005)


@dataclass(frozen=True)
class Truth:
    """Of rows as :func:`drawn` draws them, however many.

    :param matched: what scenes score with their own captions, sorted.
    :param mismatched: what they score with those of others, sorted. So do rows whose caption is wrong.
    """

    auc: float
    matched: NDArray[np.float32]
    mismatched: NDArray[np.float32]

    def rejects(self, threshold: float) -> float:
        right = float(np.searchsorted(self.matched, threshold)) / len(self.matched)
        return (1 - WRONG) * right + WRONG * (1 - self.accepts(threshold))

    def accepts(self, threshold: float) -> float:
        return 1 - float(np.searchsorted(self.mismatched, threshold)) / len(self.mismatched)


@pytest.fixture(scope="module")
def truth(population: Population) -> Truth:
    everything = Rows(np.arange(SCENES), np.arange(SCENES), np.zeros(SCENES, np.intp), [])
    scores = everything.scores(population)
    matched, mismatched = np.sort(scores.diagonal()), np.sort(scores[everything.true_pairs(population)])
    return Truth((1 - WRONG) * area(matched, mismatched) + WRONG * 0.5, matched, mismatched)


@pytest.mark.slow
def test_intervals_hold_the_true_value_as_often_as_they_say_and_rates_are_not_flattered(
    population: Population, truth: Truth
) -> None:
    """Of 300 data sets of each size."""
    held = []
    for rows in (120, 200, 500):
        errors = []
        for seed in range(300):
            found = calibrated(drawn(rows, 1000 * rows + seed), population)
            true = (truth.auc, truth.accepts(found.threshold), truth.rejects(found.threshold))
            stated = (found.auc, found.false_accept_rate, found.false_reject_rate)
            intervals = (found.auc_interval, found.false_accept_interval, found.false_reject_interval)
            held.append([low <= value <= high for value, (low, high) in zip(true, intervals, strict=True)])
            errors.append(np.array(stated) - true)
        bias, spread = np.mean(errors, axis=0), np.sqrt(np.mean(np.square(errors), axis=0))
        assert (abs(bias) < 0.005).all(), (rows, bias)
        assert (spread < (0.035, 0.01, 0.04) if rows < 200 else spread < (0.02, 0.01, 0.025)).all(), (rows, spread)
    auc, accepts, rejects = np.mean(held, axis=0)
    assert 0.92 < auc < 0.98
    assert 0.92 < rejects < 0.98
    assert 0.95 < accepts < 1, "its interval is a little too wide"
