"""The proof that an output is complete, and of what it was made: written beside it, after it."""

from __future__ import annotations

import base64
import zlib
from array import array
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from clip_operator.request import EvaluationRequest, Requester
from clip_operator.storage import Storage, canonical

_MOST_BYTES = 4 << 20


class _Record(BaseModel):
    # a manifest of a later version may have more fields; what is known of it can still be read
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class ObjectVersion(_Record):
    """One version of one object in the store. Two spellings of its URI are equal."""

    uri: str
    size: int = Field(description="Bytes.")
    etag: str = Field(description="Empty where the store tells no versions apart.")

    def is_surely(self, other: ObjectVersion) -> bool:
        """Tell whether what was found of this version holds for the other: they are one, and not only alike in size."""
        return bool(self.etag) and self == other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectVersion) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, int, str]:
        return canonical(self.uri), self.size, self.etag


class RowCounts(_Record):
    """How many rows the input has, and what became of them. Every row is in the output, whatever its fate."""

    total: int
    scored: int
    failed: int
    failures: dict[str, int] = Field(description="Rows without a score, by reason.")
    truncated_texts: int = Field(description="Scored rows whose text was longer than the model reads.")
    resumed: int = Field(0, description="Rows whose result an earlier try or run had left and this one took over.")
    reused: int = Field(0, description="Rows whose score was in the score store.")


class ScoreStatistics(_Record):
    """The scored rows' scores: exact mean, deviation and extremes; quantiles to 0.0001."""

    count: int
    mean: float
    standard_deviation: float
    minimum: float
    maximum: float
    quantiles: dict[str, float] = Field(description="Keys p01, p05, p25, p50, p75, p95, p99.")


FOLDS, BINS = 2, 10_000
GROUPS, COARSE_BINS = 32, 1000
_COUNTS = FOLDS * BINS + GROUPS * COARSE_BINS
_BYTES_A_COUNT = 8


def _from_text(value: object) -> object:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


def _checked_counts(data: bytes) -> bytes:
    try:
        counts = array("q", zlib.decompressobj().decompress(data, _COUNTS * _BYTES_A_COUNT + 1))
    except zlib.error as error:
        raise ValueError(f"they are damaged: {error}") from None
    if len(counts) != _COUNTS or min(counts) < 0:
        raise ValueError("these are not as many counts as there are bins")
    return data


GroupedCounts = Annotated[
    bytes,
    BeforeValidator(_from_text),
    AfterValidator(_checked_counts),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), when_used="json"),
]
"""How many scores lie in each bin, by the image that they belong to, so that it can be told how far a statistic depends
on which images there are: 52,000 little-endian 64-bit integers, compressed by zlib; in JSON as base64.

First those of two halves of the images, in 10,000 bins each; then those of 32 groups of images, in 1,000 bins each. A
mismatched pair belongs to the group of its image and, if that is another, to the one of the image whose text it has.
"""


class ScoreSums(_Record):
    """What the statistics of many shards are put together from, without a rounding that depends on how they were cut.

    ``total`` and ``squares`` are whole numbers, in decimal digits because readers of JSON round large ones: the sums of
    scores in units of 2^-64 and of their squares in units of 2^-128.
    """

    total: str
    squares: str
    matched: GroupedCounts
    images: list[int] = Field(description="The least hashes of the scored rows' images, by which they are counted.")


class Histograms(_Record):
    """How many matched and mismatched pairs score how much, in bins of equal width, from ``start`` on."""

    start: float
    bin_width: float
    matched: list[int]
    mismatched: list[int]


Interval = Annotated[
    tuple[float, float],
    Field(description="Of 100 such intervals, of other images of the same kind, some 95 hold the true value."),
]

FEW_IMAGES = 100


class Calibration(_Record):
    """What a score of this model says on this data: the scored rows beside *mismatched* pairs, which are the rows'
    images, each with the texts of other rows.
    """

    mismatched: ScoreStatistics
    images: int = Field(description="How many different images the scored rows have: exactly up to 127, else to 9 %.")
    auc: float = Field(
        description="The chance that a row scores higher than a mismatched pair, ties counting half: the area under "
        "the ROC curve. 0.5 says nothing, 1 tells all apart."
    )
    auc_interval: Interval
    threshold: float = Field(
        description="The score that tells rows from mismatched pairs best: true minus false accept rate is greatest "
        "(Youden's J)."
    )
    false_accept_rate: float = Field(
        description="Of mismatched pairs like these, the share that scores the threshold or more: as counted, and "
        "corrected for the threshold's having been chosen by the same pairs."
    )
    false_accept_interval: Interval
    false_reject_rate: float = Field(
        description="Of rows like these, the share that scores less than the threshold, corrected likewise."
    )
    false_reject_interval: Interval
    histograms: Histograms

    @property
    def uncertain(self) -> bool:
        """Whether there are so few images that the threshold and the rates would be others with other images."""
        return self.images < FEW_IMAGES


class FilteredStep(_Record):
    """The step beside the output that holds only the rows with at least ``min_score``."""

    output: ObjectVersion
    min_score: float
    rows: int


