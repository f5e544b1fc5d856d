"""One evaluation, as it is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clip_operator.dialect import Dialect
from clip_operator.errors import RequestError
from clip_operator.request.row_filter import LIMITS, RowFilter
from clip_operator.request.values import (
    Aggregate,
    BatchSize,
    Buckets,
    ColumnName,
    ColumnNames,
    EmbeddingsType,
    Encoding,
    Folder,
    Hosts,
    ImageDecoding,
    ImageOrientation,
    Mark,
    MinScore,
    NonBlank,
    OnError,
    OnWeakThreshold,
    PathRepairs,
    PathRewrite,
    Percentile,
    Precision,
    Quote,
    Rate,
    RatesByReason,
    Rescore,
    TopShare,
    Uri,
)
from clip_operator.storage import canonical, dataset_name, display

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# What a complete step is judged by.
_JUDGEMENT = ("min_mean_score", "min_auc", "max_below_threshold", "on_weak_threshold")

# What changes how a job goes about its work, and, beyond the last bit of a score, not what its output holds.
_CONDUCT = {
    "batch_size",
    "device",
    "embedding_cache_bytes",
    "image_prefixes",  # an administrator's, who may change them without having everything scored anew
    "max_error_rate",
    "max_error_rates",
    "overwrite",
    "report",
    "requested_by",
    "rescore",
    "resume_point_rows",
    "reuse",
    *_JUDGEMENT,
}

OF_ALL_SCORES = ("percentile_key", *LIMITS)
"""What can be told of a row only when all rows have their scores."""

# What takes a row to have one score.
_OF_ONE_SCORE = ("cosine_key", "clipscore_key", *OF_ALL_SCORES, "rescore")

# However they are spelled, they are the same.
_PLACES = ("input", "output", "filtered_output", "rejected_output", "embeddings_path")

# How the input is written down, and so what its cells are.
_DIALECT = ("delimiter", "quotechar", "escapechar", "encoding", "column_names")

# What decides the score of a row that has one.
_DECIDES_SCORES = {
    "aggregate",
    "image_decoding",
    "image_orientation",
    "image_path_repairs",
    "image_path_rewrite",
    "image_root",
    "input_image_key",
    "input_text_key",
    *_DIALECT,
}


class Requester(BaseModel):
    """Which Airflow task instance asked. Two tries of one task instance are the same requester."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @property
    def is_mapped(self) -> bool:
        """Whether it is one instance of a mapped task, or of a task in a mapped group."""
        return self.map_index >= 0

    def runs_beside(self, other: Requester | None) -> bool:
        """Tell whether the other is another instance of the same mapped task in the same run."""
        return other is not None and other != self and other.model_copy(update={"map_index": self.map_index}) == self


