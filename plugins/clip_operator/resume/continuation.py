"""Goes on where earlier tries and runs stopped, and leaves resume points for later ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice, repeat
from pathlib import Path

from clip_operator.errors import JobError
from clip_operator.proof.manifest import EarlierWork, EvaluationManifest, ObjectVersion
from clip_operator.resume.points import ResumePoint, ResumePoints
from clip_operator.scoring import CHUNK_ROWS, PairedRows, RowResult, Rows, written_score
from clip_operator.storage import ObjectInfo, Storage
from clip_operator.tables import Chunk, TableReader, file_type_of, open_table, sole


class PreviousOutput:
    """The scores of an output that an earlier run has written.

    :param manifest: its own.
    :param path: where to put a copy.
    :param of_folders: the columns that the input has by the names of its folders.
    :raises ObjectChanged: another has taken its place since the manifest was found to prove it.
    :raises JobError: it cannot be read.
    """

    def __init__(
        self, storage: Storage, manifest: EvaluationManifest, path: Path, of_folders: Iterable[str] = ()
    ) -> None:
        self.manifest = manifest
        output = manifest.output
        storage.download(ObjectInfo(output.uri, output.size, output.etag), path)
        [self._column] = manifest.output_columns
        file_type = file_type_of(output.uri, manifest.request.output_dialect(of_folders))
        self._table = open_table(path, file_type, (self._column,))

    def results(self) -> Iterator[RowResult | None]:
        """Yield each row's result, None where it has no score, and behind the last row. Whether its text was cut or
        its image not turned is not known, nor what its mismatched pair scored. A cell that holds no score that can be
        is one without.
        """
        for chunk in self._table.chunks(CHUNK_ROWS):
            for value in chunk.column(self._column):
                score = None
                with suppress(JobError):
                    score = written_score(value, self.manifest.request.on_error)
                yield None if score is None else RowResult(score)
        yield from repeat(None)

    @property
    def scored_by(self) -> EarlierWork:
        """Where its scores were computed. Of what it had itself taken over, its own manifest tells."""
        manifest = self.manifest
        return EarlierWork(rows=manifest.rows.scored, device=manifest.device.name, libraries=manifest.libraries)


class Continuation:
    """Puts to the rows of a table what is known of them already, and saves what becomes known.

    :param points: what earlier tries have left, and where this one leaves its own.
    :param previous: the output that is rescored; None if all rows are to be scored.
    :param segment_rows: the rows of a segment. They are counted from the table's first row, however large its rows are,
        so that shards, which begin at such a multiple, score in the segments of the whole.
    """

    def __init__(self, points: ResumePoints, previous: PreviousOutput | None, segment_rows: int) -> None:
        self._points = points
        self._previous = previous
        self._segment_rows = segment_rows
        self._taken: Counter[str] = Counter()
        self._parts: dict[int, ObjectVersion] = {}

    def rows(self, table: TableReader, image_key: str, text_key: str) -> Iterator[Rows[Chunk]]:
        """Yield all rows of the table, in order."""
        previous = repeat(None) if self._previous is None else self._previous.results()
        point = self._find(0)
        saved = _results(point)
        for chunk in table.chunks(CHUNK_ROWS, self._segment_rows):
            pairs = list(islice(zip(previous, saved, strict=False), len(chunk)))
            # A try that rescored the previous output has left resume points that hold its scores, too.
            known = [old or new for old, new in pairs]
            if self._previous is not None:
                self._take(self._previous.scored_by, sum(old is not None for old, _ in pairs))
            if point is not None:
                self._take(point.scored_by, sum(old is None and new is not None for old, new in pairs))
            behind = chunk.first_row + len(chunk)
            ends_segment = behind % self._segment_rows == 0
            images, texts = sole(chunk.column(image_key)), sole(chunk.column(text_key))
            yield Rows(chunk, images, texts, known, ends_segment, chunk.size)
            if ends_segment:
                point = self._find(behind)
                saved = _results(point)

    def take_part(self, first_row: int) -> ObjectVersion | None:
        """Return where the embeddings stand of the segment that begins at a row, if what is known of its rows is."""
        return self._parts.pop(first_row, None)

    def save(
        self,
        rows: Rows[Chunk],
        results: Sequence[RowResult],
        paired: PairedRows,
        embeddings: ObjectVersion | None = None,
    ) -> None:
        """Take in the results of the next rows, and the pairs of those that have them now; where a segment ends with
        them, save it.

        :param embeddings: the part file of the segment that ends, if embeddings are asked for.
        """
        self._points.add(rows, results, paired, embeddings)

    def save_last(self, paired: PairedRows, embeddings: ObjectVersion | None = None) -> None:
        """Save what came behind the last whole segment: there are no more rows."""
        self._points.add_last(paired, embeddings)

    def discard(self) -> None:
        """Remove what was saved, which is of no use any more."""
        self._points.discard()

    @property
    def run(self) -> str:
        """What tells this run, which earlier tries may have begun, from others."""
        return self._points.run

    @property
    def left_before(self) -> int:
        """How many rows are known from earlier tries and runs, as far as can be told before they are read."""
        scored = 0 if self._previous is None else self._previous.manifest.rows.scored
        return max(scored, self._points.segments_left * self._segment_rows)

    @property
    def truncated_texts(self) -> int:
        """How many of the rows known from a previous output have texts that were cut: their results do not say it."""
        return 0 if self._previous is None else self._previous.manifest.rows.truncated_texts

    @property
    def unturned_images(self) -> int:
        """How many of them have images that were not turned."""
        return 0 if self._previous is None else self._previous.manifest.rows.unturned_images

    def earlier_work(self) -> list[EarlierWork]:
        """Return how many rows were known, and where they were scored."""
        return [
            EarlierWork.model_validate_json(scored_by).model_copy(update={"rows": rows})
            for scored_by, rows in self._taken.items()
        ]

    def _find(self, first_row: int) -> ResumePoint | None:
        point = self._points.find(first_row)
        if point is not None and point.embeddings is not None:
            self._parts[first_row] = point.embeddings
        return point

    def _take(self, scored_by: EarlierWork, rows: int) -> None:
        if rows:
            self._taken[scored_by.model_copy(update={"rows": 0}).model_dump_json()] += rows


def _results(point: ResumePoint | None) -> Iterator[RowResult | None]:
    return chain(point.results() if point is not None else (), repeat(None))
