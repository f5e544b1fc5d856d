"""The proof that an output is complete, and of what it was made: written beside it, after it."""

from __future__ import annotations

import base64
import logging
import zlib
from array import array
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from clip_operator.json_text import parse_json
from clip_operator.proof.signing import verified
from clip_operator.request import EmbeddingsType, EvaluationRequest, Requester, RowFilter
from clip_operator.storage import Storage, canonical, display

log = logging.getLogger(__name__)

_MOST_BYTES = 4 << 20


# What stands in a store is checked for what it can mean, and so that no sum of thousands overflows.
Count = Annotated[int, Field(ge=0, le=1 << 50)]
Share = Annotated[float, Field(ge=0, le=1)]
_Measured = Annotated[float, Field(ge=0, le=1e9)]

_MOST_NAMES = 500
"""How many reasons, libraries or columns there may be: several times as many as there are in any of ours."""


class _Record(BaseModel):
    # a manifest of a later version may have more fields; what is known of it can still be read
    model_config = ConfigDict(
        frozen=True, extra="ignore", protected_namespaces=(), allow_inf_nan=False, str_max_length=8192
    )


class ObjectVersion(_Record):
    """One version of one object in the store. Two spellings of its URI are equal."""

    uri: str
    size: int = Field(ge=0, le=1 << 60, description="Bytes.")
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

    total: Count
    scored: Count
    failed: Count
    failures: dict[str, Count] = Field(max_length=_MOST_NAMES, description="Rows without a score, by reason.")
    truncated_texts: Count = Field(description="Scored rows whose text was longer than the model reads.")
    unturned_images: Count = Field(
        0, description="Scored rows whose image is to be turned, as its EXIF says, and was scored as it is stored."
    )
    resumed: Count = Field(0, description="Rows whose result an earlier try or run had left and this one took over.")
    reused: Count = Field(0, description="Rows whose score was in the score store.")

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if self.scored + self.failed != self.total or sum(self.failures.values()) != self.failed:
            raise ValueError("these counts do not add up")
        return self


class ScoreStatistics(_Record):
    """The scored rows' scores: exact mean, deviation and extremes; quantiles to 0.0001."""

    count: Count
    mean: Share
    standard_deviation: Share
    minimum: Share
    maximum: Share
    quantiles: dict[str, Share] = Field(max_length=_MOST_NAMES, description="Keys p01, p05, p25, p50, p75, p95, p99.")


FOLDS, BINS = 2, 10_000
GROUPS, COARSE_BINS = 32, 1000
_COUNTS = FOLDS * BINS + GROUPS * COARSE_BINS
_BYTES_A_COUNT = 8
LEAST_HASHES, HASH_BITS = 128, 53  # bits: as many as a reader of JSON takes for a whole number


def _from_text(value: object) -> object:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


def _counts(data: bytes) -> array[int]:
    unpacking = zlib.decompressobj()
    try:
        counts = array("q", unpacking.decompress(data, _COUNTS * _BYTES_A_COUNT + 1))
    except zlib.error as error:
        raise ValueError(f"they are damaged: {error}") from None
    if not unpacking.eof or len(counts) != _COUNTS or min(counts) < 0 or sum(counts) > 1 << 50:
        raise ValueError("these are not as many counts as there are bins")
    return counts


def _checked_counts(data: bytes) -> bytes:
    _counts(data)
    return data


Base64 = Annotated[
    bytes,
    BeforeValidator(_from_text),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), when_used="json"),
]
"""Bytes that are base64 in JSON."""

GroupedCounts = Annotated[Base64, AfterValidator(_checked_counts)]
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

    total: str = Field(pattern="^[0-9]{1,40}$")
    squares: str = Field(pattern="^[0-9]{1,60}$")
    matched: GroupedCounts
    images: list[Annotated[int, Field(ge=0, lt=1 << HASH_BITS)]] = Field(
        max_length=LEAST_HASHES, description="The least hashes of the scored rows' images, by which they are counted."
    )

    def are_of(self, scores: int) -> bool:
        """Tell whether these can be the sums of so many scores in [0, 1]."""
        total, squares, matched = int(self.total), int(self.squares), sum(_counts(self.matched)[: FOLDS * BINS])
        # Cauchy and Schwarz; also between sums of such sums.
        are_sums = total * total <= scores * squares and squares <= total << 64 and total <= scores << 64
        return are_sums and matched == scores and (bool(self.images) == bool(scores))


_MOST_BARS = 1000  # ours have up to 60


class Histograms(_Record):
    """How many matched and mismatched pairs score how much, in bins of equal width, from ``start`` on."""

    start: Share
    bin_width: float = Field(ge=1 / BINS, le=1)
    matched: list[Count] = Field(min_length=1, max_length=_MOST_BARS)
    mismatched: list[Count] = Field(max_length=_MOST_BARS)

    @model_validator(mode="after")
    def _are_of_scores(self) -> Self:
        if len(self.matched) != len(self.mismatched):
            raise ValueError("the two histograms have not the same bins")
        # The last bin may begin at 1 or, as sums of fractions are rounded, just beyond.
        if self.start + (len(self.matched) - 1) * self.bin_width > 1 + self.bin_width / 2:
            raise ValueError("there are bins in which no score can be")
        return self


