"""What a worker can tell of a job that a pod is to do, before there is a pod.

The worker may have other credentials than the pod, other mounts, and fewer libraries. So it refuses only what the pod
would refuse for certain, warns of what looks wrong, and is silent where it cannot look.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from clip_operator.errors import JobError, Reason, RowError
from clip_operator.images import ImageLoader, ImageLocation
from clip_operator.inputs import Input, check_outputs_apart, columns_of_folders, find_input
from clip_operator.inputs.image_access import image_loader, image_root
from clip_operator.machine.scratch import scratch_folder
from clip_operator.machine.stopping import stopped_by
from clip_operator.preflight.columns import check_columns, check_free, open_checked
from clip_operator.preflight.image_sample import describe_failures, draw, failures, no_image_comes
from clip_operator.preflight.input_start import first_rows, footer_columns, header_columns
from clip_operator.proof.standing import look
from clip_operator.request import EvaluationRequest
from clip_operator.steps import beside
from clip_operator.storage import (
    BucketNotFound,
    ObjectNotFound,
    Storage,
    StorageError,
    dataset_name,
    display,
    scheme_of,
)
from clip_operator.tables import Chunk, FileType, TableFormat, check_conversion, file_type_of, open_table, path_of

log = logging.getLogger(__name__)

# How much of an input is read: a larger one is judged by its start. So much is parsed within a second.
_BYTES = 8 << 20
_COMPRESSED_BYTES = 1 << 20  # several times as much, unpacked
_FOOTERS = 16  # how many are read, one after another, where the first one has not all columns


def check_before_pod(request: EvaluationRequest, storage: Storage, stop: threading.Event) -> None:
    """Refuse a job that its pod would refuse for certain, and warn of what looks wrong. Takes a second or two.

    :param storage: where URIs lead for this process.
    :param stop: set it to end this soon.
    :raises RequestError: the request cannot be carried out as it stands, whatever the data.
    :raises JobError: the input does not exist, is malformed or lacks a column; the output is another's; or no image
        that the input names exists.
    :raises Cancelled: ``stop`` was set.
    """
    output_type = file_type_of(request.output)
    if not request.input.endswith("/") and dataset_name(request.input) is None:
        check_conversion(file_type_of(request.input), output_type)
    images = image_loader(request, storage)
    if request.shard is not None:
        return  # the whole input was looked at when the step was planned
    if _was_tried_before(request, storage):
        log.info("Nothing is checked before anything is started: an earlier try has begun or done the work")
        return
    with stopped_by(stop):
        _check(_Checks(request, storage, images, stop), output_type)


def _check(checks: _Checks, output_type: FileType) -> None:
    source = checks.source()
    if source is not None:
        check_conversion(source.file_type, output_type)
        check_outputs_apart(checks.storage, checks.request, source)
    checks.target()
    if source is not None and source.files:
        checks.content(source)
    log.info("Checked before anything is started: %s", ", ".join(checks.passed) or "nothing that can be told from here")


def _was_tried_before(request: EvaluationRequest, storage: Storage) -> bool:
    """Tell whether the work may be done already, or be under way in the pod of an earlier try."""
    try:
        standing = look(storage, request)
    except StorageError:
        return False
    if standing.proof is not None:
        return not request.overwrite and standing.proof.request.fingerprint() == request.fingerprint()
    return standing.claim is not None and standing.claim.requested_by == request.requested_by


class _Checks:
    def __init__(
        self, request: EvaluationRequest, storage: Storage, images: ImageLoader, stop: threading.Event
    ) -> None:
        self.passed: list[str] = []
        self.request = request
        self.storage = storage
        self._images = images
        self._stop = stop
        self._image_is_there = False
        self._doubt: StorageError | None = None

    def source(self) -> Input | None:
        """Return the input, or None if it cannot be told from here."""
        if scheme_of(self.request.input) == "file":
            return None  # it may be mounted in the pod alone, and a data set of the hub be fetched there alone
        try:
            source = find_input(self.storage, self.request.input, self.request.dialect)
        except (ObjectNotFound, BucketNotFound):
            raise
        except StorageError as error:
            log.warning("The input is left to be checked where it is scored: %s", error)
            return None
        self.passed.append("the input exists")
        return source

    def target(self) -> None:
        """Raise :class:`JobError` if the output is another's."""
        try:
            look(self.storage, self.request).check_may_write()
        except BucketNotFound:
            raise
        except StorageError as error:
            log.warning("Whether the output may be written is left to be checked where it is scored: %s", error)
        else:
            self.passed.append("the output is free or this task's own")

    def content(self, source: Input) -> None:
        """Raise :class:`JobError` if the input itself, or the images it names, cannot be scored.

        Of many files the first is looked at.
        """
        if source.file_type.format is TableFormat.TAR:
            return  # its rows come with their images, and have columns of our own
        try:
            with scratch_folder() as folder:
                self._content(source, folder / "input")
        except BucketNotFound:
            raise
        except (StorageError, OSError) as error:
            log.warning("What is in the input is left to be checked where it is scored: %s", error)
        except ModuleNotFoundError as error:
            log.debug("What is in the input is left to be checked where it is scored: there is no %s here", error.name)

    def _content(self, source: Input, path: Path) -> None:
        first, file_type = source.files[0], source.file_type
        most = _COMPRESSED_BYTES if file_type.compression else _BYTES
        if first.size <= most and len(source.files) == 1:
            path.write_bytes(self.storage.read(first.uri, most))
            self._whole(path, source)
        elif file_type.format is TableFormat.PARQUET:
            columns, paths = self._parquet_columns(source)
            self._columns(columns, file_type, paths)
        else:
            path.write_bytes(self.storage.read_range(first.uri, 0, most))
            header = header_columns(path, file_type, self.request)
            self._columns(header and (*header, *columns_of_folders(source)), file_type)
            self._start(first_rows(path, file_type, self.request), columns_of_folders(source))

    def _whole(self, path: Path, source: Input) -> None:
        files = path if source.partitions is None else (path,)
        open_input = partial(open_table, files, source.file_type, partitions=source.partitions)
        with open_checked(open_input, self.request) as (table, scan):
            self.passed.append(f"its {scan.rows:,} rows are well formed and have the columns")
            if not self._looks_at_images():
                return
            problem = no_image_comes(table, self.request, self._images, self._look, self._stop)
        self._conclude(problem, certain=problem is not None and not self._may_take_over())

    def _parquet_columns(self, source: Input) -> tuple[Sequence[str] | None, Sequence[str]]:
        """Return the columns of the first file, and of others where it lacks some that are read, and paths into them;
        no columns if more may come.
        """
        columns: dict[str, None] = dict.fromkeys(columns_of_folders(source))
        paths: dict[str, None] = {}
        for info in source.files[:_FOOTERS]:
            found = footer_columns(self.storage, info, self.request)
            if found is None:
                return None, ()
            columns |= dict.fromkeys(found[0])
            paths |= dict.fromkeys(found[1])
            if {self.request.input_image_key, self.request.input_text_key} <= columns.keys() | paths.keys():
                return tuple(columns), tuple(paths)
        return (tuple(columns) if len(source.files) <= _FOOTERS else None), tuple(paths)

    def _columns(self, columns: Sequence[str] | None, file_type: FileType, paths: Sequence[str] = ()) -> None:
        if columns is not None:
            check_columns(columns, file_type, self.request, paths)
            self.passed.append("it has the columns")

    def _start(self, rows: Chunk | None, of_folders: Collection[str]) -> None:
        """Judge by the first rows, which others need not be like."""
        if rows is None:
            return
        request = self.request
        # A column to add is no path to anything, though its name may look like one.
        plain = (key for key in request.added_columns if path_of(key) is None)
        check_free([key for key in plain if any(v is not None for v in rows.column(key))], request)
        keys = {request.input_image_key, request.input_text_key}
        for key in sorted(keys - set(of_folders)):
            if all(value is None for value in rows.column(key)):
                log.warning("%s: the first %d rows have nothing in %r", display(request.input), len(rows), key)
        if not self._looks_at_images() or keys & set(of_folders):
            return
        sample = draw([rows], request, self._images, len(rows))
        failed = failures(sample, self._look, self._stop)
        self._conclude(describe_failures(failed, sample, request) if failed else None, certain=False)

    def _conclude(self, problem: str | None, *, certain: bool) -> None:
        if problem is not None:
            if certain:
                raise JobError(f"{display(self.request.input)}: {problem}. Nothing was started")
            log.warning("%s: %s", display(self.request.input), problem)
        elif self._image_is_there:
            self.passed.append("an image that it names exists")
        if self._doubt is not None:
            log.warning("The images are left to be checked where it is scored: %s", self._doubt)

    def _looks_at_images(self) -> bool:
        # The local folder of images is the pod's, and only the pod can tell which paths lie in it.
        return self.request.max_error_rate < 1 and scheme_of(image_root(self.request)) != "file"

    def _look(self, location: ImageLocation) -> None:
        """Look whether an object is there. What is inside its row or on the web passes unseen."""
        if location.inline or scheme_of(location.key) in ("http", "https"):
            return
        try:
            self.storage.stat(location.key)
        except ObjectNotFound:
            raise RowError(Reason.IMAGE_NOT_FOUND, f"there is no image at {location}") from None
        except BucketNotFound:
            raise
        except StorageError as error:
            self._doubt = error  # the pod may be allowed to read it, or come through
        else:
            self._image_is_there = True

    def _may_take_over(self) -> bool:
        """Tell whether the pod may find scores of earlier runs, so that images need not be there any more."""
        try:
            return any(True for _ in self.storage.list(f"{beside(self.request.output)}."))
        except StorageError:
            return True
