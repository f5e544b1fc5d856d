"""What becomes of rows that cannot be scored: counted, logged while they are few, or the end of the job."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from clip_operator.errors import JobError, RowError
from clip_operator.request import OnError
from clip_operator.scoring.result import RowResult
from clip_operator.scoring.tally import Tally

log = logging.getLogger(__name__)

# How many failures of each class are logged one by one; the rest are only counted.
_LOGGED_FAILURES = 3


class Outcomes:
    """Turns results into the values of the output column, and keeps count.

    :param on_error: what a row without a score gets: ``null``, ``zero``, or (``fail``) it ends the job.
    """

    def __init__(self, on_error: OnError) -> None:
        self.tally = Tally()
        self._on_error = on_error

    def scores(self, results: Sequence[RowResult]) -> list[float | None]:
        """Return the column's values for the next rows.

        :raises JobError: a row cannot be scored and ``on_error`` is ``fail``.
        """
        for result in results:
            self.tally.add(result)
            if result.error is not None:
                self._report(result.error)
        unscored = 0.0 if self._on_error == "zero" else None
        return [unscored if result.score is None else result.score for result in results]

    def check_some_scored(self, images_from: str) -> None:
        """Raise :class:`JobError` if there were rows and none was scored.

        :param images_from: where relative image paths start, for the message.
        """
        if self.tally.rows and self.tally.failed == self.tally.rows:
            reasons = ", ".join(f"{reason}: {count:,}" for reason, count in self.tally.failures.most_common())
            raise JobError(
                f"none of the {self.tally.rows:,} rows could be scored ({reasons}); nothing was written. Check the "
                f"image and text columns, and image_root: relative image paths start at {images_from}"
            )

    def _report(self, error: RowError) -> None:
        row = f"{self.tally.rows:,}"  # rows count from 1, as people and editors do
        if self._on_error == "fail":
            raise JobError(f"row {row} cannot be scored, and on_error is 'fail': {error}. Nothing was written")
        count = self.tally.failures[error.reason.value]
        if count <= _LOGGED_FAILURES:
            more = "; further ones are only counted" if count == _LOGGED_FAILURES else ""
            log.warning("Row %s has no score: %s%s", row, error, more)
