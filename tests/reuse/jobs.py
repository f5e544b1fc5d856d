"""Jobs that use a score store, without a model: a row's score is drawn from a digest of the row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any

import numpy as np

from clip_operator.errors import Reason, RowError
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.proof.manifest import ModelProvenance
from clip_operator.request import EvaluationRequest, parse_request
from clip_operator.reuse import ScoreReuse, ScoreStore
from clip_operator.reuse.keys import ScoreKeys
from clip_operator.scoring import NO_PAIRS, PairedRows, RowResult, Rows
from clip_operator.scoring.mismatched import unpacked
from clip_operator.storage import Storage
from tests.in_threads import ImagesInThreads

Row = tuple[object, object]
"""An image reference and a text."""

_MODEL = ModelProvenance(
    name="m", source="folder", revision=None, digest="d", architecture="a", image_processor="i", tokenizer="t",
    max_text_tokens=77, parameters=1, precision="fp32",
)  # fmt: skip


_RUNS = count(1000)


def drawn(rows: int, start: int = 0) -> list[Row]:
    """Return rows whose images came with them, all different."""
    return [(b"image %d" % number, f"text {number}") for number in range(start, start + rows)]


def fresh(row: Row) -> RowResult:
    """Return what scoring this row gives; a text "bad" has no score."""
    if row[1] == "bad":
        return RowResult(None, error=RowError(Reason.IMAGE_UNREADABLE, "bad"))
    number = int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=4).digest(), "big")
    mismatched = bytes([number % 256, 0, 0]) + NO_PAIRS[3:]
    return RowResult(number / 2**32, truncated=number % 2 == 1, mismatched=mismatched)


def key_of(row: Row) -> bytes:
    """Return the key of a row of :func:`drawn`."""
    request = parse_request({"input": "i.jsonl", "output": "o.jsonl"})
    place = ImageLoader(Storage(), ImagePolicy(root="/nowhere")).locate(row[0])
    key = ScoreKeys(_MODEL, request).of(place.key, row[1])
    assert key is not None
    return key


class _NoWorkers(ImagesInThreads):
    """Say where images are; nothing is decoded."""

    def __init__(self, images: ImageLoader) -> None:
        self.locate = images.locate  # type: ignore[method-assign]


class Job:
    """One job after another over the same store."""

    def __init__(self, uri: str, storage: Storage, root: str = "/nowhere") -> None:
        self.uri = uri
        self.storage = storage
        self.root = root
        self.pairs = True
        """Whether rows are paired."""

    def run(
        self, rows: Sequence[Row], fetch: bool = False, reads: bool = True, run: int | None = None, **fields: Any
    ) -> list[bool]:
        """Score the rows; return for each whether its score came from the store. Its value is checked.

        :param fetch: fetch the images of new rows, as a scorer does.
        :param run: which run it is; by default a new one.
        :param fields: of the request and of the model.
        """
        model = _MODEL.model_copy(update={name: fields.pop(name) for name in ("digest", "precision") if name in fields})
        request: EvaluationRequest = parse_request(
            {"input": "i.jsonl", "output": "o.jsonl", "overwrite": not reads, **fields}
        )
        images = ImageLoader(self.storage, ImagePolicy(root=self.root))
        store = ScoreStore(self.storage, self.uri)
        reuse = ScoreReuse(store, model, request, self.storage, images, _NoWorkers(images))
        hits: list[bool] = []
        fetched: set[object] = set()
        unpaired: list[RowResult] = []
        for chunk in reuse.rows(_chunks(rows), f"{next(_RUNS) if run is None else run:016x}"):
            assert chunk.known is not None
            results = []
            for row, known in zip(chunk.content, chunk.known, strict=True):
                expected = fresh(row) if self.pairs else replace(fresh(row), mismatched=None)
                if known is None and fetch and row[0] not in fetched:
                    location = images.locate(row[0])
                    if images.readable_uri(location) is not None:
                        reuse.images.saw(location, images.fetch_version(location)[0])
                    fetched.add(row[0])
                assert known is None or replace(known, mismatched=expected.mismatched) == expected
                hits.append(known is not None)
                results.append(known or expected)
            unpaired += results  # as the scorer pairs them: when all rows of a segment are there
            reuse.save(chunk, results, _paired(unpaired if chunk.ends_segment else []))
            if chunk.ends_segment:
                unpaired.clear()
        reuse.save_last(_paired(unpaired))
        assert reuse.reused == sum(hits)
        return hits


def _paired(results: Sequence[RowResult]) -> PairedRows:
    codes = unpacked([result.mismatched for result in results])
    return PairedRows(np.zeros(len(results), np.int64), np.zeros(len(results)), codes)


def _chunks(rows: Sequence[Row]) -> Iterator[Rows[list[Row]]]:
    left = iter(rows)
    seen = 0
    while chunk := list(islice(left, 256)):
        seen += len(chunk)
        yield Rows(chunk, [row[0] for row in chunk], [row[1] for row in chunk], None, seen % 4096 == 0)
