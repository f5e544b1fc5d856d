"""The proof that an output is complete, and of what it was made: written beside it, after it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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


class ScoreSums(_Record):
    """What the statistics of many shards are put together from, without a rounding that depends on how they were cut.

    ``total`` and ``squares`` are whole numbers, in decimal digits because readers of JSON round large ones: the sums of
    scores in units of 2^-64 and of their squares in units of 2^-128.
    """

    total: str
    squares: str
    histogram: dict[int, int] = Field(description="How many scores lie in each ten thousandth of [0, 1].")
    mismatched: ScoreSums | None = Field(None, description="The same of the mismatched pairs.")


class Histograms(_Record):
    """How many matched and mismatched pairs score how much, in bins of equal width, from ``start`` on."""

    start: float
    bin_width: float
    matched: list[int]
    mismatched: list[int]


class Calibration(_Record):
    """What a score of this model says on this data: the scored rows beside *mismatched* pairs, which are the rows'
    images, each with the text of another row.
    """

    mismatched: ScoreStatistics
    auc: float = Field(
        description="The chance that a row scores higher than a mismatched pair, ties counting half: the area under "
        "the ROC curve. 0.5 says nothing, 1 tells all apart."
    )
    threshold: float = Field(
        description="The score that tells rows from mismatched pairs best: true minus false accept rate is greatest "
        "(Youden's J)."
    )
    false_accept_rate: float = Field(description="Share of mismatched pairs that score the threshold or more.")
    false_reject_rate: float = Field(description="Share of rows that score less than the threshold.")
    histograms: Histograms


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