Interval = Annotated[
    tuple[Share, Share],
    Field(description="Of 100 such intervals, of other images of the same kind, some 95 hold the true value."),
]

FEW_IMAGES = 100


class Calibration(_Record):
    """What a score of this model says on this data: the scored rows beside *mismatched* pairs, which are the rows'
    images, each with the texts of other rows.
    """

    mismatched: ScoreStatistics
    images: Count = Field(description="How many different images the scored rows have: exactly up to 127, else to 9 %.")
    auc: Share = Field(
        description="The chance that a row scores higher than a mismatched pair, ties counting half: the area under "
        "the ROC curve. 0.5 says nothing, 1 tells all apart."
    )
    auc_interval: Interval
    threshold: Share = Field(
        description="The score that tells rows from mismatched pairs best: true minus false accept rate is greatest "
        "(Youden's J)."
    )
    false_accept_rate: Share = Field(
        description="Of mismatched pairs like these, the share that scores the threshold or more: as counted, and "
        "corrected for the threshold's having been chosen by the same pairs."
    )
    false_accept_interval: Interval
    false_reject_rate: Share = Field(
        description="Of rows like these, the share that scores less than the threshold, corrected likewise."
    )
    false_reject_interval: Interval
    histograms: Histograms

    @property
    def uncertain(self) -> bool:
        """Whether there are so few images that the threshold and the rates would be others with other images."""
        return self.images < FEW_IMAGES


class FilteredStep(_Record):
    """The step beside the output that holds only the rows within the filter's limits, and what these were."""

    output: ObjectVersion
    min_score: Share | None = Field(None, description="The lowest score; where that was the threshold, what it was.")
    max_score: Share | None = None
    min_percentile: Annotated[float, Field(ge=0, le=100)] | None = None
    keep_top: Share | None = Field(None, description="The share of the rows with a score.")
    top_score: Share | None = Field(
        None, description="The lowest score within that share. Of the rows with just this score it has the first."
    )
    rows: Count

    @property
    def row_filter(self) -> RowFilter:
        """The limits."""
        return RowFilter.of(self) or RowFilter()

    def is_by(self, asked: RowFilter | None) -> bool:
        """Tell whether the limits are those that were asked for, the threshold being any score."""
        limits, asked_limits = self.row_filter.limits, {} if asked is None else asked.limits
        return limits.keys() == asked_limits.keys() and all(
            value in ("threshold", limits[name]) for name, value in asked_limits.items()
        )


class RejectedStep(_Record):
    """The step beside the output that holds all rows which the filtered one has not."""

    output: ObjectVersion
    rows: Count


class Embeddings(_Record):
    """The folder with the embeddings of all rows' images and texts, in part files; how they are to be read stands in
    each."""

    folder: ObjectVersion = Field(description="Its size and version are those of the part files together.")
    files: Count
    rows: Count
    dimensions: Count
    dtype: EmbeddingsType


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
    max_text_tokens: Count
    parameters: Count
    precision: str


class DeviceProvenance(_Record):
    """Where the model ran, and why there."""

    name: str
    reason: str


class Throughput(_Record):
    """How fast the rows were scored, and what would have made it faster. Loading the model is not in it, nor what comes
    when all rows are written to the local disk.
    """

    seconds: _Measured = Field(description="From the first row read to the last row written.")
    rows_per_second: _Measured
    time_shares: dict[str, _Measured] = Field(
        max_length=_MOST_NAMES,
        description="Parts of the time in which the model computed (encode), or waited for rows to be read and "
        "tokenized, images to be fetched, images to be decoded and resized, rows to be written, or results to be saved "
        "for the next try (save).",
    )
    images_encoded: Count = Field(description="Distinct images that were asked for.")
    images_reused: Count = Field(description="Rows whose image was an earlier row's.")
    texts_encoded: Count
    texts_reused: Count
    batch_size: Count = Field(description="Images that went through the model together.")


class EarlierWork(_Record):
    """Rows whose result was taken over, and what computed it."""

    rows: Count
    device: str = Field(max_length=500)
    libraries: dict[str, Annotated[str, Field(max_length=500)]] = Field(max_length=100)


class Shards(_Record):
    """The shards that an output was put together from."""

    plan: str = Field(description="Digest of the request, the input's version and how it was cut.")
    count: Count
    scored_by: list[EarlierWork] = Field(description="What computed the scores, and how many rows each.")


