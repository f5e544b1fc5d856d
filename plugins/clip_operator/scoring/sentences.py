"""Cuts a long text into sentences, so that each can be scored on its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

MOST_SENTENCES = 64
"""Of one text; captions of vision-language models rarely have more than twenty."""

# Far more than any CLIP reads. Results are kept in memory until they are saved, so what they hold has a bound.
_MOST_CHARACTERS = 1000

# A sentence ends at . ! ? or an ellipsis before white space, with a closing quote or bracket or without; at the full
# stops of Chinese and Japanese; and with the line. "e.g. a dog" is cut in two, for which no list of abbreviations of
# all languages is worth its length.
_STOP, _CLOSING = r"[.!?\u2026]", r"[\"'\u201d\u2019\u00bb)\]]"
_WIDE_STOP, _WIDE_CLOSING = r"[\u3002\uff01\uff1f\uff61\uff0e]", r"[\u300d\u300f\u201d\u2019\uff09]"
_BORDER = re.compile(
    rf"(?:(?<={_STOP})|(?<={_STOP}{_CLOSING}))\s+"
    rf"|(?<={_WIDE_STOP})(?!{_WIDE_STOP}|{_WIDE_CLOSING})"
    rf"|(?<={_WIDE_STOP}{_WIDE_CLOSING})"
    r"|[\r\n\x85\u2028\u2029]+"
)


def sentences(text: str) -> list[str]:
    """Return the first :data:`MOST_SENTENCES` sentences of a text, without white space around them.

    Of a sentence that is longer than 1,000 characters only these are there; models read fewer.
    """
    return list(islice(filter(None, _cut(text)), MOST_SENTENCES))


def _cut(text: str) -> Iterator[str]:
    start = 0
    for border in _BORDER.finditer(text):
        yield _stripped(text, start, border.start())
        start = border.end()
    yield _stripped(text, start, len(text))


def _stripped(text: str, start: int, stop: int) -> str:
    # A long run of white space before the first word is no sentence, but hides none either.
    return text[start:stop].strip()[:_MOST_CHARACTERS].strip()
