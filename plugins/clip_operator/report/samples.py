"""Rows that stand for the others: the best and the worst pairs and some that could not be scored, for people to see."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from clip_operator.json_text import parse_json
from clip_operator.proof.manifest import Count, Share
from clip_operator.steps import samples_uri
from clip_operator.storage import ObjectNotFound, ObjectTooLarge, Storage

MOST_PAIRS = 8
"""How many best pairs are kept, and how many worst ones."""

MOST_FAILURES = 3
"""How many rows are kept for each reason why there is no score."""

_MOST_BYTES = 4 << 20
_MOST_REASONS = 100
_MOST_THUMBNAIL = 200_000  # characters; ours have a tenth of these

_CONFIG = ConfigDict(frozen=True, allow_inf_nan=False, str_max_length=8192)


class Sample(BaseModel):
    """One row, as much of it as a person wants to see."""

    model_config = _CONFIG

    row: Count | None = Field(
        description="From 1, in the whole input; of a shard of which it is not known where it begins, in the shard."
    )
    image: str = Field(description="What names the image, shortened and without secrets.")
    text: str | None = Field(description="The text, an excessive one's beginning; None where the row has none.")
    score: Share | None = None
    sentence: str | None = Field(None, description="Of a cut text, the sentence that agrees least with the image.")
    sentence_score: Share | None = None
    thumbnail: str | None = Field(
        None, max_length=_MOST_THUMBNAIL, description="A small JPEG in base64; None where none could be made."
    )
    detail: str | None = Field(None, description="Why the row has no score.")


class Samples(BaseModel):
    """Samples of one output.

    A row may be among the best and the worst where there are few.
    """

    model_config = _CONFIG

    best: list[Sample] = Field([], max_length=MOST_PAIRS, description="The highest score first.")
    worst: list[Sample] = Field([], max_length=MOST_PAIRS, description="The lowest score first.")
    failures: dict[str, Annotated[list[Sample], Field(max_length=MOST_FAILURES)]] = Field(
        {}, max_length=_MOST_REASONS, description="By reason, in the order of the rows."
    )


def read_samples(storage: Storage, output: str) -> Samples | None:
    """Return the samples of an output, or None if there are none that can be read."""
    try:
        return Samples.model_validate(parse_json(storage.read(samples_uri(output), _MOST_BYTES)))
    except (ObjectNotFound, ObjectTooLarge, ValueError):  # a model's own errors are ValueErrors
        return None
