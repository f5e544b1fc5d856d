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
    """Return what the last error says, or, where none is called one, the last line without a level; else None.

    A traceback ends with the exception, so that is what its last line is. The command line indents those it writes
    below an error, so what they repeat of the data is taken for no error.
    """
    error = last = None
    for line in lines:
        if (text := line.rstrip()) and not text[0].isspace():
            match = _LEVEL.fullmatch(text)
            if match is None:
                last = text
            elif _LEVELS[match[1]] >= logging.ERROR:
                error = match[2]
    return error or last
