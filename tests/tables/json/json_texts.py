"""Generated JSON texts as people and programs write them, with values that are easy to ruin."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st

NUMBERS = st.sampled_from(
    [
        "0",
        "-0",
        "1E5",
        "0.1234567890123456789",
        "1e400",
        "-1.50",
        "0.00",
        "9" * 40,
        "7" * 5000,
        "NaN",
    ]
) | st.integers().map(str)

PLAIN_CHARACTERS = st.characters(codec="utf-8")


def _literal(text: str, ascii_only: bool) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)


STRINGS = (
    st.builds(_literal, st.text(PLAIN_CHARACTERS, max_size=12), st.booleans())
    | st.text(max_size=4).map(json.dumps)  # lone surrogates, as escapes
    | st.sampled_from(
        ['"00123"', '"\\ud83d"', '"\\/"', '"}"', '"{\\"a\\": 1,"', '"\\u0041"', '"\u2028\x7f"', '","', '":"']
    )
)

KEYS = STRINGS.filter(lambda literal: not json.loads(literal).startswith("clip_"))


class Style:
    """The white space around the tokens of one text."""

    def __init__(self, before_comma: str, after_comma: str, before_colon: str, after_colon: str, inner: str) -> None:
        self.comma = f"{before_comma},{after_comma}"
        self.colon = f"{before_colon}:{after_colon}"
        self.inner = inner

    def object(self, members: Sequence[tuple[str, str]]) -> str:
        """An object of key and value literals."""
        return (
            "{" + self.inner + self.comma.join(f"{key}{self.colon}{value}" for key, value in members) + self.inner + "}"
        )

    def array(self, elements: Sequence[str]) -> str:
        """An array of literals."""
        return "[" + self.inner + self.comma.join(elements) + self.inner + "]"


def styles(spaces: Sequence[str]) -> st.SearchStrategy[Style]:
    """The two usual styles and anything else made of these spaces."""
    space = st.sampled_from(spaces)
    return st.sampled_from([Style("", "", "", "", ""), Style("", " ", "", " ", "")]) | st.builds(
        Style, space, space, space, space, space
    )


def objects(spaces: Sequence[str]) -> st.SearchStrategy[str]:
    """The texts of JSON objects without a key that begins with ``clip_``."""
    style = styles(spaces)
    scalars = NUMBERS | STRINGS | st.sampled_from(["null", "true", "false"])
    values = st.recursive(
        scalars,
        lambda inner: (
            st.builds(Style.array, style, st.lists(inner, max_size=3))
            | st.builds(Style.object, style, st.lists(st.tuples(STRINGS, inner), max_size=3))
        ),
        max_leaves=6,
    )
    return st.builds(Style.object, style, st.lists(st.tuples(KEYS, values), max_size=5))


def as_written(text: str | bytes) -> object:
    """A JSON text as lists of pairs and number literals: whatever json.loads would fold or round stays visible."""
    return json.loads(text, object_pairs_hook=lambda pairs: ("object", pairs), parse_float=str, parse_int=str)


def without_member(parsed: object, name: str) -> object:
    """What `as_written` gives for an object, less the last member, which has to be `name`."""
    assert isinstance(parsed, tuple)
    kind, pairs = parsed
    assert pairs[-1][0] == name
    return kind, pairs[:-1]