class Shard(BaseModel):
    """The part of an input that one shard scores, and its place in the whole.

    What ``start`` and ``stop`` count depends on the input: bytes of the text, unpacked, of one JSONL, JSON or CSV file;
    row groups of one Parquet file; files, in the order of their names, of many; rows of a Hugging Face data set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(ge=0, description="Which shard it is, from 0.")
    of: int = Field(ge=1, description="How many shards there are.")
    input_etag: str = Field(description="The version of the whole input that was cut.")
    start: int = Field(ge=0, description="Where it begins.")
    stop: int = Field(ge=0, description="Where the next one begins.")
    first_row: int | None = Field(None, description="The whole input's index of its first row, where that is known.")
    rows: int | None = Field(None, description="How many rows it has, where that is known.")
    total_rows: int | None = Field(None, description="How many rows the whole input has, where that is known.")
    columns_of: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="Of many Parquet files whose columns differ, those that tell the columns of all, from 0."
    )
    standalone: bool = Field(
        False, description="The output is a table of its own, not a span of the bytes of the whole one."
    )


class EvaluationRequest(BaseModel):
    """One evaluation: read ``input``, score every row, write ``output``. Everything in it may be logged."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    input: Uri = Field(
        description="Path or URI of what to read: a file, folder or pattern of jsonl, json, csv, tsv (each also .gz, "
        ".zst, .bz2, .xz), parquet or tar, or a data set of the hub, as in hf:user/name."
    )
    output: Uri = Field(description="Path or URI of the file to write; its ending says in which format.")
    input_image_key: ColumnName = Field(
        "image_path", description="Column with the image or its path; meta.image leads into a column."
    )
    input_text_key: ColumnName = Field("text", description="Column with the caption; meta.caption leads into a column.")
    delimiter: Mark | None = Field(
        None, description="Character between the cells of CSV and TSV; by default a comma, and a tab in TSV."
    )
    quotechar: Quote | None = Field(
        None, description="Character around cells of CSV and TSV, or none; by default a double quote."
    )
    escapechar: Mark | None = Field(
        None, description="Character of CSV and TSV that makes the next one text, as a backslash; by default none."
    )
    encoding: Encoding | None = Field(
        None, description="Encoding of CSV and TSV; by default UTF-8, or UTF-16 where a byte order mark says so."
    )
    column_names: ColumnNames = Field(
        (), description="Columns of CSV and TSV without a header; by default the first line names them."
    )
    output_key: ColumnName = Field("clip_score", description="Column to add: (cos + 1) / 2, in [0, 1].")
    model: Uri = Field(
        "openai/clip-vit-base-patch32",
        description="A hub id, a local folder, an s3:// prefix, or builtin://shapes-clip.",
    )
    revision: NonBlank | None = Field(None, description="Hub revision: a branch, tag or commit.")
    device: NonBlank | None = Field(None, description="cuda, cuda:1, cpu, …; by default cuda if there is one.")
    image_root: Uri | None = Field(
        None, description="Folder that relative image paths start from; by default the folder of the input."
    )
    image_path_rewrite: PathRewrite = Field(
        {}, description="What image paths begin with that were written elsewhere, and what takes its place."
    )
    image_path_repairs: PathRepairs = Field(
        (), description="How image paths are mended before: blanks, percent, backslashes, nfc, nfd."
    )
    image_hosts: Hosts = Field((), description="Hosts from which http(s) images may be fetched.")
    on_error: OnError = Field(
        "null", description="A row that cannot be scored: null score, score 0.0, or fail the job."
    )
    error_key: ColumnName | None = Field(None, description="Column to add with the reason why a row has no score.")
    cosine_key: ColumnName | None = Field(None, description="Column to add with the cosine itself, in [-1, 1].")
    clipscore_key: ColumnName | None = Field(
        None, description="Column to add with 2.5 * max(cos, 0), the CLIPScore of Hessel et al. 2021, in [0, 2.5]."
    )
    sentence_key: ColumnName | None = Field(
        None,
        description="Columns to add for texts that are longer than the model reads: their sentence that agrees least "
        "with the image, and, with _score behind the name, its score.",
    )
    percentile_key: ColumnName | None = Field(
        None, description="Column to add with the share of mismatched pairs that score lower, in percent."
    )
    aggregate: Aggregate | None = Field(
        None,
        description="Of a row with several images or texts: the mean, max or min of its pairs' scores, or a list of "
        "all; without it such a row has no score.",
    )
    min_score: MinScore | None = Field(
        None,
        description="Write the rows with at least this score to filtered_output, too; threshold: the suggested one.",
    )
    max_score: Rate | None = Field(
        None, description="Write there the rows with at most this score. Of several such limits all must be kept."
    )
    min_percentile: Percentile | None = Field(
        None, description="Write there the rows with at least this percentile among mismatched pairs, from 0 to 100."
    )
    keep_top: TopShare | None = Field(
        None,
        description="Write there the best rows: this share of those that have a score, as in 0.3, rounded up; of rows "
        "with equal scores the first.",
    )
    filtered_output: Uri | None = Field(None, description="Path or URI of the file to write these rows to.")
    rejected_output: Uri | None = Field(
        None, description="Path or URI of the file to write all other rows to, those without a score, too."
    )
    embeddings_path: Folder | None = Field(
        None, description="URI of a folder to write the embeddings of all rows' images and texts to, as Parquet."
    )
    embeddings_dtype: EmbeddingsType = Field("float16", description="How the numbers of embeddings are written.")
    min_mean_score: Rate | None = Field(None, description="Gate: the lowest mean score.")
    min_auc: Rate | None = Field(None, description="Gate: the lowest AUC of rows against mismatched pairs.")
    max_below_threshold: Rate | None = Field(
        None, description="Gate: the largest share of scored rows below the suggested threshold."
    )
    on_weak_threshold: OnWeakThreshold = Field(
        "warn",
        description="What becomes of a suggested threshold that means little, where rows are filtered or a gate is "
        "judged by it: warn, or fail.",
    )
    max_error_rate: Rate = Field(0.1, description="Largest share of rows without a score; above it the job fails.")
    max_error_rates: RatesByReason = Field({}, description="The same for single reasons, as in image_unavailable=0.01.")
    rescore: Rescore | None = Field(
        None,
        description="failed: where the output is there, keep its scores and try again the rows that have none.",
    )
    resume_point_rows: int = Field(
        4096, ge=1, description="Rows after which results are saved, for a next try should this one die."
    )
    batch_size: BatchSize = Field(
        "auto", description="Images that go through the model together; auto takes what suits the device."
    )
    precision: Precision = Field(
        "fp32", description="Arithmetic of the model; auto is fp16 on CUDA, else fp32. The cosine is always fp32."
    )
    image_decoding: ImageDecoding = Field(
        "full", description="reduced: large JPEGs are decoded at a smaller size; faster, and scores differ slightly."
    )
    image_orientation: ImageOrientation | None = Field(
        None,
        description="exif: turn images upright, as their EXIF says; stored: leave them as they are stored. By default "
        "exif for hf: data sets, whose own library does so, else stored.",
    )
    embedding_cache_bytes: int = Field(
        32 << 20, ge=0, description="Memory for embeddings of images and texts that later rows may repeat."
    )
    image_buckets: Buckets = Field(
        (), description="Buckets that images may be in, beside those of the data set and of image_root."
    )
    image_prefixes: tuple[Uri, ...] = Field(
        (), description="Prefixes that images in object stores must have, wherever else they may be; none for any."
    )
    max_image_bytes: int = Field(64 << 20, ge=1, description="Largest image file accepted, in bytes.")
    max_image_pixels: int = Field(100_000_000, ge=1, description="Largest image accepted, in pixels.")
    max_image_seconds: int = Field(
        30, ge=1, le=3600, description="Processor time that decoding one image may take, in seconds."
    )
    overwrite: bool = Field(
        False, description="Replace an output that another job wrote, and columns that the input has already."
    )
    reuse: Uri | None = Field(
        None, description="Score store to take known scores from and add new ones to, as in s3://bucket/clip-cache."
    )
    report: bool = Field(True, description="Write a page for people beside the output, with samples of the rows.")
    requested_by: Requester | None = Field(None, description="The Airflow task instance that asked.")
    shard: Shard | None = Field(None, description="The part of the input to score; None for all of it.")

    @model_validator(mode="before")
    @classmethod
    def _orientation_is_told(cls, fields: Any) -> Any:
        """Put what is the plain way for the input in the place of a default: it decides scores, so that it is told."""
        if not isinstance(fields, Mapping) or fields.get("image_orientation") is not None:
            return fields
        is_dataset = dataset_name(str(fields.get("input")).strip()) is not None
        return {**fields, "image_orientation": "exif" if is_dataset else "stored"}

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        added = self.added_columns
        twice = next((key for index, key in enumerate(added) if key in added[:index]), None)
        if twice is not None:
            raise ValueError(f"two of the columns to add are both called {twice!r}; give them different names")
        if canonical(self.input) == canonical(self.output):
            raise ValueError(
                "input and output are the same object; a step is never written over the one it is read from"
            )
        for key in added:
            if key in (self.input_image_key, self.input_text_key):
                raise ValueError(f"the column {key!r} is read and written; choose another name for what is added")
        return self

    @model_validator(mode="after")
    def _cells_can_be_told_apart(self) -> Self:
        delimiters = [",", "\t"] if self.delimiter is None else [self.delimiter]
        marks = [*delimiters, self.quotechar or '"', *filter(None, [self.escapechar])]
        if len(set(marks)) < len(marks):
            raise ValueError(
                "delimiter, quotechar and escapechar must be different characters; doubled quotes need no escapechar"
            )
        twice = next((name for index, name in enumerate(self.column_names) if name in self.column_names[:index]), None)
        if twice is not None:
            raise ValueError(f"column_names has {twice!r} twice; give the columns different names")
        return self

    @model_validator(mode="after")
    def _filter_is_whole(self) -> Self:
        limits = f"{', '.join(LIMITS[:-1])} or {LIMITS[-1]}"
        if self.row_filter is None and self.rejected_output is not None:
            raise ValueError(f"without a filter no rows are rejected: give {limits} as well, or keep none of them")
        if (self.row_filter is None) != (self.filtered_output is None):
            raise ValueError(f"{limits} and filtered_output go together: which rows, and where to write them")
        if isinstance(self.min_score, float) and self.max_score is not None and self.min_score > self.max_score:
            raise ValueError(f"min_score {self.min_score} is above max_score {self.max_score}; no row can be kept")
        others = {canonical(self.input): "input"}
        for name in ("output", "filtered_output", "rejected_output"):
            uri = getattr(self, name)
            if uri is not None and (other := others.setdefault(canonical(uri), name)) != name:
                raise ValueError(f"{name} must be another object than {other}")
        return self

    @model_validator(mode="after")
    def _sentences_can_be_had(self) -> Self:
        if self.rescore is not None and self.sentence_key is not None:
            raise ValueError(
                "rescore keeps the scores of an earlier output, which do not tell which texts were cut, so it does not "
                "go with sentence_key; score all rows again, with overwrite or to another output"
            )
        return self

    @model_validator(mode="after")
    def _lists_are_all(self) -> Self:
        others = {
            **{name: getattr(self, name) for name in _OF_ONE_SCORE},
            "on_error 'zero'": True if self.on_error == "zero" else None,
        }
        if self.aggregate == "all" and (given := [name for name, value in others.items() if value is not None]):
            raise ValueError(
                f"aggregate 'all' writes a list of scores a row, so it does not go with {' and '.join(given)}; "
                "ask for the mean, max or min"
            )
        return self

    @model_validator(mode="after")
    def _embeddings_can_be_had(self) -> Self:
        if self.embeddings_path is None:
            return self
        if given := [name for name in ("rescore", "reuse") if getattr(self, name) is not None]:
            raise ValueError(
                f"{' and '.join(given)}: keeps scores of rows that are then not encoded, so these would have no "
                "embeddings; leave it out, or embeddings_path"
            )
        if self.aggregate is not None:
            raise ValueError(
                "aggregate gives rows with several images or texts a score, and embeddings_path writes one embedding "
                "of an image and one of a text a row; leave one of them out"
            )
        inside = f"{canonical(self.embeddings_path)}/"
        if held := next((uri for uri in (self.input, *self.outputs) if canonical(uri).startswith(inside)), None):
            raise ValueError(
                f"{display(held)} is in {display(self.embeddings_path)}: let embeddings_path name a folder for nothing "
                "but embeddings"
            )
        return self

    @property
    def upright(self) -> bool:
        """Whether images are turned as their EXIF says."""
        return self.image_orientation == "exif"

    @property
    def of_all_scores(self) -> tuple[str, ...]:
        """What the request asks for of :data:`OF_ALL_SCORES`."""
        return tuple(name for name in OF_ALL_SCORES if getattr(self, name) is not None)

    @property
    def row_filter(self) -> RowFilter | None:
        """Which rows ``filtered_output`` gets."""
        return RowFilter.of(self)

    @property
    def selections(self) -> tuple[str, ...]:
        """The URIs of the steps that are asked for beside the output, each with some of its rows: those that a filter
        keeps, then those that it rejects."""
        return tuple(uri for uri in (self.filtered_output, self.rejected_output) if uri is not None)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The URIs of the steps that the job writes: the output, then the selections of its rows."""
        return (self.output, *self.selections)

    @property
    def added_columns(self) -> tuple[str, ...]:
        """The columns that the output has and the input has not, in their order: the score, then what is asked for."""
        sentence = (self.sentence_key, self.sentence_score_key)
        keys = (self.output_key, self.error_key, self.cosine_key, self.clipscore_key, *sentence, self.percentile_key)
        return tuple(key for key in keys if key is not None)

    @property
    def dialect(self) -> Dialect:
        """How the input's cells are written, if it is CSV or TSV."""
        quotechar = "" if self.quotechar == "none" else self.quotechar
        return Dialect(self.delimiter, quotechar, self.escapechar, self.encoding, self.column_names)

    def output_dialect(self, of_folders: Iterable[str] = ()) -> Dialect:
        """Return how the cells of the output are written, if it is CSV or TSV: as the input's, with the added columns.

        :param of_folders: columns that the input has by the names of its folders.
        """
        names = self.column_names and tuple(dict.fromkeys((*self.column_names, *of_folders, *self.added_columns)))
        return replace(self.dialect, column_names=names)

    def judged_as(self, other: EvaluationRequest) -> EvaluationRequest:
        """Return it with the gates of another, which decide nothing of what the output holds."""
        return self.model_copy(update={name: getattr(other, name) for name in _JUDGEMENT})

    @property
    def sentence_score_key(self) -> str | None:
        """The column with the score of the sentence in ``sentence_key``."""
        return None if self.sentence_key is None else f"{self.sentence_key}_score"

    def fingerprint(self) -> str:
        """Return a digest of all that decides what the output holds.

        Left out: who asks, what may be replaced or taken over, how many errors are too many, and what changes only the
        speed.
        """
        spelled = {name: canonical(uri) for name in _PLACES if (uri := getattr(self, name)) is not None}
        return _digest(self.model_dump(mode="json", exclude=_CONDUCT) | spelled)

    def score_fingerprint(self) -> str:
        """Return a digest of all that decides the score of a row that has one, beside the input and the model.

        Left out, then, is also what may be read and how large it may be, which decides whether a row has one.
        """
        return _digest(self.model_dump(mode="json", include=_DECIDES_SCORES))


def decides_output(field: str) -> bool:
    """Tell whether a field of a request decides what the output holds, and so stands in its fingerprint."""
    return field not in _CONDUCT


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def parse_request(data: dict[str, Any] | str | bytes, called: Mapping[str, str] | None = None) -> EvaluationRequest:
    """Return the validated request from its fields or its JSON text.

    :param called: what the user calls some of the fields, for the message.
    :raises RequestError: names every field that is wrong, and what is wrong with it.
    """
    try:
        if isinstance(data, dict):
            return EvaluationRequest.model_validate(data)
        return EvaluationRequest.model_validate_json(data)
    except ValidationError as error:
        problems = [_in_words(problem, called or {}) for problem in error.errors(include_url=False)]
        raise RequestError("the request is not valid: " + "; ".join(problems)) from None


def _in_words(problem: ErrorDetails, called: Mapping[str, str]) -> str:
    """Return what is wrong with a field, behind its name, or with fields together."""
    words = "must be given" if problem["type"] == "missing" else problem["msg"].removeprefix("Value error, ")
    where = ".".join(called.get(str(part), str(part)) for part in problem["loc"])
    return f"{where}: {words}" if where else words
