"""What becomes of rows that cannot be scored: counted, logged while they are few, or the end of the job."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain

from clip_operator.errors import JobError, Reason, RowError
from clip_operator.inputs.image_access import what_to_check
from clip_operator.inputs.path_hints import PathHints
from clip_operator.request import ErrorBudget, EvaluationRequest, Excess
from clip_operator.scoring.result import RowResult
from clip_operator.scoring.tally import Tally
from clip_operator.tables import held

log = logging.getLogger(__name__)

# How many failures of each class are logged one by one, and shown where they are too many; the rest are only counted.
_EXAMPLES = 3

# Before so many rows are seen, a bad start says little of the whole.
_ROWS_THAT_SAY_SOMETHING = 1000


class Outcomes:
    """Turns results into the values of the output column, and keeps count.

    :param request: says what a row without a score gets, and how many may be without one. If it is for a shard, its
        failures are too many only where they are too many for the whole; where it is not known how many rows that has,
        the whole alone can tell.
    """

    def __init__(self, request: EvaluationRequest) -> None:
        self.tally = Tally()
        self._request = request
        self._budget = ErrorBudget.of(request)
        self._shard = request.shard
        self._hints = PathHints(request)
        self._examples: dict[Reason, list[str]] = defaultdict(list)

    def scores(
        self, results: Sequence[RowResult], references: Sequence[object]
    ) -> list[float | tuple[float, ...] | None]:
        """Return the column's values for the next rows: tuples where the request asks for all of a row's scores.

        :param references: their image references, one a row.
        :raises JobError: a row cannot be scored and ``on_error`` is ``fail``.
        """
        for result, reference in zip(results, references, strict=True):
            self.tally.add(result)
            if result.error is not None:
                self._hints.add(_failed_image(reference, result.error), result.error.reason)
                self._report(result.error)
        if self._request.aggregate == "all":
            return [None if result.score is None else result.scores or (result.score,) for result in results]
        unscored = 0.0 if self._request.on_error == "zero" else None
        return [unscored if result.score is None else result.score for result in results]

    def hints(self) -> list[str]:
        """Return what may be wrong with the image paths that led nowhere, a line each, without full stops."""
        return list(self._hints.lines())

    def check_so_far(self) -> None:
        """Raise :class:`JobError` if the rows seen so far are enough to judge by, and too many of them failed."""
        if self.tally.rows >= _ROWS_THAT_SAY_SOMETHING or self._shard is not None:
            self._check(f"the first {self.tally.rows:,}")

    def check(self) -> None:
        """Raise :class:`JobError` if, of all rows, none was scored or too many failed."""
        self._check(f"the {self.tally.rows:,}")

    def _check(self, these: str) -> None:
        rows, failures = self.tally.rows, self.tally.failures
        if self._shard is not None:
            rows = self._shard.total_rows or 0
            these = f"all {rows:,}"
        if rows and self.tally.failed == rows:
            reasons = ", ".join(f"{reason}: {count:,}" for reason, count in failures.most_common())
            examples = self._examples[Reason(failures.most_common(1)[0][0])][:1]  # a merge knows only counts
            raise JobError(
                f"none of {these} rows could be scored ({reasons}{''.join(f'; {example}' for example in examples)}); "
                "nothing was written. "
                + ". ".join([what_to_check(self._request, {Reason(name) for name in failures}), *self.hints()])
            )
        excesses = self._budget.excesses(failures, rows)
        if not excesses:
            return
        for line in chain(self._table(excesses, rows), self.hints()):
            log.error("%s", line)
        what = "; ".join(_described(excess, these, rows) for excess in excesses)
        raise JobError(
            f"too many rows have no score: {what}. Nothing was written; mend the data set, or allow for more errors"
        )

    def _table(self, excesses: Sequence[Excess], rows: int) -> Iterator[str]:
        """Yield a line for each class of failures, with how many there are and are allowed, and examples."""
        allowed = {excess.reason: excess.rate for excess in excesses}
        counts = [(Reason(name), count) for name, count in self.tally.failures.most_common()]
        width = max(len(reason.value) for reason, _ in counts)
        yield f"{'reason':<{width}}  {'rows':>11}  {'share':>7}  {'allowed':>7}  examples"
        for reason, count in counts:
            limit = self._budget.rates.get(reason)
            share = f"{count:>11,}  {_percent(count / rows):>7}  {_percent(limit) if limit is not None else '':>7}"
            mark = "!" if reason in allowed else " "
            for index, example in enumerate(self._examples[reason] or [""]):  # a merge knows only counts
                start = f"{reason.value:<{width}}  {share}" if index == 0 else " " * (width + 31)
                yield f"{start}{mark if index == 0 else ' '} {example}".rstrip()
        all_of_them = f"{self.tally.failed:>11,}  {_percent(self.tally.failed / rows):>7}"
        yield f"{'all':<{width}}  {all_of_them}  {_percent(self._budget.rate):>7}{'!' if None in allowed else ''}"

    def _report(self, error: RowError) -> None:
        before = self._shard.first_row or 0 if self._shard is not None else 0
        row = f"{before + self.tally.rows:,}"  # rows count from 1, as people and editors do
        if self._request.on_error == "fail":
            raise JobError(f"row {row} cannot be scored, and on_error is 'fail': {error}. Nothing was written")
        examples = self._examples[error.reason]
        if len(examples) < _EXAMPLES:
            examples.append(f"row {row}: {error.detail}")
            more = "; further ones are only counted" if len(examples) == _EXAMPLES else ""
            log.warning("Row %s has no score: %s%s", row, error, more)


def _failed_image(reference: object, error: RowError) -> object:
    """Return what names the image that a row's error is of; None where it is not known which of several that is."""
    images = held(reference)
    if len(images) == 1:
        return images[0]
    return None if error.image is None else images[error.image]


def _described(excess: Excess, these: str, rows: int) -> str:
    name = "max_error_rate" if excess.reason is None else "max_error_rates"
    who = f"{excess.count:,}" if excess.reason is None else f"{excess.reason.value}: {excess.count:,}"
    return f"{who} of {these} rows ({_percent(excess.count / rows)}), more than the {_percent(excess.rate)} of {name}"


def _percent(share: float) -> str:
    percent = 100 * share
    digits = f"{percent:.1f}".removesuffix(".0") if percent == 0 or percent >= 1 else f"{percent:.2g}"
    return f"{digits} %"
