"""The Python interface of the DataFlow ecosystem's CLIP evaluator, on the same scoring as everything else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

from clip_operator.errors import JobError, RequestError
from clip_operator.inputs import default_image_root
from clip_operator.job.evaluation import evaluate
from clip_operator.job.in_memory import score_rows
from clip_operator.request import Aggregate, ImageOrientation, OnError, Precision, parse_request
from clip_operator.scoring import CHUNK_ROWS, Rows
from clip_operator.steps import StepSeries
from clip_operator.tables import path_of, value_at


class FileStorage:
    """The versioned steps of a data set, as DataFlow names them, anywhere a URI leads.

    Call :meth:`step` to move to the next step before each operator; the first call moves to step 0.

    :param first_entry_file_name: URI of step 0.
    :param cache_path: URI of the folder that holds the later steps.
    :param file_name_prefix: what their names start with.
    :param cache_type: their format, by suffix: ``jsonl``, ``json``, ``csv``, ``parquet``, ``jsonl.gz``, …
    """

    def __init__(
        self,
        first_entry_file_name: str,
        cache_path: str = "./cache",
        file_name_prefix: str = "dataflow_cache_step",
        cache_type: str = "jsonl",
    ) -> None:
        self.series = StepSeries(first_entry_file_name, cache_path, file_name_prefix, cache_type)
        self.operator_step = -1

    def step(self) -> Self:
        """Move to the next step and return this storage."""
        self.operator_step += 1
        return self


@runtime_checkable
class DataFrameStorage(Protocol):
    """Any storage that reads and writes pandas data frames, as DataFlow's do."""

    def read(self, output_type: str) -> Any:
        """Return the current step; ``output_type`` is ``"dataframe"``."""

    def write(self, data: Any) -> Any:
        """Write the next step."""