class Scored(_Record):
    """What scoring the rows of a step came to: by one task or, put together, by many."""

    rows: RowCounts
    scores: ScoreStatistics | None = Field(description="None where no row was scored.")
    calibration: Calibration | None = Field(None, description="None where no mismatched pair could be made.")
    model: ModelProvenance
    device: DeviceProvenance
    throughput: Throughput | None = None
    libraries: dict[str, str] = Field(max_length=_MOST_NAMES, description="Versions of what computed the scores.")
    earlier_work: list[EarlierWork] = Field([], description="Where the resumed rows were scored.")
    sums: ScoreSums | None = Field(None, description="Of a shard: what it adds to the whole output's statistics.")
    mismatched: GroupedCounts = Field(
        description="The mismatched pairs' scores: what a merge, or a run that takes scores over, makes its own of."
    )
    shards: Shards | None = Field(None, description="Of an output that several workers scored.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        scored = self.rows.scored
        if scored != (0 if self.scores is None else self.scores.count):
            raise ValueError("the statistics are of another number of scores")
        if self.sums is not None and not self.sums.are_of(scored):
            raise ValueError("the sums are of other scores")
        if self.calibration is not None and self.scores is None:
            raise ValueError("there is a calibration of no scores")
        return self


class _Step(_Record):
    manifest_version: Literal[1] = 1
    status: Literal["complete"] = "complete"
    input: ObjectVersion
    output: ObjectVersion
    output_columns: list[str] = Field(
        max_length=_MOST_NAMES, description="Columns with scores; the reasons are in request.error_key."
    )
    filtered: FilteredStep | None = None
    rejected: RejectedStep | None = None
    embeddings: Embeddings | None = None

    @property
    def selections(self) -> tuple[ObjectVersion, ...]:
        """The steps beside the output that hold some of its rows."""
        return tuple(step.output for step in (self.filtered, self.rejected) if step is not None)


class EvaluationManifest(Scored, _Step):
    """What one evaluation read, did and wrote. ``status`` is there for readers of the JSON; it has one value."""

    request: EvaluationRequest
    started_at: AwareDatetime
    finished_at: AwareDatetime
    duration_seconds: float = Field(ge=-1e9, le=1e9, description="Below 0 where the clock was set back meanwhile.")
    confirmed_by: Requester | None = Field(
        None, description="The last task instance that asked for the same work and found it done."
    )
    confirmed_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _is_of_its_request(self) -> Self:
        request, filtered, rejected = self.request, self.filtered, self.rejected
        steps = (self, filtered, rejected)
        asked = (request.output, request.filtered_output, request.rejected_output)
        if [step and canonical(step.output.uri) for step in steps] != [uri and canonical(uri) for uri in asked]:
            raise ValueError("what it is of is not what the request asks for")
        if filtered is not None and not (filtered.is_by(request.row_filter) and filtered.rows <= self.rows.scored):
            raise ValueError("the filtered step has other rows than the request asks for")
        if rejected is not None and (filtered is None or filtered.rows + rejected.rows != self.rows.total):
            raise ValueError("the rejected rows are not those which the filtered step has not")
        if self.output_columns != [self.request.output_key]:
            raise ValueError("the columns are not those that the request asks for")
        folder = None if self.embeddings is None else canonical(self.embeddings.folder.uri)
        wanted = None if self.request.embeddings_path is None else canonical(self.request.embeddings_path)
        if folder != wanted or (self.embeddings is not None and self.embeddings.rows != self.rows.total):
            raise ValueError("the embeddings are not those that the request asks for")
        return self

    @property
    def published_at(self) -> AwareDatetime:
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
        return EvaluationManifest.model_validate(parse_json(data))
    except ValueError:  # a model's own errors are such
        return None


def read_manifest(storage: Storage, uri: str) -> EvaluationManifest | None:
    """Return the manifest that stands at ``uri``, or None if what is there is not one of ours.

    :raises ObjectNotFound: there is nothing.
    :raises StorageError: it cannot be read, or is larger than any of ours.
    """
    data = verified(storage.read(uri, _MOST_BYTES), "manifest", uri)
    if data is not None:
        return parse_manifest(data)
    log.warning(
        "The manifest %s is not signed with the key in CLIP_OPERATOR_SIGNING_KEY, so it proves nothing", display(uri)
    )
    return None


def describe_calibration(calibration: Calibration) -> str:
    """Return what a calibration says, as one line of a log."""
    few = f". All of it is uncertain, of {calibration.images:,} different images" if calibration.uncertain else ""
    return (
        f"Beside {calibration.mismatched.count:,} mismatched pairs, whose mean is {calibration.mismatched.mean:.4f}, "
        f"the AUC is {calibration.auc:.4f} ({describe_interval(calibration.auc_interval)}); at the threshold "
        f"{calibration.threshold:.4f}, {describe_share(calibration.false_accept_rate)} of such pairs would be accepted "
        f"and {describe_share(calibration.false_reject_rate)} of such rows rejected{few}"
    )


def describe_interval(interval: Interval) -> str:
    """Return an interval in words."""
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def describe_share(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f} %"
