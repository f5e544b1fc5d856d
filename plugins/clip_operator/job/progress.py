"""Shows how far a job is: a bar on a terminal, elsewhere a log line every few seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Progress(Protocol):
    """Is told how many rows are done."""

    def update(self, done: int, failed: int, known: int = 0) -> None:
        """Show that ``done`` rows are finished in all, ``failed`` of them without a score, and that ``known`` of them
        were before.
        """


class LogProgress:
    """Logs a line at most every few seconds: rows done, rows per second, failures, time left.

    Rows that an earlier try or run has left take next to no time, so they tell nothing of what the others take.

    :param total: rows in all.
    :param left_before: how many of them are known from an earlier try or run, as far as can be told.
    :param interval: seconds between lines.
    """

    def __init__(self, total: int, left_before: int = 0, interval: float = SECONDS_BETWEEN_LINES) -> None:
        self._total = total
        self._left_before = min(left_before, total)
        self._interval = interval
        self._started = self._last = time.monotonic()

    def update(self, done: int, failed: int, known: int = 0) -> None:
        now = time.monotonic()
        worked = done - min(known, self._left_before)
        if worked == 0:
            self._started = now
        if now - self._last < self._interval or worked == 0:
            return
        self._last = now
        speed = worked / (now - self._started)
        left = max(0, self._total - self._left_before - worked) / speed
        log.info(
            "%s of %s rows (%.0f %%), %.1f rows/s, %s failed, about %s left",
            f"{done:,}",
            f"{self._total:,}",
            100 * done / self._total,
            speed,
            f"{failed:,}",
            timedelta(seconds=round(left)),
        )


class _BarProgress:
    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def update(self, done: int, failed: int, known: int = 0) -> None:
        self._bar.set_postfix(failed=failed, refresh=False)
        self._bar.initial = known  # in the speed of them all, which is shown at the end, they do not count
        self._bar.update(done - self._bar.n)


@contextmanager
def show_progress(total: int, left_before: int) -> Iterator[Progress]:
    """Show progress where a person looks: a bar if standard error is a terminal, log lines if it is not.

    :param total: rows in all.
    :param left_before: how many of them are known from an earlier try or run, as far as can be told.
    """
    if not sys.stderr.isatty():
        yield LogProgress(total, left_before)
        return
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    with logging_redirect_tqdm(), tqdm(total=total, unit="row", unit_scale=True, file=sys.stderr) as bar:
        yield _BarProgress(bar)
