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

    def update(self, done: int, failed: int) -> None:
        """Show that ``done`` rows are finished in all, ``failed`` of them without a score."""


class LogProgress:
    """Logs a line at most every few seconds: rows done, rows per second, failures, time left.

    :param total: rows to do.
    :param interval: seconds between lines.
    """

    def __init__(self, total: int, interval: float = SECONDS_BETWEEN_LINES) -> None:
        self._total = total
        self._interval = interval
        self._started = self._last = time.monotonic()

    def update(self, done: int, failed: int) -> None:
        now = time.monotonic()
        if now - self._last < self._interval or done == 0:
            return
        self._last = now
        speed = done / (now - self._started)
        left = timedelta(seconds=round((self._total - done) / speed))
        log.info(
            "%s of %s rows (%.0f %%), %.1f rows/s, %s failed, about %s left",
            f"{done:,}",
            f"{self._total:,}",
            100 * done / self._total,
            speed,
            f"{failed:,}",
            left,
        )


class _BarProgress:
    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def update(self, done: int, failed: int) -> None:
        self._bar.set_postfix(failed=failed, refresh=False)
        self._bar.update(done - self._bar.n)


@contextmanager
def show_progress(total: int) -> Iterator[Progress]:
    """Show progress where a person looks: a bar if standard error is a terminal, log lines if it is not."""
    if not sys.stderr.isatty():
        yield LogProgress(total)
        return
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    with logging_redirect_tqdm(), tqdm(total=total, unit="row", unit_scale=True, file=sys.stderr) as bar:
        yield _BarProgress(bar)
