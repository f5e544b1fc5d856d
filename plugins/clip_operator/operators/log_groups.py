"""Parts of a task's log that Airflow's UI folds away, so that a person sees the result first."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clip_operator.request import EvaluationRequest

log = logging.getLogger(__name__)

_PACKAGE = __name__.partition(".")[0]


@contextmanager
def log_group(title: str) -> Iterator[None]:
    """Fold away what is logged until the block ends or, lest it be overlooked, until the package logs an error."""
    log.info("::group::%s", title)
    end = _EndOfGroup()
    package = logging.getLogger(_PACKAGE)
    package.addHandler(end)
    try:
        yield
    finally:
        package.removeHandler(end)
        end.now()


class _EndOfGroup(logging.Handler):
    """Ends the group before the first error. The package's handlers come before those that write the log."""

    def __init__(self) -> None:
        super().__init__()
        self._ended = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self.now()

    def now(self) -> None:
        """End the group, if it has not ended."""
        if not self._ended:
            self._ended = True
            log.info("::endgroup::")


def log_request(request: EvaluationRequest) -> None:
    """Say what is asked for, folded away, but for what is as it is by default."""
    as_always = type(request)(input=request.input, output=request.output).model_dump(mode="json")
    with log_group("What was asked"):
        for name, value in request.model_dump(mode="json").items():
            if name in ("input", "output") or value != as_always[name]:
                log.info("%s: %s", name, value)
