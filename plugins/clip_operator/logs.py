"""How log lines are formed: one line a record, which data can neither break nor forge, and which holds no secret."""

from __future__ import annotations

import logging

from clip_operator.redaction import plain

# By which Airflow's UI folds lines away. Only what stands in the source begins with one.
_FOLDING = ("::group::", "::endgroup::")


class PlainRecords(logging.Handler):
    """Makes what the package logs plain, whoever writes it then: its own handlers come before those of the program."""

    def emit(self, record: logging.LogRecord) -> None:
        """Put the finished, plain text in the record's place."""
        command = next((mark for mark in _FOLDING if str(record.msg).startswith(mark)), "")
        try:
            record.msg, record.args = command + plain(record.getMessage()[len(command) :]), None
        except (TypeError, ValueError):  # what does not fit its arguments, of which Python's handlers tell
            return
        if not logging.root.handlers and logging.lastResort and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)  # Python's own, for programs that have set up no log, sees this handler


class PlainLines(logging.Formatter):
    """``LEVEL: message`` as one plain line, whichever library says it; a traceback below it is indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return what is written of a record."""
        line = f"{record.levelname}: {plain(record.getMessage().strip())}"
        if record.exc_info:
            line += "".join(f"\n  {plain(part)}" for part in self.formatException(record.exc_info).splitlines())
        return line