class ModelProvenance(_Record):
    """Which model gave the scores, exactly enough to load the same again."""

    name: str
    source: str = Field(description="Where it was found: builtin, folder, s3, hub.")
    revision: str | None = Field(description="The hub commit, where it came from the hub.")
    digest: str = Field(description="SHA-256 over the checkpoint's files.")
    architecture: str
    image_processor: str
    preprocessing: str = Field(
        "transformers",
        description="Who made the pixels: the image processor itself, or direct: our own code, proved equal.",
    )
    tokenizer: str
    max_text_tokens: int
    parameters: int
    precision: str


class DeviceProvenance(_Record):
    """Where the model ran, and why there."""

    name: str
    reason: str


class Throughput(_Record):
    """How fast the rows were scored, and what would have made it faster. Loading the model is not in it, nor what comes
    when all rows are written to the local disk.
    """

    seconds: float = Field(description="From the first row read to the last row written.")
    rows_per_second: float
    time_shares: dict[str, float] = Field(
        description="Parts of the time in which the model computed (encode), or waited for rows to be read and "
        "tokenized, images to be fetched, images to be decoded and resized, rows to be written, or results to be saved "
        "for the next try (save)."
    )
    images_encoded: int = Field(description="Distinct images that were asked for.")
    images_reused: int = Field(description="Rows whose image was an earlier row's.")
    texts_encoded: int
    texts_reused: int
    batch_size: int = Field(description="Images that went through the model together.")


class EarlierWork(_Record):
    """Rows whose result was taken over, and what computed it."""

    rows: int
    device: str
    libraries: dict[str, str]


class Shards(_Record):
    """The shards that an output was put together from."""

    plan: str = Field(description="Digest of the request, the input's version and how it was cut.")
    count: int
    scored_by: list[EarlierWork] = Field(description="What computed the scores, and how many rows each.")


class Scored(_Record):
    """What scoring the rows of a step came to: by one task or, put together, by many."""

    rows: RowCounts
    scores: ScoreStatistics | None = Field(description="None where no row was scored.")
    calibration: Calibration | None = Field(None, description="None where no mismatched pair could be made.")
    model: ModelProvenance
    device: DeviceProvenance
    throughput: Throughput | None = None
    libraries: dict[str, str] = Field(description="Versions of what computed the scores.")
    earlier_work: list[EarlierWork] = Field([], description="Where the resumed rows were scored.")
    sums: ScoreSums | None = Field(None, description="Of a shard: what it adds to the whole output's statistics.")
    mismatched: GroupedCounts = Field(
        description="The mismatched pairs' scores: what a merge, or a run that takes scores over, makes its own of."
    )
    shards: Shards | None = Field(None, description="Of an output that several workers scored.")


class _Step(_Record):
    manifest_version: Literal[1] = 1
    status: Literal["complete"] = "complete"
    input: ObjectVersion
    output: ObjectVersion
    output_columns: list[str] = Field(description="Columns with scores; the reasons are in request.error_key.")
    filtered: FilteredStep | None = None


class EvaluationManifest(Scored, _Step):
    """What one evaluation read, did and wrote. ``status`` is there for readers of the JSON; it has one value."""

    request: EvaluationRequest
    started_at: datetime
    finished_at: datetime
    duration_seconds: float
    confirmed_by: Requester | None = Field(
        None, description="The last task instance that asked for the same work and found it done."
    )
    confirmed_at: datetime | None = None

    @property
    def published_at(self) -> datetime:
        """When this manifest was written."""
        return self.confirmed_at or self.finished_at

    @property
    def asked_for_by(self) -> tuple[Requester | None, Requester | None]:
        """Who had the work done, and who has last found it done."""
        return self.request.requested_by, self.confirmed_by

    def answers(self, request: EvaluationRequest) -> bool:
        """Tell whether it was this request's task instance that did the work, or last found it done."""
        return request.requested_by in self.asked_for_by and self.request.fingerprint() == request.fingerprint()

    def proves(self, request: EvaluationRequest, source: ObjectVersion, digest: str) -> bool:
        """Tell whether the output is what ``request`` would write from ``source`` with the model of this digest."""
        return (
            self.request.fingerprint() == request.fingerprint()
            and self.input.is_surely(source)
            and self.model.digest == digest
        )


def parse_manifest(data: bytes) -> EvaluationManifest | None:
    """Return the manifest that the JSON text holds, or None if it is not one of ours."""
    try:
        return EvaluationManifest.model_validate_json(data)
    except ValidationError:
        return None


def read_manifest(storage: Storage, uri: str) -> EvaluationManifest | None:
    """Return the manifest that stands at ``uri``, or None if what is there is not one of ours.

    :raises ObjectNotFound: there is nothing.
    :raises StorageError: it cannot be read, or is larger than any of ours.
    """
    return parse_manifest(storage.read(uri, _MOST_BYTES))


def describe_calibration(calibration: Calibration) -> str:
    """Return what a calibration says, as one line of a log."""
    few = f". All of it is uncertain, of {calibration.images:,} different images" if calibration.uncertain else ""
    return (
        f"Beside {calibration.mismatched.count:,} mismatched pairs, whose mean is {calibration.mismatched.mean:.4f}, "
        f"the AUC is {calibration.auc:.4f} ({describe_interval(calibration.auc_interval)}); at the threshold "
        f"{calibration.threshold:.4f}, {_percent(calibration.false_accept_rate)} of such pairs would be accepted and "
        f"{_percent(calibration.false_reject_rate)} of such rows rejected{few}"
    )


def describe_interval(interval: Interval) -> str:
    """Return an interval in words."""
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
