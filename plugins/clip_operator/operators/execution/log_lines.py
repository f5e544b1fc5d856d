"""The command line's log lines, ``LEVEL: message``, as another process reads them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

_LEVELS = logging.getLevelNamesMapping()
_LEVEL = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL): (.*)", re.DOTALL)


def parse_log_line(line: str) -> tuple[int, str]:
    """Return the line's level and what it says. A line of another kind, such as a traceback's, is information."""
    match = _LEVEL.fullmatch(line)
    return (_LEVELS[match[1]], match[2]) if match else (logging.INFO, line)


def last_error(lines: Iterable[str]) -> str | None:
    """Return what the last error says, or, where none is called one, the last line; None where there is no line.

    A traceback ends with the exception, so that is what its last line is.
    """
    error = last = None
    for line in lines:
        if line.strip():
            level, last = parse_log_line(line.rstrip())
            if level >= logging.ERROR:
                error = last
    return error or last
