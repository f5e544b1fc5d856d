"""How many rows may be without a score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from clip_operator.errors import Reason

if TYPE_CHECKING:
    from clip_operator.request.request import EvaluationRequest


@dataclass(frozen=True)
class Excess:
    """One limit that is exceeded.

    :param reason: which class of failures; None for all together.
    :param count: rows that failed so.
    :param rate: the largest share allowed, from 0 to 1.
    """

    reason: Reason | None
    count: int
    rate: float


@dataclass(frozen=True)
class ErrorBudget:
    """The largest shares of rows, from 0 to 1, that may be without a score.

    :param rate: over all reasons.
    :param rates: for single reasons.
    """

    rate: float
    rates: Mapping[Reason, float]

    @classmethod
    def of(cls, request: EvaluationRequest) -> Self:
        """Return the budget that a request sets."""
        return cls(request.max_error_rate, request.max_error_rates)

    def excesses(self, failures: Mapping[str, int], rows: int) -> list[Excess]:
        """Return the limits that so many failures, by reason, exceed among so many rows."""
        limits: list[tuple[Reason | None, int, float]] = [(None, sum(failures.values()), self.rate)]
        limits += [(reason, failures.get(reason.value, 0), rate) for reason, rate in self.rates.items()]
        # A quotient and the decimal that a user wrote are rounded to the same double; a product may be just below it.
        return [Excess(reason, count, rate) for reason, count, rate in limits if rows and count / rows > rate]