class ImageCLIPEvaluator:
    """Scores image-text alignment: (cos + 1) / 2 of CLIP embeddings, in [0, 1].

    :param model_name: a hub id, a local folder, an ``s3://`` prefix, or ``builtin://shapes-clip``.
    :param device: ``"cuda"``, ``"cpu"``, …; by default CUDA where there is a GPU.
    :param model_revision: a hub revision.
    :param image_root: folder that relative image paths start from and local ones may not leave. By default the folder
        of the first entry; for a storage of data frames, the working directory.
    :param image_hosts: hosts from which http(s) images may be fetched.
    :param image_buckets: buckets that images may be in, beside those of the data set and of ``image_root``.
    :param image_path_rewrite: what image paths begin with that were written elsewhere, and what takes its place.
    :param image_path_repairs: how else they are mended: ``"backslashes"``, ``"percent"``, ``"blanks"``, ``"nfc"``,
        ``"nfd"``.
    :param on_error: what a row that cannot be scored gets: ``"null"``, ``"zero"`` (as in DataFlow), or ``"fail"``.
    :param batch_size: images that go through the model together; ``"auto"`` takes what suits the device.
    :param precision: ``"fp32"``, ``"bf16"``, ``"fp16"``, or ``"auto"``: fp16 on CUDA, else fp32.
    :param aggregate: what a row with several images or captions gets: the ``"mean"``, ``"max"`` or ``"min"`` of its
        pairs' scores, or ``"all"`` of them. By default it has no score.
    :param image_orientation: ``"exif"`` turns images as their EXIF says, ``"stored"`` leaves them as they are stored;
        by default ``"exif"`` for ``hf:`` data sets, else ``"stored"``.
    :param max_error_rate: the largest share of rows without a score, from 0 to 1, above which the run fails. By default
        no share is too large, as in DataFlow.
    :param overwrite: replace an output that another job wrote, and a score column that the input has already.
    """

    def __init__(
        self,
        model_name: str = "openai/clip-vit-base-patch32",
        device: str | None = None,
        *,
        model_revision: str | None = None,
        image_root: str | None = None,
        image_hosts: Sequence[str] = (),
        image_buckets: Sequence[str] = (),
        image_path_rewrite: Mapping[str, str] | None = None,
        image_path_repairs: Sequence[str] = (),
        on_error: OnError = "null",
        batch_size: int | Literal["auto"] = "auto",
        precision: Precision = "fp32",
        aggregate: Aggregate | None = None,
        image_orientation: ImageOrientation | None = None,
        max_error_rate: float = 1.0,
        overwrite: bool = False,
    ) -> None:
        self._settings = {
            "model": model_name,
            "device": device,
            "revision": model_revision,
            "image_root": image_root,
            "image_hosts": image_hosts,
            "image_buckets": image_buckets,
            "image_path_rewrite": image_path_rewrite or {},
            "image_path_repairs": image_path_repairs,
            "on_error": on_error,
            "batch_size": batch_size,
            "precision": precision,
            "aggregate": aggregate,
            "image_orientation": image_orientation,
            "max_error_rate": max_error_rate,
            "overwrite": overwrite,
        }

    def run(
        self,
        storage: FileStorage | DataFrameStorage,
        input_image_key: str = "image_path",
        input_text_key: str = "text",
        output_key: str = "clip_score",
    ) -> list[str]:
        """Score the storage's current step, write its next one with the column ``output_key``, and return its name.

        :raises RequestError: a parameter is wrong.
        :raises JobError: the job failed; nothing was written.
        """
        columns = {"input_image_key": input_image_key, "input_text_key": input_text_key, "output_key": output_key}
        if isinstance(storage, FileStorage):
            return self._run_on_files(storage, columns)
        if isinstance(storage, DataFrameStorage):
            return self._run_on_frame(storage, columns)
        raise RequestError(f"{type(storage).__name__} is no storage: it has no read('dataframe') and write(data)")

    def _run_on_files(self, storage: FileStorage, columns: dict[str, str]) -> list[str]:
        if storage.operator_step < 0:
            raise RequestError("call storage.step() first: it moves to step 0, the first entry")
        series = storage.series
        root = self._settings["image_root"] or default_image_root(series.first_entry_file_name)
        steps = {"input": series.uri(storage.operator_step), "output": series.uri(storage.operator_step + 1)}
        return evaluate(parse_request({**self._settings, **columns, **steps, "image_root": root})).output_columns

    def _run_on_frame(self, storage: DataFrameStorage, columns: dict[str, str]) -> list[str]:
        # The storage knows where it reads and writes; the request is made for its checks.
        root = str(self._settings["image_root"] or Path.cwd())
        places = {"input": "frame", "output": "frame with scores", "image_root": root}
        request = parse_request({**self._settings, **columns, **places})
        frame = storage.read("dataframe")
        for key in (request.input_image_key, request.input_text_key):
            _check_has(frame, key)
        if request.output_key in frame.columns and not request.overwrite:
            raise JobError(f"the data has a column {request.output_key!r} already; set overwrite=True to replace it")
        slices = (frame.iloc[start : start + CHUNK_ROWS] for start in range(0, len(frame), CHUNK_ROWS))
        chunks = (Rows(None, _values(s, request.input_image_key), _values(s, request.input_text_key)) for s in slices)
        scored = score_rows(request, chunks, len(frame))
        scored.outcomes.check()
        storage.write(frame.assign(**{request.output_key: scored.scores}))
        return [request.output_key]


def _check_has(frame: Any, key: str) -> None:
    """Raise :class:`JobError` unless a data frame has a column, or anything at a path into one."""
    steps = path_of(key)
    is_there = key in frame.columns or (
        steps is not None
        and steps[0] in frame.columns
        and any(value_at(cell, steps[1:], frame) is not frame for cell in _cells(frame, str(steps[0])))
    )
    if not is_there:
        raise JobError(f"the data has no column {key!r}; its columns are {', '.join(map(repr, frame.columns))}")


def _values(frame: Any, key: str) -> list[object]:
    """Return the values of a column, or those at a path into one."""
    if key in frame.columns or (steps := path_of(key)) is None:
        return list(_cells(frame, key))
    return [value_at(cell, steps[1:]) for cell in _cells(frame, str(steps[0]))]


def _cells(frame: Any, column: str) -> Iterator[object]:
    """Yield a column's values, with lists for the arrays that pandas makes of Parquet's lists."""
    return (cell.tolist() if hasattr(cell, "tolist") else cell for cell in frame[column])
